package migrate

import (
	"regexp"
	"slices"
	"strings"

	"meta1/confparse/syntax"
)

// section is a section of the configuration that is written.
type section struct {
	keyword, name string
	why           string // a comment above it
	options       []*option
	flags         []string
	sections      []*section
}

type option struct{ name, value, why string }

// set sets an option to text that is already in the language of the file. The last call for a name holds.
func (s *section) set(name, value, why string) {
	for _, o := range s.options {
		if o.name == name {
			o.value, o.why = value, why
			return
		}
	}
	s.options = append(s.options, &option{name, value, why})
}

// flag turns a flag on; -name turns it off.
func (s *section) flag(names ...string) {
	for _, n := range names {
		if !slices.Contains(s.flags, n) {
			s.flags = append(s.flags, n)
		}
	}
}

// sub is the section with this keyword and name below s; it is made if it is not there.
func (s *section) sub(keyword, name string) *section {
	for _, t := range s.sections {
		if t.keyword == keyword && t.name == name {
			return t
		}
	}
	return s.add(keyword, name)
}

// add makes another section, for those that may stand several times.
func (s *section) add(keyword, name string) *section {
	t := &section{keyword: keyword, name: name}
	s.sections = append(s.sections, t)
	return t
}

// print writes what is in a section.
func (s *section) print(b *strings.Builder, indent string) {
	for _, o := range s.options {
		equals := " = "
		if o.name == "condition" { // an expression, and no word
			equals = " == "
		}
		b.WriteString(indent + o.name + equals + o.value + ";")
		if o.why != "" {
			b.WriteString("  # " + oneLine(o.why))
		}
		b.WriteByte('\n')
	}
	if len(s.flags) > 0 {
		b.WriteString(indent + "flags = { " + strings.Join(s.flags, ", ") + " };\n")
	}
	for i, t := range s.sections {
		if indent != "" && t.empty() {
			continue
		}
		if indent == "" && (i > 0 || len(s.options) > 0) {
			b.WriteByte('\n')
		}
		if t.why != "" {
			b.WriteString(indent + "# " + oneLine(t.why) + "\n")
		}
		b.WriteString(indent + strings.TrimRight(t.keyword+" "+t.name, " ") + " {\n")
		t.print(b, indent+"  ")
		b.WriteString(indent + "}\n")
	}
}

// empty reports a section with nothing in it.
func (s *section) empty() bool {
	return len(s.options)+len(s.flags) == 0 && !slices.ContainsFunc(s.sections, func(t *section) bool { return !t.empty() })
}

// oneLine makes a comment of text.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if syntax.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

var bare = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./@+-]*$`)

// text writes a value, in double quotes where it needs them.
func text(s string) string {
	if bare.MatchString(s) {
		return s
	}
	return syntax.Quoted(s)
}

// list writes values in braces.
func list(values ...string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = text(v)
	}
	return "{ " + strings.Join(out, ", ") + " }"
}
