package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/dryrun"
	"meta1/mta/exit"
	"meta1/mta/explain"
	"meta1/mta/settings"
)

// explainFlags are those of the dialogue.
type explainFlags struct {
	client string
	q      explain.Question
	tls    string
	told   explain.TLS
	asJSON bool
	log    logFlags
}

func explainCommand(e *Env) *cobra.Command {
	var to target
	var f explainFlags
	c := &cobra.Command{
		Use: "explain [id | reply]", Short: "Say what becomes of mail, and why", Args: maxArgs(1),
		Long: `explain --client ADDRESS --from SENDER --to RECIPIENT tries a dialogue and prints for each
command the checks that were made, what they looked up in which map, the entry that matched
with its file and line, what decided, and the reply. Of a refusal it names the options behind
it, with their values and where they are set. For each recipient that is accepted it prints
the aliases, the route, the hosts in their order, what TLS must give, and the limits on
connections.

The dialogue is held with a real session of the server, and a running meta1 is asked, found as
by every command. With -f the configuration file is tried instead, whether meta1 runs or not:
before a reload, for example. Nothing is sent or stored, no limit counts the dialogue, and
greylisting does not remember it. DATA is not given, so that nothing is said of checks on the
content.

explain ID, with the identifier of a message or recipient, tells of a message in the queue, or of one
that has left it: who brought it and how the client was known, each attempt with its host and reply, and
of each recipient what became of it, or why it waits, what is known of its host, and when it is tried next.
What is past is read from the log, found as by meta1 log.

explain REPLY, such as explain "550 5.7.1 Relaying denied", searches the configuration for what
makes this reply: entries of the access map, and replies of meta1 itself with their options. A
part of the reply is enough.

The exit status is 0 if all recipients are accepted, 75 if one is refused for now, and 77 if one
is refused. Of a message it is 0 if all recipients have it, 75 if one waits, 77 if one did not get it,
and 1 if neither queue nor log has it.`,
		Example: `  meta1 explain --client 192.0.2.1 --helo mail.example.net --from a@example.net --to b@example.com
  meta1 explain -f new.conf --client 192.0.2.1 --tls --auth joe --from joe@example.com --to x@example.net --json
  meta1 explain "Relaying denied"`,
		RunE: func(c *cobra.Command, args []string) error {
			if id, ok := messageID(args); ok {
				return explainMessage(c.Context(), e, &to, &f.log, id, f.asJSON)
			}
			if len(args) == 1 {
				return explainReply(e, &to, args[0], f.asJSON)
			}
			if err := f.fill(c); err != nil {
				return &usageError{err}
			}
			return f.run(c, e, &to)
		},
	}
	to.flags(c)
	f.log.sources(c)
	fl := c.Flags()
	fl.StringVar(&f.client, "client", "", "`address` of the client")
	fl.StringVar(&f.q.Name, "name", "", "verified name of the client, instead of asking DNS")
	fl.StringVar(&f.q.Helo, "helo", "", "argument of EHLO; without it the name or the address")
	fl.StringVar(&f.tls, "tls", "", "use STARTTLS; the `version` of TLS if it matters, as TLSv1.2")
	fl.Lookup("tls").NoOptDefVal = " "
	fl.StringVar(&f.told.Cipher, "tls-cipher", "", "cipher of TLS, as OpenSSL names it")
	fl.IntVar(&f.told.Bits, "tls-bits", 0, "bits of the cipher")
	fl.StringVar(&f.told.Subject, "cert-subject", "", "`name` in a verified certificate of the client, as /C=US/CN=client.example")
	fl.StringVar(&f.told.Issuer, "cert-issuer", "", "`name` of its issuer")
	fl.StringVar(&f.q.Auth, "auth", "", "`account` as which the client has authenticated")
	fl.StringVar(&f.q.Mechanism, "mech", "", "mechanism by which it has; without it one that the server trusts")
	fl.StringVar(&f.q.From, "from", "", "sender; <> or nothing for none")
	fl.StringVar(&f.q.FromParams, "mail-params", "", "parameters of MAIL, as \"SIZE=1000 SMTPUTF8\"")
	fl.StringArrayVar(&f.q.To, "to", nil, "recipient; may be given several times")
	fl.StringVar(&f.q.ToParams, "rcpt-params", "", "parameters of RCPT")
	fl.StringVar(&f.q.Server, "server", "", "`section` smtps, by its name; without it the first")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

// fill makes the question of the flags.
func (f *explainFlags) fill(c *cobra.Command) (err error) {
	if f.client == "" || len(f.q.To) == 0 {
		return errors.New("give a reply, or --client, --from and --to")
	}
	if f.q.Client, err = netip.ParseAddr(f.client); err != nil {
		return fmt.Errorf("--client: %q is no IP address", f.client)
	}
	f.q.Client = f.q.Client.Unmap()
	f.q.Helo = explain.HeloOr(f.q.Helo, f.q.Name, f.q.Client)
	f.q.From = bare(f.q.From)
	for i := range f.q.To {
		f.q.To[i] = bare(f.q.To[i])
	}
	f.told.Version = strings.TrimSpace(f.tls)
	if c.Flags().Changed("tls") || f.told != (explain.TLS{}) {
		f.q.TLS = &f.told
	}
	return f.q.Check()
}

// bare is an address without angle brackets.
func bare(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }

// run asks the running meta1, or tries the file that -f names.
func (f *explainFlags) run(c *cobra.Command, e *Env, to *target) error {
	var r *explain.Report
	if to.file != "" && to.socket == "" {
		var err error
		if r, err = dryrun.Explain(c.Context(), to.file, e.Version, f.q); err != nil {
			return err
		}
	} else if err := to.ask(func(k *control.Client) error {
		answer, err := k.Explain(c.Context(), f.q)
		r = &answer
		return err
	}); err != nil {
		return err
	}
	var err error
	if f.asJSON {
		err = printJSON(e.Stdout, r)
	} else {
		err = printExplained(e.Stdout, r)
	}
	if err != nil {
		return err
	}
	switch r.Verdict {
	case explain.TempFail:
		return &statusError{exit.TempFail, nil}
	case explain.Rejected:
		return &statusError{exit.NoPerm, nil}
	}
	return nil
}

// textWriter keeps the first error, so that a page is printed without asking at each line.
type textWriter struct {
	out io.Writer
	err error
}

func (w *textWriter) line(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.out, format+"\n", args...)
	}
}

func printExplained(out io.Writer, r *explain.Report) error {
	w := &textWriter{out: out}
	source := "the running meta1"
	if r.Source == "file" {
		source = "configuration"
	}
	w.line("%s %s, section %s", source, plain(r.Config), plain(r.Server))
	for _, s := range r.Stages {
		w.line("")
		w.line("%s", plain(cmp.Or(s.Command, s.Stage)))
		printChecks(w, s.Checks, "  ")
		for _, n := range s.Notes {
			w.line("    %s: %s", n.Name, plain(n.Value))
		}
		w.line("  %s", plain(s.Reply))
		if s.Why != "" {
			w.line("    because: %s", plain(s.Why))
		}
		printOptions(w, s.Options, "    ")
	}
	for i := range r.Recipients {
		printRecipient(w, &r.Recipients[i])
	}
	w.line("")
	for _, n := range r.Notes {
		w.line("note: %s", plain(n))
	}
	w.line("verdict: %s", r.Verdict)
	return w.err
}

// printChecks prints a line for each check: what was looked up where, and what was found. The one
// that decided has a > in front.
func printChecks(w *textWriter, checks []explain.Check, indent string) {
	for i := range checks {
		c := &checks[i]
		mark := "  "
		if c.Decides {
			mark = "> "
		}
		text := c.Check
		if c.Key != "" {
			text += ": " + c.Key
		}
		if place := cmp.Or(c.Where, c.Map); place != "" {
			text += " in " + place
		}
		switch {
		case c.Value != "":
			text += ": " + c.Value
		case c.Map != "" && c.Effect == "":
			text += ": no entry"
		}
		if c.Effect != "" {
			text += " -> " + c.Effect
		}
		w.line("%s%s%s", indent, mark, plain(text))
	}
}

func printOptions(w *textWriter, options []explain.Option, indent string) {
	for _, o := range options {
		value := o.Value
		if value == "" {
			value = `""`
		}
		if o.Where == "not set" {
			w.line("%s%s (not set)", indent, plain(o.Option))
			continue
		}
		w.line("%s%s = %s (%s)", indent, plain(o.Option), plain(value), plain(o.Where))
	}
}

func printRecipient(w *textWriter, r *explain.Recipient) {
	w.line("")
	w.line("<%s>: %s", plain(r.Rcpt), r.Verdict)
	for i := range r.Routes {
		route := &r.Routes[i]
		indent := "  "
		if i > 0 {
			w.line("  member <%s>", plain(route.Rcpt))
			indent = "    "
		}
		if route.Sender != "" {
			w.line("%ssender becomes <%s>", indent, plain(route.Sender))
		}
		printChecks(w, route.Checks, indent)
		switch {
		case route.Reply != "":
			w.line("%sno route: %s", indent, plain(route.Reply))
		case route.Alias:
			w.line("%san alias", indent)
		default:
			w.line("%sgoes to %s", indent, plain(route.Dest))
		}
		for n := range route.Hops {
			printHop(w, n+1, &route.Hops[n], indent)
		}
	}
	if r.More > 0 {
		w.line("  and %d members more", r.More)
	}
}

func printHop(w *textWriter, n int, h *explain.Hop, indent string) {
	w.line("%s%d. %s", indent, n, plain(h.Hop))
	indent += "   "
	w.line("%sTLS: %s", indent, plain(h.TLS))
	for _, d := range h.DANE {
		w.line("%s  %s", indent, plain(d))
	}
	printChecks(w, h.Checks, indent)
	if h.State != "" {
		w.line("%sstate: %s", indent, plain(h.State))
	}
	if len(h.Source) > 0 {
		w.line("%sfrom: %s", indent, strings.Join(h.Source, " "))
	}
	printOptions(w, h.Limits, indent)
}

// explainReply searches the configuration for what makes a reply.
func explainReply(e *Env, to *target, reply string, asJSON bool) error {
	r, err := dryrun.ExplainReply(cmp.Or(to.config(), settings.DefaultFile), reply)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Stdout, r)
	} else {
		err = printReplyReport(e.Stdout, r, reply)
	}
	if err == nil && len(r.Entries)+len(r.Replies) == 0 {
		return &statusError{1, nil}
	}
	return err
}

func printReplyReport(out io.Writer, r *dryrun.ReplyReport, reply string) error {
	w := &textWriter{out: out}
	for _, entry := range r.Entries {
		place := cmp.Or(entry.Where, entry.Map)
		w.line("%s: %s %s", plain(place), plain(entry.Key), plain(entry.Value))
		w.line("    makes %s", plain(entry.Reply))
	}
	if r.More {
		w.line("and more entries")
	}
	for _, c := range r.Replies {
		w.line("%s", plain(c.Reply))
		w.line("    at %s", plain(c.Stage))
		if c.Why != "" {
			w.line("    because: %s", plain(c.Why))
		}
		printOptions(w, c.Options, "    ")
	}
	if len(r.Entries)+len(r.Replies) == 0 {
		w.line("nothing in %s makes a reply %q", plain(r.Config), reply)
	}
	return w.err
}
