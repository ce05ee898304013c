// Package manual makes what people read of the option tables: the manual page, an
// example file that explains all options, lists of options. Everything is made from
// the rows of a tree of [confparse.Table]s.
package manual

import (
	"cmp"
	"slices"
	"strings"

	"meta1/confparse"
)

// page is the manual of a tree of tables, before it is Markdown or roff.
type page struct {
	chapters []chapter
}

type chapter struct {
	title  string
	doc    string
	source string // the sections of MeTA1's README that its options come from
	items  []item
}

// item is one option of a chapter.
type item struct {
	term  string
	facts string
	doc   string
}

const manualIntro = `A configuration consists of options and sections. An option has a name, an equals sign and a value with a semicolon behind it, or a list of values in braces. A section has a keyword, perhaps a name, and its options in braces. Keywords and names of options are not case sensitive; layout does not matter.

A value with special characters is written in double quotes, with the escapes of C; adjacent strings are joined. Numbers are decimal, hexadecimal with 0x or octal with 0. Boolean values are on, true, 1, off, false, 0. Times may have the units w, d, h, m, s, ms, sizes the units B, KB, MB, GB, and sequences of them: 1h 5m 12s. A list may be empty and may end with a comma.

Flags of a section are set by the option flags; one of not_, dont_, no_, -, ! and ~ before a flag clears it.

Text from # to the end of the line is a comment, as is text between /* and */. include "file"; reads another file in its place; the name is relative to the file that includes it, and may be a pattern such as "conf.d/*.conf".

Names of files are relative to the folder of the configuration file, directories and sockets to the main queue directory, unless an option says otherwise.`

const manualExample = `hostname = "mx.example.org";
smtps {
  flags = { 8bitmime, access };
  IO_timeout = 5m 30s;
  listen_socket { type = inet; port = 25; }
}`

// newPage sorts the rows into chapters: the global section, what all module
// sections have in common, then section by section.
func newPage(root *confparse.Table) page {
	rows := confparse.Rows(root)
	shared := commonRows(rows)
	docs := map[string]string{}
	var order []string
	items := map[string][]item{}
	sources := map[string][]string{}
	for _, r := range rows {
		if r.Kind == confparse.KindSection {
			docs[sectionPath(r)] = r.Doc
		}
		path := r.Section
		if key := commonKey(r); shared[key] {
			if path = "*" + rest(r.Section); r.Section != path && shared["\x00"+key] {
				continue
			}
			shared["\x00"+key] = true
		}
		if items[path] == nil {
			order = append(order, path)
		}
		items[path] = append(items[path], newItem(r, path))
		if r.Readme != "own" && !slices.Contains(sources[path], r.Readme) {
			sources[path] = append(sources[path], r.Readme)
		}
	}
	p := page{}
	for _, path := range order {
		c := chapter{title: chapterTitle(path), doc: docs[path], source: source(sources[path]), items: items[path]}
		if strings.HasPrefix(path, "*/") {
			c.doc = ""
		}
		p.chapters = append(p.chapters, c)
	}
	return p
}

// source says where more is to be read about the options of a chapter.
func source(sections []string) string {
	if len(sections) == 0 {
		return ""
	}
	return "From MeTA1 README " + strings.Join(sections, ", ") + "."
}

func sectionPath(r confparse.Row) string {
	if r.Section == "global" {
		return r.Name
	}
	return r.Section + "/" + r.Name
}

// rest is a path without its outermost section.
func rest(path string) string {
	_, after, found := strings.Cut(path, "/")
	if !found {
		return ""
	}
	return "/" + after
}

func commonKey(r confparse.Row) string {
	return strings.Join([]string{rest(r.Section), r.Name, string(r.Kind), r.Type, r.Default, r.Doc}, "\x00")
}

// commonRows finds the rows that three outermost sections have alike.
func commonRows(rows []confparse.Row) map[string]bool {
	count, shared := map[string]int{}, map[string]bool{}
	for _, r := range rows {
		if r.Section != "global" {
			if count[commonKey(r)]++; count[commonKey(r)] == 3 {
				shared[commonKey(r)] = true
			}
		}
	}
	return shared
}

func chapterTitle(path string) string {
	switch {
	case path == "global":
		return "Global options"
	case path == "service":
		return "Service sections"
	case path == "*":
		return "Options of every module and service section"
	case strings.HasPrefix(path, "*/"):
		return "Section " + path[2:] + " of every module and service section"
	}
	return "Section " + path
}

// newItem says of a row, in the chapter of path, what there is to know.
func newItem(r confparse.Row, path string) item {
	it := item{term: r.Name, doc: r.Doc}
	facts := []string{cmp.Or(r.Type, string(r.Kind))}
	if r.Kind == confparse.KindSection {
		facts[0] = strings.TrimSuffix("section, "+r.Type, ", ")
	}
	if len(r.Words) > 0 {
		facts[0] += " of " + strings.Join(r.Words, ", ")
	}
	add := func(cond bool, fact string) {
		if cond {
			facts = append(facts, fact)
		}
	}
	add(r.Unit != "", "unit "+r.Unit)
	add(r.Default != "", "default "+r.Default)
	add(r.Min != "", "at least "+r.Min)
	add(r.Max != "", "at most "+r.Max)
	add(r.Required, "required")
	switch {
	case r.Effect == confparse.NotYet:
		facts = append(facts, "not yet in effect")
	case r.Effect == confparse.None:
		facts = append(facts, "no effect")
	case r.Effect == confparse.Host && path[0] == '*':
		facts = append(facts, "effect in service sections only")
	case r.Effect == confparse.Host && path != "service":
		facts = append(facts, "no effect in one process")
	}
	switch r.Reload {
	case confparse.AtOnce:
		facts = append(facts, "reload: at once")
	case confparse.NewSessions:
		facts = append(facts, "reload: new sessions")
	case confparse.Restart:
		facts = append(facts, strings.TrimSuffix("reload: restart, since "+r.Why, ", since "))
	}
	it.facts = strings.Join(facts, "; ")
	return it
}

// Markdown makes the manual of a configuration file as a Markdown page.
func Markdown(root *confparse.Table) string {
	var b strings.Builder
	b.WriteString("# meta1.conf(5)\n\nThe configuration file of meta1. This page is made from the option tables. " +
		"Maps, such as the mailertable and the access map, have a page of their own: docs/maps.md.\n\n## Syntax\n\n" + mdEscape(manualIntro) + "\n\n```\n" + manualExample + "\n```\n")
	for _, c := range newPage(root).chapters {
		b.WriteString("\n## " + mdEscape(c.title) + "\n\n")
		if c.doc != "" {
			b.WriteString(mdEscape(c.doc) + "\n\n")
		}
		if c.source != "" {
			b.WriteString(mdEscape(c.source) + "\n\n")
		}
		for _, it := range c.items {
			b.WriteString("- **`" + it.term + "`** (" + mdEscape(it.facts) + ")  \n  " + mdEscape(it.doc) + "\n")
		}
	}
	return b.String()
}

func mdEscape(s string) string {
	return strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "_", "\\_", "<", "&lt;", "[", "\\[").Replace(s)
}

// Man makes the same page in roff, with the macros of man(7).
func Man(root *confparse.Table) string {
	var b strings.Builder
	b.WriteString(".TH META1.CONF 5 \"\" meta1\n.SH NAME\nmeta1.conf \\- configuration file of meta1\n.SH DESCRIPTION\n")
	b.WriteString(strings.ReplaceAll(roffEscape(manualIntro), "\n\n", "\n.PP\n"))
	b.WriteString("\n.PP\n.nf\n" + roffEscape(manualExample) + "\n.fi\n")
	for _, c := range newPage(root).chapters {
		b.WriteString(".SH " + roffEscape(strings.ToUpper(c.title[:1])+c.title[1:]) + "\n")
		if c.doc != "" {
			b.WriteString(roffEscape(c.doc) + "\n")
		}
		if c.source != "" {
			b.WriteString(roffEscape(c.source) + "\n")
		}
		for _, it := range c.items {
			b.WriteString(".TP\n\\fB" + roffEscape(it.term) + "\\fR (" + roffEscape(it.facts) + ")\n" +
				roffEscape(it.doc) + "\n")
		}
	}
	return b.String()
}

// roffEscape makes text safe for roff, also at the start of each line.
func roffEscape(s string) string {
	s = strings.NewReplacer("\\", "\\e", "-", "\\-", "\"", "\\(dq").Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = "\\&" + l
		}
	}
	return strings.Join(lines, "\n")
}
