package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta1/mta/dryrun"
	"meta1/mta/exit"
	"meta1/mta/whatif"
)

// diffMax is how many different envelopes are tried unless --max says otherwise.
const diffMax = 10_000

func diffCommand(e *Env) *cobra.Command {
	var traffic string
	var log logFlags
	var most int
	var asJSON bool
	c := &cobra.Command{
		Use: "diff old new", Short: "Say what another configuration would change for the mail of late", Args: exactArgs(2),
		Long: `diff tries the mail that a log tells of with two configuration files, and prints what they make
different: who is refused or accepted now, other replies, other hosts for a recipient, other demands on
TLS, other limits on connections; each with what decided it, with file and line. So before a reload it is
known what it will do.

Each different combination of client, sender and recipient is tried once, with a real session of the server, as
by meta1 explain -f: with the maps of each configuration, and with the name servers. Nothing is sent, stored or counted,
and neither meta1 nor its queue need run. What is decided on content, by milters, policy services, greylisting and
limits that count clients is not tried. With the same certificate that both configurations may read TLS is tried, too.

The log is that of the old configuration, as meta1 log finds it, or what --log or --journal names. With --traffic FILE
the envelopes are read from a file instead: a JSON object a line, with the members client, helo, from, to (a list), and
if wanted server, name, tls, auth, mechanism, from_params, to_params, seen and size; - is standard input.

The exit status is 0 if nothing differs, 1 if something does, and another one for an error.`,
		Example: `  cp /etc/meta1/meta1.conf new.conf && $EDITOR new.conf
  meta1 diff /etc/meta1/meta1.conf new.conf
  echo '{"client":"192.0.2.1","from":"a@b.example","to":["c@d.example"]}' | meta1 diff old.conf new.conf --traffic -`,
		RunE: func(c *cobra.Command, args []string) error {
			if most < 1 {
				return usage(errors.New("--max must be at least 1"))
			}
			envelopes, err := log.envelopes(c.Context(), e, args[0], traffic, most)
			if err != nil {
				return err
			}
			return diff(c.Context(), e, args[0], args[1], envelopes, asJSON)
		},
	}
	log.sources(c)
	fl := c.Flags()
	fl.StringVar(&traffic, "traffic", "", "read the envelopes from this `file`")
	fl.IntVar(&most, "max", diffMax, "try this many different envelopes")
	fl.BoolVar(&asJSON, "json", false, "print a JSON object for each envelope that changes")
	return c
}

// envelopes reads the mail that is tried.
func (f *logFlags) envelopes(ctx context.Context, e *Env, config, traffic string, most int) (*whatif.Envelopes, error) {
	all := &whatif.Envelopes{Max: most}
	if traffic == "" {
		f.conf = config
		if err := f.lines(ctx, e, all.Add); err != nil {
			return nil, err
		}
	} else {
		in, name := e.Stdin, "standard input"
		if traffic != "-" {
			file, err := os.Open(traffic)
			if err != nil {
				return nil, &statusError{exit.IOErr, err}
			}
			defer file.Close()
			in, name = file, traffic
		}
		if err := all.Read(in); err != nil {
			return nil, &statusError{exit.DataErr, fmt.Errorf("%s, %w", name, err)}
		}
	}
	if len(all.List()) == 0 {
		return nil, &statusError{exit.DataErr, errors.New("no mail to try: the log tells of none; --traffic or --log name another source")}
	}
	return all, nil
}

func diff(ctx context.Context, e *Env, before, after string, envelopes *whatif.Envelopes, asJSON bool) error {
	out := bufio.NewWriter(e.Stdout)
	w := &textWriter{out: out}
	kinds := map[whatif.Kind]int{}
	changed, failed := 0, 0
	err := dryrun.Diff(ctx, before, after, e.Version, envelopes.List(), func(c *dryrun.Changed) error {
		changed++
		if c.Failed != "" {
			failed++
		}
		for _, k := range whatif.Kinds() {
			if slices.ContainsFunc(c.Changes, func(one whatif.Change) bool { return one.Kind == k }) {
				kinds[k]++
			}
		}
		if asJSON {
			enc := json.NewEncoder(out)
			enc.SetEscapeHTML(false) // addresses stay readable
			w.err = enc.Encode(c)
		} else {
			printChanged(w, c)
		}
		if w.err == nil {
			w.err = out.Flush() // what is found is seen at once
		}
		return w.err
	})
	if err != nil {
		return err
	}
	if !asJSON {
		w.line("%s", diffSummary(envelopes, changed, failed, kinds))
	}
	if flush := out.Flush(); w.err == nil {
		w.err = flush
	}
	switch {
	case w.err != nil:
		return w.err
	case failed > 0:
		return &statusError{exit.TempFail, fmt.Errorf("%d envelopes could not be tried", failed)}
	case changed > 0:
		return &statusError{1, nil}
	}
	return nil
}

func printChanged(w *textWriter, c *dryrun.Changed) {
	env := c.Envelope
	client := env.Client.String()
	if env.Name != "" {
		client += " (" + env.Name + ")"
	}
	if env.Auth != "" {
		client += " as " + env.Auth
	}
	times := ""
	if env.Seen > 1 {
		times = fmt.Sprintf(", %d times", env.Seen)
	}
	to := "before any recipient"
	if len(env.To) > 0 {
		to = "to <" + strings.Join(env.To, "> <") + ">"
	}
	w.line("%s, from <%s> %s%s", plain(client), plain(env.From), plain(to), times)
	if c.Failed != "" {
		w.line("  could not be tried: %s", plain(c.Failed))
	}
	for i := range c.Changes {
		one := &c.Changes[i]
		w.line("  %s", one.Kind)
		for _, side := range []struct {
			mark string
			of   *whatif.Side
		}{{"-", &one.Old}, {"+", &one.New}} {
			text := side.of.Text
			if text == "" {
				text = "nothing"
			}
			w.line("    %s %s", side.mark, plain(text))
			for _, why := range side.of.Why {
				w.line("        %s", plain(why))
			}
		}
	}
	w.line("")
}

// diffSummary says in one line what was tried and what differs.
func diffSummary(envelopes *whatif.Envelopes, changed, failed int, kinds map[whatif.Kind]int) string {
	times := 0
	for _, env := range envelopes.List() {
		times += env.Seen
	}
	s := fmt.Sprintf("%d different envelopes of %d tried: ", len(envelopes.List()), times)
	if changed == 0 {
		s += "nothing differs"
	} else {
		var parts []string
		for _, k := range whatif.Kinds() {
			if kinds[k] > 0 {
				parts = append(parts, fmt.Sprintf("%s of %d", k, kinds[k]))
			}
		}
		if failed > 0 {
			parts = append(parts, fmt.Sprintf("%d could not be tried", failed))
		}
		s += fmt.Sprintf("%d differ (%s)", changed, strings.Join(parts, ", "))
	}
	if envelopes.Left > 0 {
		s += fmt.Sprintf("; %d more were left out (--max)", envelopes.Left)
	}
	return s
}
