package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meta1/confparse/manual"
	"meta1/mta/exit"
	"meta1/mta/settings"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man directory", Short: "Write the manual pages", Args: exactArgs(1),
		Long: `man writes a manual page for each command, and meta1.conf.5, into a directory.`,
		RunE: func(c *cobra.Command, args []string) error {
			for name, text := range pages(c.Root()) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return &statusError{exit.CantCreate, err}
				}
			}
			return nil
		},
	}
}

// pages are all manual pages by file name. They do not tell the version: they are kept
// with the source, and a test compares them.
func pages(root *cobra.Command) map[string]string {
	all := map[string]string{"meta1.conf.5": manual.Man((&settings.Config{}).Options())}
	manPages(all, root)
	return all
}

// unlisted says that a command has no page: those that cobra adds when one is run.
func unlisted(c *cobra.Command) bool {
	return c.Hidden || c.Name() == "help" || c.Name() == "completion"
}

// manPages makes the pages of a command and those below it, by file name.
func manPages(pages map[string]string, c *cobra.Command) {
	if unlisted(c) {
		return
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	pages[name+".1"] = manPage(c, name)
	for _, sub := range c.Commands() {
		manPages(pages, sub)
	}
}

func manPage(c *cobra.Command, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" meta1\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), roff(name), roff(c.Short))
	var options strings.Builder
	c.LocalFlags().VisitAll(func(f *pflag.Flag) { manFlag(&options, f) })
	use := c.UseLine()
	if options.Len() == 0 {
		use = strings.TrimSuffix(use, " [flags]")
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(use))
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	b.WriteString(".SH DESCRIPTION\n")
	for _, paragraph := range strings.Split(long, "\n\n") {
		fmt.Fprintf(&b, ".PP\n%s\n", roff(paragraph))
	}
	if options.Len() > 0 {
		b.WriteString(".SH OPTIONS\n" + options.String())
	}
	manCommands(&b, c)
	b.WriteString(".SH SEE ALSO\n.BR meta1 (1),\n.BR meta1.conf (5)\n")
	return b.String()
}

func manFlag(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden || f.Name == "help" {
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
		if !unlisted(sub) {
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
