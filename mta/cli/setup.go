package cli

import (
	"cmp"

	"github.com/spf13/cobra"

	"meta1/mta"
	"meta1/mta/provision"
	"meta1/mta/settings"
)

func setupCommand(e *Env) *cobra.Command {
	var file string
	var check, asJSON bool
	c := &cobra.Command{
		Use: "setup", Short: "Make the account and directories that a configuration needs", Args: noArgs,
		Long: `setup makes what meta1 needs before its first start: the account under which it serves (user, group),
without password and shell, the main queue directory (working_directory), the maildrop in it (section maildrop), in
which programs may leave mail from then on, and the directory of log files (log_directory, log_file), with their
owners and modes. It is called as root. What exists is not changed;
if that is wrong, setup says what is, and ends with 1.

With --check nothing is made; what is missing is printed with the command that would make it, and the exit
status is 1 if something is missing or wrong.`,
		Example: `  meta1 setup
  meta1 setup --check -f new.conf`,
		RunE: func(c *cobra.Command, _ []string) error {
			t := target{file: file}
			wanted, err := mta.Provisions(cmp.Or(t.config(), settings.DefaultFile))
			if err != nil {
				return err
			}
			steps := provision.System().Run(c.Context(), wanted, check)
			if asJSON {
				err = printJSON(e.Stdout, steps)
			} else {
				err = printSteps(e, steps)
			}
			if err != nil {
				return err
			}
			for _, s := range steps {
				if s.State == provision.Missing || s.State == provision.Wrong {
					return &statusError{1, nil}
				}
			}
			return nil
		},
	}
	configFlag(c, &file, "")
	c.Flags().BoolVar(&check, "check", false, "only say what is missing or wrong")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printSteps(e *Env, steps []provision.Step) error {
	w := &textWriter{out: e.Stdout}
	for _, s := range steps {
		if s.Text == "" {
			w.line("%s: %s", plain(s.What), s.State)
		} else {
			w.line("%s: %s: %s", plain(s.What), s.State, plain(s.Text))
		}
	}
	return w.err
}
