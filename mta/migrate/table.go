package migrate

import (
	"path"
	"slices"
	"strings"

	"meta1/mta/migrate/postfix"
)

// Fate is what becomes of a parameter at best.
type Fate uint8

// The fates.
const (
	// Translated: meta1 has an option or a map for it.
	Translated Fate = iota
	// Needless: nothing has to be carried over, since meta1 has no such part, or does it in any case.
	Needless
	// Missing: meta1 cannot do that. Note says what to do instead.
	Missing
)

// Row says what becomes of a parameter of Postfix.
type Row struct {
	Name string // perhaps with * for any characters
	Fate Fate
	// To is what it becomes; Note is what differs, or the reason and what to do.
	To, Note string
	// Off are values with which Postfix does what meta1 does in any case.
	Off []string
}

// Group is the group that its documentation names.
func (r *Row) Group() Group {
	switch {
	case r.Fate == Missing:
		return NotCarried
	case r.Fate == Needless:
		return NotNeeded
	case r.Note != "":
		return Different
	}
	return Carried
}

// Rows is the table of all parameters, in the order of the documentation.
func Rows() []Row {
	return slices.Concat(basicRows(), localRows(), routeRows(), serverRows(), restrictionRows(), tlsRows(), clientRows(), queueRows(), filterRows(), processRows())
}

func to(name, option string, note ...string) Row {
	return Row{Name: name, Fate: Translated, To: option, Note: strings.Join(note, " ")}
}

// needless is a row of a parameter, or of several with blanks between.
func needless(name, note string) Row { return Row{Name: name, Fate: Needless, Note: note} }

func missing(name, note string, off ...string) Row {
	return Row{Name: name, Fate: Missing, Note: note, Off: off}
}

// Table finds the row of a parameter. It never changes.
type Table struct {
	exact    map[string]*Row
	patterns []*Row
}

// NewTable is the table of Rows.
func NewTable() *Table {
	t := &Table{exact: map[string]*Row{}}
	rows := Rows()
	for i := range rows {
		r := &rows[i]
		for _, name := range strings.Fields(r.Name) {
			if strings.Contains(name, "*") {
				one := *r
				one.Name = name
				t.patterns = append(t.patterns, &one)
				continue
			}
			t.exact[name] = r
		}
	}
	return t
}

// row gives the row of a parameter: that of its name, else that of the longest pattern.
func (t *Table) row(name string) *Row {
	if r := t.exact[name]; r != nil {
		return r
	}
	var best *Row
	for _, r := range t.patterns {
		if ok, _ := path.Match(r.Name, name); ok && (best == nil || len(r.Name) > len(best.Name)) {
			best = r
		}
	}
	return best
}

// Find gives the row of a parameter; ok is false if the table does not know it.
func (t *Table) Find(name string) (r Row, ok bool) {
	if found := t.row(name); found != nil {
		return *found, true
	}
	return Row{}, false
}

// isOff reports whether a value asks for nothing that meta1 does not do in any case.
func (r *Row) isOff(value string) bool {
	return r.Fate == Missing && (value == "" || slices.ContainsFunc(r.Off, func(off string) bool { return strings.EqualFold(off, value) }))
}

// unsupported gives each setting that nothing was noted of the group of its row.
func (m *migrator) unsupported() {
	m.each(func(s *postfix.Service, set *postfix.Setting) {
		if m.marks[placeOf(s, set)] != nil {
			return
		}
		value, _ := m.c.Expand(s, set.Value)
		value = strings.Join(strings.Fields(value), " ")
		k := &mark{group: NotCarried}
		m.marks[placeOf(s, set)] = k
		r := m.rows.row(set.Name)
		switch {
		case m.overridden(s, set):
			k.group, k.notes = NotNeeded, []string{"A later line sets it again."}
		case r == nil && m.used(set.Name):
			k.group, k.notes = NotNeeded, []string{"Other values refer to it, in which it was replaced by what it says."}
		case r == nil:
			k.group, k.notes = Unknown, []string{"Postfix 3.7 has no such parameter: see whether it is misspelt, or one of a later version."}
		case r.Fate == Needless:
			k.group, k.notes = NotNeeded, []string{r.Note}
		case r.Fate == Missing && r.isOff(value):
			k.group, k.notes = Carried, []string{"meta1 does so in any case."}
		case r.Fate == Missing:
			k.notes = []string{r.Note}
		case value == "":
			k.group, k.notes = Carried, []string{"It is empty, so there is nothing to carry over."}
		default:
			k.notes = []string{"It has an effect only together with others that are not set, or that were not carried over. It would become " + r.To + "."}
		}
	})
}

// each calls f for every setting of both files.
func (m *migrator) each(f func(*postfix.Service, *postfix.Setting)) {
	for i := range m.c.Main {
		f(nil, &m.c.Main[i])
	}
	for i := range m.c.Services {
		s := &m.c.Services[i]
		for j := range s.Overrides {
			f(s, &s.Overrides[j])
		}
	}
}

// overridden reports whether a later line of the same file, or a later -o, sets the parameter again.
func (m *migrator) overridden(s *postfix.Service, set *postfix.Setting) bool {
	all := m.c.Main
	if s != nil {
		all = s.Overrides
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name == set.Name {
			return &all[i] != set
		}
	}
	return false
}

// used reports whether some value refers to a parameter.
func (m *migrator) used(name string) bool {
	found := false
	m.each(func(_ *postfix.Service, set *postfix.Setting) {
		for rest := set.Value; !found; {
			i := strings.Index(rest, name)
			if i < 0 {
				return
			}
			before, after := strings.TrimRight(rest[:i], " {("), rest[i+len(name):]
			rest = after
			if strings.HasSuffix(before, "$") && (after == "" || !isNameByte(after[0])) {
				found = true
			}
		}
	})
	return found
}

func isNameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// result puts the report and the files together.
func (m *migrator) result() *Result {
	r := &Result{}
	r.Report.Source = m.c.Dir
	m.each(func(s *postfix.Service, set *postfix.Setting) {
		k := placeOf(s, set)
		mark := m.marks[k]
		it := Item{Parameter: set.Name, Service: k.over, File: k.file, Line: set.Line, Value: set.Value, Group: mark.group, To: strings.Join(mark.to, ", "), Notes: mark.notes}
		if hidden(set) {
			it.Value = ""
		}
		r.Report.Items = append(r.Report.Items, it)
	})
	r.Report.Items = append(r.Report.Items, m.services()...)
	r.Report.Defaults, r.Report.Next = m.defs, m.next
	r.Files = m.files()
	for _, f := range r.Files {
		r.Report.Files = append(r.Report.Files, f.Name)
	}
	return r
}

// hidden reports whether a value may hold a secret: that of a table inside of a value.
func hidden(set *postfix.Setting) bool {
	return strings.Contains(set.Name, "sasl_password") || strings.Contains(set.Name, "sasl_passwd")
}
