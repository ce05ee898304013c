package migrate

import (
	"fmt"
	"strings"
)

// Group says what became of a parameter.
type Group string

// The groups, the best one first. A parameter is in exactly one.
const (
	Carried    Group = "carried over"
	Different  Group = "carried over with a difference"
	NotNeeded  Group = "not needed"
	NotCarried Group = "not carried over"
	Unknown    Group = "unknown"
)

// groups in the order in which they are printed: what needs somebody first.
var groups = []Group{NotCarried, Unknown, Different, Carried, NotNeeded}

// rank orders groups by how much was lost.
func (g Group) rank() int {
	for i, h := range []Group{NotNeeded, Carried, Different, Unknown, NotCarried} {
		if g == h {
			return i
		}
	}
	return 0
}

// Item is one parameter, or one service of master.cf, as a file sets it.
type Item struct {
	Parameter string   `json:"parameter"`         // of a service the entry itself: smtp/inet
	Service   string   `json:"service,omitempty"` // that overrides it by -o
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Value     string   `json:"value,omitempty"` // as the file has it; left out if it may be a secret
	Group     Group    `json:"group"`
	To        string   `json:"to,omitempty"`    // options of meta1, or maps
	Notes     []string `json:"notes,omitempty"` // what differs, or why not and what to do
}

// Report is what became of a configuration.
type Report struct {
	Source string `json:"source"` // the directory of main.cf
	Items  []Item `json:"items"`
	// Defaults are differences to Postfix that no parameter is set for.
	Defaults []string `json:"defaults,omitempty"`
	// Next is what to do before meta1 takes the place of Postfix.
	Next  []string `json:"next,omitempty"`
	Files []string `json:"files,omitempty"` // that were written, or would be
}

// Count is how many items are in a group.
func (r *Report) Count(g Group) int {
	n := 0
	for i := range r.Items {
		if r.Items[i].Group == g {
			n++
		}
	}
	return n
}

// Complete reports whether everything was carried over.
func (r *Report) Complete() bool { return r.Count(NotCarried)+r.Count(Unknown) == 0 }

// Text is the report for people. all lists what was carried over without a difference, too.
func (r *Report) Text(all bool) string {
	var b strings.Builder
	for _, g := range groups {
		n := r.Count(g)
		if n == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s (%d)\n", strings.ToUpper(string(g)), n)
		if (g == Carried || g == NotNeeded) && !all {
			b.WriteString(r.names(g))
			continue
		}
		for i := range r.Items {
			if it := &r.Items[i]; it.Group == g {
				b.WriteString(it.text())
			}
		}
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		b.WriteString(title + "\n")
		for _, l := range lines {
			b.WriteString("  - " + l + "\n")
		}
		b.WriteByte('\n')
	}
	section("WHERE POSTFIX DOES OTHERWISE WITHOUT BEING TOLD", r.Defaults)
	section("NEXT", r.Next)
	section("FILES", r.Files)
	return b.String()
}

func (it *Item) text() string {
	var b strings.Builder
	name := it.Parameter
	if it.Service != "" {
		name = it.Service + " -o " + name
	}
	if it.Value != "" {
		name += " = " + short(it.Value)
	}
	fmt.Fprintf(&b, "  %s:%d  %s\n", it.File, it.Line, name)
	if it.To != "" {
		b.WriteString("      -> " + it.To + "\n")
	}
	for _, n := range it.Notes {
		b.WriteString("      " + n + "\n")
	}
	b.WriteByte('\n')
	return b.String()
}

// names lists a group in a few lines.
func (r *Report) names(g Group) string {
	var b strings.Builder
	line := " "
	for i := range r.Items {
		it := &r.Items[i]
		if it.Group != g {
			continue
		}
		name := it.Parameter
		if it.Service != "" {
			name = it.Service + ":" + name
		}
		if len(line)+len(name) > 100 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + name
	}
	b.WriteString(line + "\n\n")
	return b.String()
}

// short is a value that fits into a line, without control characters.
func short(s string) string {
	s = strings.Join(strings.Fields(oneLine(s)), " ")
	if r := []rune(s); len(r) > 100 {
		return string(r[:97]) + "..."
	}
	return s
}
