package confparse

import "strings"

// Row is one line of the list of all options (meta1 config options).
type Row struct {
	Section  string   `json:"section"` // "global", "qmgr", "qmgr/DEFEDB"; "service" for services
	Name     string   `json:"name"`
	Kind     Kind     `json:"kind"`
	Type     string   `json:"type"` // of a section: "", "repeatable" or "named, repeatable"
	Words    []string `json:"words,omitempty"`
	Unit     string   `json:"unit"`
	Default  string   `json:"default"`
	Min      string   `json:"min"`
	Max      string   `json:"max"`
	Required bool     `json:"required"`
	Readme   string   `json:"readme"`
	Effect   Effect   `json:"effect"`
	Reload   bool     `json:"reload"`
	Doc      string   `json:"doc"`
}

// Rows gives every row of the tree of tables, each section's own rows before those
// of the sections in it. The paths are those of options.tsv; names of sections are
// left out.
func Rows(root *Table) []Row {
	return tableRows(nil, "", root, 0)
}

func tableRows(rows []Row, path string, t *Table, depth int) []Row {
	if t == nil || depth > maxDepth {
		return rows
	}
	for i := range t.Options {
		rows = append(rows, t.Options[i].row(orElse(path, "global")))
	}
	for i := range t.Options {
		if o := &t.Options[i]; o.kind() == KindSection {
			rows = tableRows(rows, joinPath(path, o.Name), o.sample(), depth+1)
		}
	}
	if t.Any != nil {
		rows = tableRows(rows, joinPath(path, "service"), t.Any("service", ""), depth+1)
	}
	return rows
}

// sample is the table of a section of that row.
func (o *Option) sample() *Table {
	if o.New == nil {
		return o.Sub
	}
	switch {
	case len(o.Words) > 0:
		return o.New(o.Words[0])
	case o.Named:
		return o.New("name")
	}
	return o.New("")
}

func (o *Option) row(section string) Row {
	r := Row{
		Section: section, Name: o.Name, Kind: o.kind(), Type: string(o.Type), Words: o.Words,
		Unit: o.Unit, Default: o.Default, Min: o.Min, Max: o.Max, Required: o.Required,
		Readme: o.Readme, Effect: o.Effect, Reload: o.Reload, Doc: o.Doc,
	}
	if r.Effect == "" {
		r.Effect = Real
	}
	switch {
	case o.kind() == KindFlag:
		r.Type = ""
	case o.New != nil && o.Named:
		r.Type = "named, repeatable"
	case o.New != nil:
		r.Type = "repeatable"
	}
	return r
}

// Text lists rows as lines of words with tabs between, with a line of names first:
// the columns of options.tsv, then limits, reload and documentation.
func Text(rows []Row) string {
	var b strings.Builder
	b.WriteString("section\tname\tkind\ttype\tunit\tdefault\treadme\teffect\tmin\tmax\treload\tdoc\n")
	for _, r := range rows {
		words := strings.Join(append([]string{r.Type}, r.Words...), " ")
		reload := "no"
		if r.Reload {
			reload = "yes"
		}
		b.WriteString(strings.Join([]string{
			r.Section, r.Name, string(r.Kind), words, r.Unit, r.Default, r.Readme,
			string(r.Effect), r.Min, r.Max, reload, clean(r.Doc),
		}, "\t") + "\n")
	}
	return b.String()
}

// Verbose is what meta1 serve -V ... -VVVVVV show of the configuration (README 3.1):
// from level 5 all options with their defaults, from level 6 all flags, too.
func Verbose(root *Table, level int) string {
	var b strings.Builder
	for _, r := range Rows(root) {
		if level < 5 || r.Kind == KindFlag && level < 6 || r.Kind == KindSection {
			continue
		}
		value := r.Default
		if r.Kind == KindFlag {
			value = "flag, " + orElse(value, "off")
		}
		b.WriteString(r.Section + "/" + r.Name + ": " + orElse(value, "(no default)") + "\n")
	}
	return b.String()
}
