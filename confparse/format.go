package confparse

import (
	"strings"
	"unicode/utf8"
)

// formatWidth is how wide Format lets a line become where it has a choice.
const formatWidth = 78

// Format gives the text of a configuration file in the canonical layout: an entry
// a line, two blanks for each section, lists on one line if they fit. Comments and
// single empty lines stay. name is the file's name for messages; the error is an
// [Errors]. Files that text includes are not looked at.
func Format(name string, text []byte) ([]byte, error) {
	if len(text) > MaxBytes {
		return nil, Errors{{Pos: Pos{File: name}, Severity: SeverityError, Message: errTooLarge.Error()}}
	}
	in := &input{nodes: maxNodes, comments: true}
	body, tail := parse(&source{name: name, path: name, text: string(text)}, in)
	if err := in.err(nil); err != nil {
		return nil, err
	}
	w := &formatter{}
	w.body(body, tail, "")
	return []byte(w.b.String()), nil
}

type formatter struct {
	b     strings.Builder
	begun bool // something stands before in this section: empty lines count
}

func (w *formatter) body(list []*entry, tail []comment, indent string) {
	w.begun = false
	for _, e := range list {
		if e.notes != nil {
			w.comments(e.notes.lead, indent)
		}
		w.gap(e.blank)
		w.entry(e, indent)
		w.begun = true
	}
	w.comments(tail, indent)
}

func (w *formatter) gap(blank bool) {
	if blank && w.begun {
		w.b.WriteByte('\n')
	}
}

// comments writes each on a line of its own.
func (w *formatter) comments(list []comment, indent string) {
	for _, c := range list {
		w.gap(c.blank)
		w.b.WriteString(indent + c.text + "\n")
		w.begun = true
	}
}

// end writes the comments behind an entry, and the end of the line. What cannot
// stand behind a # goes to the next line, as if it were before what follows.
func (w *formatter) end(list []comment, indent string) {
	own := false
	for _, c := range list {
		if own {
			w.b.WriteString("\n" + indent + c.text)
		} else {
			w.b.WriteString("  " + c.text)
		}
		own = own || strings.HasPrefix(c.text, "#")
	}
	w.b.WriteByte('\n')
}

func (w *formatter) entry(e *entry, indent string) {
	n := e.notes
	if n == nil {
		n = &notes{}
	}
	w.b.WriteString(indent + e.name)
	switch e.form {
	case formSection:
		w.section(e, n, indent)
	case formList:
		w.b.WriteString(" = ")
		w.list(e, n, indent)
	case formExpr:
		w.b.WriteString(" == " + e.values[0].text + ";")
	case formInclude:
		w.b.WriteString(" " + quoted(e.values[0].text) + ";")
	default:
		w.b.WriteString(" = ")
		w.value(e.values[0], indent, len(indent)+len(e.name)+4)
		w.b.WriteString(";")
	}
	w.end(n.trail, indent)
}

func (w *formatter) section(e *entry, n *notes, indent string) {
	if e.label != nil {
		w.b.WriteString(" " + e.label.literal())
	}
	w.b.WriteString(" {")
	if len(e.body)+len(n.open)+len(n.tail) == 0 {
		w.b.WriteString(" }")
		return
	}
	w.end(n.open, indent+"  ")
	w.body(e.body, n.tail, indent+"  ")
	w.b.WriteString(indent + "}")
}

// literal is a value as it is written.
func (v *value) literal() string {
	if v.quoted {
		return quoted(v.text)
	}
	return v.text
}

// value writes a value that begins at a column. A long string becomes several, one
// a line.
func (w *formatter) value(v value, indent string, column int) {
	text := v.literal()
	if !v.quoted || column+utf8.RuneCountInString(text) <= formatWidth {
		w.b.WriteString(text)
		return
	}
	for i, part := range pieces(v.text, formatWidth-len(indent)-8) {
		if i > 0 {
			w.b.WriteString("\n" + indent + "    ")
		}
		w.b.WriteString(quoted(part))
	}
}

// pieces cuts s behind blanks, so that each piece has at most n bytes if it can.
func pieces(s string, n int) []string {
	n = max(n, 20)
	var list []string
	for len(s) > n {
		cut := strings.LastIndexByte(s[:n], ' ') + 1
		if cut == 0 {
			cut = strings.IndexByte(s, ' ') + 1
		}
		if cut == 0 || cut == len(s) {
			break
		}
		list, s = append(list, s[:cut]), s[cut:]
	}
	return append(list, s)
}

func (w *formatter) list(e *entry, n *notes, indent string) {
	words, notes := make([]string, len(e.values)), len(n.tail) > 0
	for i := range e.values {
		words[i] = e.values[i].literal()
		notes = notes || e.values[i].notes != nil
	}
	line := "{ " + strings.Join(words, ", ") + " };"
	if len(words) == 0 {
		line = "{ };"
	}
	if !notes && len(indent)+len(e.name)+3+utf8.RuneCountInString(line) <= formatWidth {
		w.b.WriteString(line)
		return
	}
	w.b.WriteString("{\n")
	w.begun = false
	for i, v := range e.values {
		var trail []comment
		if v.notes != nil {
			w.comments(v.notes.lead, indent+"  ")
			trail = v.notes.trail
		}
		w.b.WriteString(indent + "  " + words[i] + ",")
		w.end(trail, indent+"  ")
		w.begun = true
	}
	w.comments(n.tail, indent+"  ")
	w.b.WriteString(indent + "};")
}
