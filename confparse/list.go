package confparse

import (
	"cmp"
	"strings"

	"meta1/confparse/syntax"
)

// Row is one line of the list of all options (meta1 config options).
type Row struct {
	Section string   `json:"section"` // "global", "qmgr", "qmgr/DEFEDB"; "service" for services
	Name    string   `json:"name"`
	Kind    Kind     `json:"kind"`
	Type    string   `json:"type"` // of a section: "", "repeatable" or "named, repeatable"
	Words   []string `json:"words,omitempty"`
	Unit    string   `json:"unit"`
	// Default is the value without quotes, or what it is in words; of a flag on or off.
	Default  string `json:"default"`
	Min      string `json:"min"`
	Max      string `json:"max"`
	Required bool   `json:"required"`
	Readme   string `json:"readme"`
	Effect   Effect `json:"effect"`
	// Reload says when a change takes effect, Why why that takes a restart.
	Reload Reload `json:"reload"`
	Why    string `json:"why,omitempty"`
	Doc    string `json:"doc"`
}

// Rows gives every row of the tree of tables, each section's own rows before those
// of the sections in it. The paths are those of options.tsv; names of sections are
// left out.
func Rows(root *Table) []Row {
	return tableRows(nil, "", root, false, 0)
}

// tableRows lists one table; notYet is said of all its rows if their section is.
func tableRows(rows []Row, path string, t *Table, notYet bool, depth int) []Row {
	if t == nil || depth > syntax.MaxDepth {
		return rows
	}
	for i := range t.Options {
		r := t.Options[i].row(cmp.Or(path, "global"))
		if notYet && r.Effect == Real {
			r.Effect, r.Reload, r.Why = NotYet, NoEffect, ""
		}
		rows = append(rows, r)
	}
	for i := range t.Options {
		if o := &t.Options[i]; o.kind() == KindSection {
			rows = tableRows(rows, joinPath(path, o.Name), o.Sample(), notYet || o.Effect == NotYet, depth+1)
		}
	}
	if t.Any != nil {
		rows = tableRows(rows, joinPath(path, "service"), t.Any("service", ""), notYet, depth+1)
	}
	return rows
}

// Sample is the table of a section of that row, with a throw-away name; nil for an
// option or flag.
func (o *Option) Sample() *Table {
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
		Unit: o.Unit, Default: o.shownDefault(), Min: o.Min, Max: o.Max, Required: o.Required,
		Readme: o.Readme, Effect: o.Effect, Doc: o.Doc,
	}
	if r.Effect == "" {
		r.Effect = Real
	}
	r.Reload, r.Why = o.class(strings.HasPrefix(section+"/", "service/"))
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

// shownDefault is the default as lists and manuals show it.
func (o *Option) shownDefault() string {
	if o.DefaultWords != "" {
		return o.DefaultWords
	}
	v, err := o.defaultValue("/")
	switch v := v.(type) {
	case bool:
		if o.kind() == KindFlag {
			return onOff(err == nil && v)
		}
	case string:
		if o.Type == String && v != "" && !strings.ContainsFunc(v, syntax.IsControl) {
			return v
		}
	}
	if o.kind() == KindFlag {
		return onOff(false)
	}
	return o.Default
}
