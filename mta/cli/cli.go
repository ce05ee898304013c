// Package cli is the command line of meta1: a file for each command. It reads flags,
// asks the packages that do the work, and prints; no command keeps state.
//
// Called as sendmail, mailq or newaliases, the binary is that command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta/exit"
)

// Env is what a command gets from the process.
type Env struct {
	Args    []string // with the name of the program in front
	Stdin   *os.File
	Stdout  io.Writer
	Stderr  io.Writer
	Version string
	// Exit ends the process at once.
	Exit func(status int)
}

// usageError is a wrong command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// statusError ends a command with an exit status; err, if not nil, is printed.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *statusError) Unwrap() error { return e.err }

// Main runs the command that the arguments name and gives the exit status
// (sysexits.h).
func Main(e Env) int {
	root := newRoot(&e)
	root.SetArgs(arguments(e.Args))
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	err := root.ExecuteContext(context.Background())
	report(e, err)
	return status(err)
}

// arguments adds the command that the name of the program stands for.
func arguments(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	switch name := filepath.Base(args[0]); name {
	case "sendmail", "mailq":
		return append([]string{name}, args[1:]...)
	case "newaliases": // aliases are read from text, or made by createmap
		return append([]string{"ctl", "reload"}, args[1:]...)
	}
	return args[1:]
}

func newRoot(e *Env) *cobra.Command {
	var version int
	root := &cobra.Command{
		Use:   "meta1",
		Short: "A mail transfer agent",
		Long: `meta1 is a mail gateway and relay, the successor of MeTA1 in one program.

meta1 serve runs it. The other commands look at a running one, or work on files.
A command finds the running meta1 by its control socket: the one that --socket
names, else by the configuration that -f names, else by $META1_CONF, else by
/etc/meta1/meta1.conf, else at ./var/spool/control, where the quick start has it,
or at /var/spool/meta1/control. It reads the configuration as far as it can: a
mistake in the file keeps nobody from asking a running meta1.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error {
			if version > 0 {
				return showVersion(e, version)
			}
			return c.Help()
		},
	}
	root.Flags().CountVarP(&version, "version", "V", "show the version and end; more of them show more, as serve -V does")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		serveCommand(e), monitorCommand(), explainCommand(e), diffCommand(e), mailqCommand(e), logCommand(e), queueCommand(e), fsckCommand(e), setupCommand(e), migrateCommand(e), ctlCommand(e), healthcheckCommand(e), configCommand(e),
		createmapCommand(e), passwdCommand(e), dkimCommand(e), sendmailCommand(e), ldaCommand(e), benchCommand(e), sinkCommand(e), sourceCommand(e), pmultCommand(e), versionCommand(e), manCommand(),
	)
	return root
}

// subcommand refuses an argument of a command that only has others below it, and
// says what may have been meant.
func subcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	err := fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
	meant := called(c.Root(), args[0])
	for _, name := range c.SuggestionsFor(args[0]) {
		if path := c.CommandPath() + " " + name; !slices.Contains(meant, path) {
			meant = append(meant, path)
		}
	}
	if len(meant) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(meant, " or "))
	}
	return usage(err)
}

// called are the commands that a name stands for, wherever they are.
func called(c *cobra.Command, name string) (paths []string) {
	for _, sub := range c.Commands() {
		if sub.Name() == name || slices.Contains(sub.SuggestFor, name) {
			paths = append(paths, sub.CommandPath())
		}
		paths = append(paths, called(sub, name)...)
	}
	return paths
}

// noArgs refuses arguments; exactArgs and maxArgs other numbers of them.
func noArgs(c *cobra.Command, args []string) error { return usage(cobra.NoArgs(c, args)) }

func exactArgs(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error { return usage(cobra.ExactArgs(n)(c, args)) }
}

func usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// report prints an error.
func report(e Env, err error) {
	var use *usageError
	var conf confparse.Errors
	switch {
	case err == nil || err.Error() == "":
	case errors.As(err, &conf):
		fmt.Fprintln(e.Stderr, conf.Error())
	case errors.As(err, &use):
		fmt.Fprintf(e.Stderr, "meta1: %v\nmeta1 --help lists the commands.\n", err)
	default:
		fmt.Fprintf(e.Stderr, "meta1: %v\n", err)
	}
}

// status is the exit status for the error of a command.
func status(err error) int {
	var use *usageError
	var s *statusError
	var known *exit.Error
	var conf confparse.Errors
	switch {
	case err == nil:
		return exit.OK
	case errors.As(err, &use):
		return exit.Usage
	case errors.As(err, &s):
		return s.status
	case errors.As(err, &known), errors.As(err, &conf):
		return exit.Status(err)
	default:
		return 1
	}
}

// configFlag adds the flag -f and its variable.
func configFlag(c *cobra.Command, file *string, value string) {
	c.Flags().StringVarP(file, "file", "f", value, "configuration file")
	_ = c.MarkFlagFilename("file", "conf") // fails only for a flag that does not exist
}

// fileArgument takes the configuration file from an argument, for who leaves -f out.
func fileArgument(c *cobra.Command, args []string, file *string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.Flags().Changed("file"):
		return usage(fmt.Errorf("two configuration files: %q and %q", *file, args[0]))
	}
	*file = args[0]
	return nil
}
