package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meta1/mta/control"
	"meta1/mta/exit"
)

func ctlCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "ctl", Short: "Ask and steer a running meta1", Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(statusCommand(e), statsCommand(e), topCommand(e), connectionsCommand(e), throttleCommand(e), drainCommand(e),
		reloadCommand(e), upgradeCommand(e), stopCommand(e), tlsReportsCommand(e), dmarcReportsCommand(e), backupCommand(e))
	return c
}

func statusCommand(e *Env) *cobra.Command {
	var to target
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show what the modules do", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				s, err := k.Status(c.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e.Stdout, s)
				}
				return printStatus(e.Stdout, &s, time.Now())
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printStatus(out io.Writer, s *control.Status, now time.Time) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, plain(value)) }
	line("meta1", s.Version)
	line("hostname", s.Hostname)
	line("process", fmt.Sprintf("%d, up %v", s.PID, now.Sub(s.Started).Round(time.Second)))
	line("configuration", s.Config)
	conf := &s.Configuration
	line("generation", fmt.Sprintf("%d, for %v", conf.Generation, now.Sub(conf.Since).Round(time.Second)))
	for _, c := range conf.NeedRestart {
		line("needs a restart", c.Option+": "+arrow(c)+since(c.Why))
	}
	if !conf.Failed.IsZero() {
		line("reload failed", fmt.Sprintf("%v ago, nothing has changed: %s", now.Sub(conf.Failed).Round(time.Second), strings.Join(conf.Errors, "; ")))
	}
	line("directory", s.Spool)
	for _, l := range s.Listen {
		line("listen", l.Address+" ("+l.Section+")")
	}
	for _, l := range s.Limits {
		line("limit", l)
	}
	switch {
	case s.Health.OK:
		line("health", "ok")
	default:
		for _, r := range s.Health.Reasons {
			line("health", "not ok: "+r)
		}
	}
	for i := range s.Modules {
		m := &s.Modules[i]
		state := fmt.Sprintf("%s for %v", m.State, now.Sub(m.Since).Round(time.Second))
		if m.Restarts > 0 {
			state += fmt.Sprintf(", %d restarts", m.Restarts)
		}
		if m.Error != "" {
			state += ", last ended with: " + m.Error
		}
		fmt.Fprintln(w, "\t")
		line(m.Name, state)
		for _, v := range m.Values {
			line("  "+v.Name, v.String())
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(out, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// stopPause is the time between two looks whether meta1 has ended.
const stopPause = 50 * time.Millisecond

func stopCommand(e *Env) *cobra.Command {
	var to target
	var wait time.Duration
	c := &cobra.Command{
		Use: "stop", Short: "Make meta1 end", Args: noArgs,
		Long: `stop makes a running meta1 end as the signal TERM does, and waits until it has: no connection
is taken any more, sessions that send a message may finish it for a while, and deliveries that
are under way are ended in order. What is queued stays in the queue. If meta1 has not ended when
--wait is over the exit status is 75; it goes on to end.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				asked := k.Stop(c.Context())
				if errors.Is(asked, control.ErrNotRunning) || errors.Is(asked, control.ErrForbidden) {
					return asked
				}
				for until := time.Now().Add(wait); ; time.Sleep(stopPause) {
					// The control socket is the last that is closed. It may have been before the answer came.
					if _, err := k.Health(c.Context()); err != nil {
						fmt.Fprintln(e.Stdout, "stopped")
						return nil
					}
					if asked != nil {
						return asked
					}
					if time.Now().After(until) {
						return &statusError{exit.TempFail, fmt.Errorf("meta1 has not ended within %v", wait)}
					}
				}
			})
		},
	}
	to.flags(c)
	wait = 90 * time.Second
	c.Flags().Var((*timeValue)(&wait), "wait", "how long to wait for its end; without it 90s")
	return c
}

func healthcheckCommand(e *Env) *cobra.Command {
	var to target
	c := &cobra.Command{
		Use: "healthcheck", Short: "Say whether meta1 works", Args: noArgs,
		Long: `healthcheck ends with status 0 if all modules of a running meta1 are up, it takes mail,
and no service was given up. Otherwise it prints the reasons and ends with status 1, as a container's HEALTHCHECK
wants it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			err := to.ask(func(k *control.Client) error {
				h, err := k.Health(c.Context())
				if err != nil {
					return err
				}
				if !h.OK {
					return errors.New(strings.Join(h.Reasons, "; "))
				}
				fmt.Fprintln(e.Stdout, "ok")
				return nil
			})
			if err != nil {
				return &statusError{1, err}
			}
			return nil
		},
	}
	to.flags(c)
	return c
}
