package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/confparse/manual"
	"meta1/mta"
	"meta1/mta/exit"
	"meta1/mta/settings"
)

func configCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Check, show and explain configurations", Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(checkCommand(e), showCommand(e), optionsCommand(e), fmtCommand(e), exampleCommand(e), manualCommand(e))
	return c
}

// checked is the result of config check --json.
type checked struct {
	File     string                 `json:"file"`
	OK       bool                   `json:"ok"`
	Errors   []confparse.Diagnostic `json:"errors"`
	Warnings []confparse.Diagnostic `json:"warnings"`
	NoEffect []string               `json:"no_effect"`
	NotYet   []string               `json:"not_yet_in_effect"`
}

func checkCommand(e *Env) *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use: "check [file]", Short: "Check a configuration", Args: maxArgs(1),
		Long: `check reads a configuration and prints everything that is wrong with it, with file, line
and column. It also looks at the files that the configuration names: whether the account
that will serve can read them, whether keys fit certificates, whether maps can be used,
whether the directories of the queue are safe, whether the programs of services can be
executed, whether no address is used twice. It asks DNS for the names of public source
addresses (3 s at most). It changes nothing. Checked by root, it is the account of the option
user that must be able to do all this.

The exit status is 0 if nothing is wrong, else 78. Warnings go to standard error as well:
options that have no effect, for example.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &file); err != nil {
				return err
			}
			result, err := mta.CheckAll(cmd.Context(), file)
			if asJSON {
				return printChecked(e.Stdout, file, result, err)
			}
			for _, w := range result.Warnings {
				fmt.Fprintln(e.Stderr, w.String())
			}
			if err == nil {
				fmt.Fprintf(e.Stdout, "%s: ok\n", plain(file))
			}
			return err
		},
	}
	configFlag(c, &file, orEnv("META1_CONF", settings.DefaultFile))
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printChecked(out io.Writer, file string, result *confparse.Result, err error) error {
	r := checked{File: file, OK: err == nil, Errors: []confparse.Diagnostic{}, Warnings: []confparse.Diagnostic{}, NoEffect: []string{}, NotYet: []string{}}
	var all confparse.Errors
	if errors.As(err, &all) {
		r.Errors = all
	}
	r.Warnings = append(r.Warnings, result.Warnings...)
	r.NoEffect = append(r.NoEffect, result.NoEffect...)
	r.NotYet = append(r.NotYet, result.NotYet...)
	if err := printJSON(out, r); err != nil {
		return err
	}
	if err != nil {
		return &statusError{exit.Config, nil}
	}
	return nil
}

func showCommand(e *Env) *cobra.Command {
	var file string
	var defaults, secrets, asJSON bool
	c := &cobra.Command{
		Use: "show [file]", Short: "Show the effective configuration", Args: maxArgs(1),
		Long: `show prints the effective configuration so that it can be read again. Behind each value
stands where it was set. With --defaults what no file sets is shown, too. A password or key
is shown as *** unless --secrets is given.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fileArgument(cmd, args, &file); err != nil {
				return err
			}
			_, result, err := settings.Load(file, confparse.LoadOptions{})
			if err != nil {
				return err
			}
			if !secrets {
				result.HideSecrets()
			}
			if asJSON {
				return printJSON(e.Stdout, result.Values(defaults))
			}
			_, err = io.WriteString(e.Stdout, result.Show(defaults))
			return err
		},
	}
	configFlag(c, &file, orEnv("META1_CONF", settings.DefaultFile))
	c.Flags().BoolVar(&defaults, "defaults", false, "show defaults, too")
	c.Flags().BoolVar(&secrets, "secrets", false, "show passwords and keys, too")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func optionsCommand(e *Env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "options", Short: "List all options", Args: noArgs,
		Long: `options lists every option, section and flag with its type, unit, default, limits, section of
MeTA1's README, effect and documentation: as a table with tabs, or as JSON.`,
		RunE: func(*cobra.Command, []string) error {
			rows := confparse.Rows((&settings.Config{}).Options())
			if asJSON {
				return printJSON(e.Stdout, rows)
			}
			_, err := io.WriteString(e.Stdout, manual.Text(rows))
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func fmtCommand(e *Env) *cobra.Command {
	var write, list bool
	c := &cobra.Command{
		Use: "fmt [file ...]", Short: "Lay a configuration out in the usual way",
		Long: `fmt prints configuration files in the canonical layout; comments stay. Without a file it
reads standard input. With -w it rewrites the files in place, with -l it only lists those
whose layout is another.`,
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				return formatStdin(e)
			}
			for _, name := range files {
				if err := formatFile(e.Stdout, name, write, list); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&write, "write", "w", false, "rewrite the files")
	c.Flags().BoolVarP(&list, "list", "l", false, "list the files whose layout is another")
	return c
}

func formatStdin(e *Env) error {
	text, err := io.ReadAll(io.LimitReader(e.Stdin, confparse.MaxBytes+1))
	if err != nil {
		return &statusError{exit.IOErr, fmt.Errorf("reading standard input: %w", err)}
	}
	if text, err = confparse.Format("standard input", text); err != nil {
		return err
	}
	_, err = e.Stdout.Write(text)
	return err
}

func formatFile(out io.Writer, name string, write, list bool) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return &statusError{exit.IOErr, err}
	}
	text, err := confparse.Format(name, old)
	switch {
	case err != nil:
		return err
	case !write && !list:
		_, err = out.Write(text)
		return err
	case string(text) == string(old):
		return nil
	case list:
		fmt.Fprintln(out, plain(name))
	}
	if write {
		return replaceFile(name, text)
	}
	return nil
}

// replaceFile puts a new file in the place of an old one, with its mode, so that a
// reader sees one or the other.
func replaceFile(name string, text []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return &statusError{exit.IOErr, err}
	}
	temp := name + ".new"
	if err := os.WriteFile(temp, text, info.Mode().Perm()); err != nil {
		return &statusError{exit.CantCreate, err}
	}
	if err := os.Rename(temp, name); err != nil {
		_ = os.Remove(temp)
		return &statusError{exit.CantCreate, err}
	}
	return nil
}

func exampleCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "example", Short: "Print a configuration that explains all options", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(e.Stdout, manual.Example((&settings.Config{}).Options()))
			return err
		},
	}
}

func manualCommand(e *Env) *cobra.Command {
	var man, ofMaps bool
	c := &cobra.Command{
		Use: "manual", Short: "Print the manual of the configuration file", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if ofMaps {
				text, err := mapsManual()
				if err == nil {
					_, err = io.WriteString(e.Stdout, text)
				}
				return err
			}
			page := manual.Markdown
			if man {
				page = manual.Man
			}
			_, err := io.WriteString(e.Stdout, page((&settings.Config{}).Options()))
			return err
		},
	}
	c.Flags().BoolVar(&man, "man", false, "print a man page")
	c.Flags().BoolVar(&ofMaps, "maps", false, "print the page about the maps, in Markdown")
	c.MarkFlagsMutuallyExclusive("man", "maps")
	return c
}
