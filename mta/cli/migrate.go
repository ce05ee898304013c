package cli

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"meta1/mta/migrate"
	"meta1/mta/migrate/postfix"
	"meta1/mta/settings"
)

func migrateCommand(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use: "migrate", Short: "Translate the configuration of another MTA", Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(migratePostfixCommand(e), migrateParametersCommand(e))
	return c
}

// migrated is the result of migrate postfix --json.
type migrated struct {
	migrate.Report
	Written  string                `json:"written,omitempty"` // the directory
	Complete bool                  `json:"complete"`
	Counts   map[migrate.Group]int `json:"counts"`
}

func migratePostfixCommand(e *Env) *cobra.Command {
	var dir, out, passwd string
	var force, asJSON, all, conf bool
	c := &cobra.Command{
		Use: "postfix", Short: "Make a configuration of that of Postfix", Args: noArgs,
		Long: `postfix reads main.cf, master.cf and the tables that they name, and makes a configuration for
meta1 of them: meta1.conf, whose comments name the lines it comes from, and its maps. It prints a
report in which every parameter that is set is in exactly one group: carried over, carried over with a
difference, not needed, not carried over (with the reason, and what to do), or unknown. Where Postfix
does otherwise without being told, the report says so, too.

Without --out nothing is written: the report tells beforehand. With it the files are written to that
directory, and none over one that exists unless --force is given. Passwords (sasl_passwd) go to a file
with mode 0600, and are never printed. Postfix is not asked, and nothing of it is changed. Tables are
read from their text, which postmap and postalias read, too; those of LDAP and databases are named.

docs/from-postfix.md has what becomes of each parameter. After writing, check the result with
meta1 config check DIR/meta1.conf, and compare decisions with meta1 explain.

The exit status is 0 if everything was carried over, 1 if something was not or is unknown, and another
one if the configuration cannot be read (66), or files cannot be written (73).`,
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, err := postfix.Load(dir)
			if err != nil {
				return &statusError{66, fmt.Errorf("reading Postfix's configuration: %w", err)} // EX_NOINPUT
			}
			result, err := migrate.Postfix(loaded, migrate.Options{Hostname: settings.OwnHostname(c.Context()), Passwd: passwd})
			if err != nil {
				return &statusError{66, err}
			}
			if conf {
				_, err := fmt.Fprint(e.Stdout, result.Files[0].Text)
				return err
			}
			if out != "" {
				if err := migrate.Write(out, result.Files, force); err != nil {
					return &statusError{73, err} // EX_CANTCREAT
				}
				result.Report.Next = append(result.Report.Next, "meta1 config check "+filepath.Join(out, "meta1.conf"))
			}
			return printMigrated(e, result, out, asJSON, all)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "config-dir", "/etc/postfix", "directory of main.cf and master.cf")
	f.StringVarP(&out, "out", "o", "", "directory to write the configuration to")
	f.StringVar(&passwd, "passwd", "/etc/passwd", "file whose login names are Postfix's local users")
	f.BoolVar(&force, "force", false, "replace files that exist")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	f.BoolVar(&all, "all", false, "list what was carried over, and what is not needed, in full, too")
	f.BoolVar(&conf, "conf", false, "print meta1.conf in place of the report")
	_ = c.MarkFlagDirname("config-dir") // fails only for a flag that does not exist
	_ = c.MarkFlagDirname("out")
	c.MarkFlagsMutuallyExclusive("conf", "out")
	c.MarkFlagsMutuallyExclusive("conf", "json")
	return c
}

func printMigrated(e *Env, result *migrate.Result, out string, asJSON, all bool) error {
	r := &result.Report
	status := error(nil)
	if !r.Complete() {
		status = &statusError{1, nil}
	}
	if asJSON {
		m := migrated{Report: *r, Written: out, Complete: r.Complete(), Counts: map[migrate.Group]int{}}
		for _, g := range []migrate.Group{migrate.Carried, migrate.Different, migrate.NotNeeded, migrate.NotCarried, migrate.Unknown} {
			m.Counts[g] = r.Count(g)
		}
		return errors.Join(printJSON(e.Stdout, m), status)
	}
	fmt.Fprint(e.Stdout, r.Text(all))
	return status
}

// parameter is a line of migrate parameters --json.
type parameter struct {
	Name  string        `json:"name"`
	Group migrate.Group `json:"group"` // the best one that it can be in
	To    string        `json:"to,omitempty"`
	Note  string        `json:"note,omitempty"`
}

func migrateParametersCommand(e *Env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "parameters [name ...]", Short: "Show what becomes of parameters of Postfix",
		Long: `parameters prints what becomes of each parameter of Postfix that is named, or of all: the best group
of the report of meta1 migrate postfix that it can be in, the options of meta1 that it becomes, and
what differs or why it has no counterpart. A name that Postfix does not have ends it with status 1.`,
		RunE: func(_ *cobra.Command, names []string) error {
			list, err := parameters(names)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.Stdout, list)
			}
			for _, p := range list {
				text := p.Name + ": " + string(p.Group)
				if p.To != "" {
					text += "\n    -> " + p.To
				}
				if p.Note != "" {
					text += "\n    " + p.Note
				}
				fmt.Fprintln(e.Stdout, text)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// parameters gives the rows of names, or of all that Postfix has, in their order.
func parameters(names []string) (list []parameter, err error) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(postfix.New().Defaults))
	}
	find := migrate.NewTable()
	for _, name := range names {
		r, ok := find.Find(name)
		if !ok {
			return nil, fmt.Errorf("postfix has no parameter %q", name)
		}
		list = append(list, parameter{Name: name, Group: r.Group(), To: r.To, Note: r.Note})
	}
	return list, nil
}
