package syntax

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
		return nil, Errors{{Pos: Pos{File: name}, Severity: SeverityError, Message: ErrTooLarge.Error()}}
	}
	in := &Input{Nodes: MaxNodes, comments: true}
	body, tail := Parse(&Source{Name: name, Path: name, Text: string(text)}, in)
	if err := in.Err(nil); err != nil {
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

func (w *formatter) body(list []*Entry, tail []Comment, indent string) {
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
func (w *formatter) comments(list []Comment, indent string) {
	for _, c := range list {
		w.gap(c.blank)
		w.b.WriteString(indent + c.text + "\n")
		w.begun = true
	}
}

// end writes the comments behind an entry, and the end of the line. What cannot
// stand behind a # goes to the next line, as if it were before what follows.
func (w *formatter) end(list []Comment, indent string) {
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

func (w *formatter) entry(e *Entry, indent string) {
	n := e.notes
	if n == nil {
		n = &notes{}
	}
	w.b.WriteString(indent + e.Name)
	switch e.Form {
	case FormSection:
		w.section(e, n, indent)
	case FormList:
		w.b.WriteString(" = ")
		w.list(e, n, indent)
	case FormExpr:
		w.b.WriteString(" == " + e.Values[0].Text + ";")
	case FormInclude:
		w.b.WriteString(" " + Quoted(e.Values[0].Text) + ";")
	default:
		w.b.WriteString(" = ")
		w.value(e.Values[0], indent, len(indent)+len(e.Name)+4)
		w.b.WriteString(";")
	}
	w.end(n.trail, indent)
}

func (w *formatter) section(e *Entry, n *notes, indent string) {
	if e.Label != nil {
		w.b.WriteString(" " + e.Label.literal())
	}
	w.b.WriteString(" {")
	if len(e.Body)+len(n.open)+len(n.tail) == 0 {
		w.b.WriteString(" }")
		return
	}
	w.end(n.open, indent+"  ")
	w.body(e.Body, n.tail, indent+"  ")
	w.b.WriteString(indent + "}")
}

// literal is a value as it is written.
func (v *Value) literal() string {
	if v.Quoted {
		return Quoted(v.Text)
	}
	return v.Text
}

// value writes a value that begins at a column. A long string becomes several, one
// a line.
func (w *formatter) value(v Value, indent string, column int) {
	text := v.literal()
	if !v.Quoted || column+utf8.RuneCountInString(text) <= formatWidth {
		w.b.WriteString(text)
		return
	}
	for i, part := range pieces(v.Text, formatWidth-len(indent)-8) {
		if i > 0 {
			w.b.WriteString("\n" + indent + "    ")
		}
		w.b.WriteString(Quoted(part))
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

func (w *formatter) list(e *Entry, n *notes, indent string) {
	words, notes := make([]string, len(e.Values)), len(n.tail) > 0
	for i := range e.Values {
		words[i] = e.Values[i].literal()
		notes = notes || e.Values[i].notes != nil
	}
	line := "{ " + strings.Join(words, ", ") + " };"
	if len(words) == 0 {
		line = "{ };"
	}
	if !notes && len(indent)+len(e.Name)+3+utf8.RuneCountInString(line) <= formatWidth {
		w.b.WriteString(line)
		return
	}
	w.b.WriteString("{\n")
	w.begun = false
	for i, v := range e.Values {
		var trail []Comment
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
