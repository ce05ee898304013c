package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meta1/confparse/manual"
	"meta1/mta"
)

func manCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use: "man directory", Short: "Write the manual pages", Args: exactArgs(1),
		Long: `man writes a manual page for each command, and meta1.conf.5, into a directory.`,
		RunE: func(c *cobra.Command, args []string) error {
			pages := map[string]string{"meta1.conf.5": manual.Man((&mta.Config{}).Options())}
			manPages(pages, c.Root(), e.Version)
			for name, text := range pages {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return &statusError{mta.ExCantCreate, err}
				}
			}
			return nil
		},
	}
}

// manPages makes the pages of a command and those below it, by file name.
func manPages(pages map[string]string, c *cobra.Command, version string) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	pages[name+".1"] = manPage(c, name, version)
	for _, sub := range c.Commands() {
		manPages(pages, sub, version)
	}
}

func manPage(c *cobra.Command, name, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"meta1 %s\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), roff(version), roff(name), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	b.WriteString(".SH DESCRIPTION\n")
	for _, paragraph := range strings.Split(long, "\n\n") {
		fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
	}
	if c.HasAvailableLocalFlags() {
		b.WriteString(".SH OPTIONS\n")
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { manFlag(&b, f) })
	}
	manCommands(&b, c)
	return b.String()
}

func manFlag(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden {
		return
	}
	names := "--" + f.Name
	if f.Shorthand != "" {
		names = "-" + f.Shorthand + ", " + names
	}
	value, text := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace(names+" "+value)), roff(text))
}

func manCommands(b *strings.Builder, c *cobra.Command) {
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			names = append(names, fmt.Sprintf(".TP\n.B %s\n%s\n", roff(sub.CommandPath()), roff(sub.Short)))
		}
	}
	if len(names) > 0 {
		b.WriteString(".SH COMMANDS\n" + strings.Join(names, ""))
	}
}

// roff escapes text for troff.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
