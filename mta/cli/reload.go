package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/exit"
)

func reloadCommand(e *Env) *cobra.Command {
	var to target
	var asJSON, check bool
	c := &cobra.Command{
		Use: "reload", Short: "Apply the configuration, maps, certificates and keys as they are now", Args: noArgs,
		Long: `reload makes meta1 apply its configuration, maps, certificates and keys as they are now, as the
signals HUP and USR1 do: all of them, or none if anything is wrong. Then all mistakes are
printed with file and line, nothing has changed, and the exit status is 78.

It prints which options have changed, from what to what, and which of them take effect at
the next start only, with the reason. Sessions and deliveries in progress keep what they
began with.

--check prints the same and changes nothing.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return to.ask(func(k *control.Client) error {
				ask := k.Reload
				if check {
					ask = k.CheckReload
				}
				r, err := ask(c.Context())
				if err != nil {
					return err
				}
				return printReload(e.Stdout, r, asJSON)
			})
		},
	}
	to.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&check, "check", false, "say what would be done, and do nothing")
	return c
}

func printReload(out io.Writer, r control.ReloadReport, asJSON bool) error {
	failed := error(nil)
	if len(r.Errors) > 0 {
		failed = &statusError{exit.Config, errors.New(strings.Join(r.Errors, "\n"))}
	}
	if asJSON {
		if err := printJSON(out, r); err != nil {
			return err
		}
		if failed != nil {
			failed = &statusError{exit.Config, nil}
		}
		return failed
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(out, "warning: %s\n", plain(w))
	}
	if failed != nil {
		return failed
	}
	for _, c := range r.Changed {
		fmt.Fprintf(out, "%s: %s (%s)\n", plain(c.Option), plain(arrow(c)), c.Reload)
	}
	for _, c := range r.NeedRestart {
		fmt.Fprintf(out, "%s: %s (needs a restart%s)\n", plain(c.Option), plain(arrow(c)), plain(since(c.Why)))
	}
	for _, s := range r.Reloaded {
		fmt.Fprintf(out, "reloaded: %s\n", plain(s))
	}
	fmt.Fprintf(out, "%s: generation %d\n", map[bool]string{true: "only checked, would be", false: "in effect"}[r.Check], r.Generation)
	return nil
}

// arrow shows how a value has changed.
func arrow(c confparse.Change) string {
	shown := func(v string) string {
		return cmp.Or(v, "none")
	}
	return shown(c.Old) + " -> " + shown(c.New)
}

func since(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
