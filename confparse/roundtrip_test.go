package confparse

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meta1/confparse/syntax"
)

// same compares two configurations, but for the places of the values.
func same(a, b *Result) error {
	x, y := a.Values(true), b.Values(true)
	for i := range x {
		x[i].Origin = ""
	}
	for i := range y {
		y[i].Origin = ""
	}
	if len(x) != len(y) {
		return fmt.Errorf("%d and %d values", len(x), len(y))
	}
	for i := range x {
		if !reflect.DeepEqual(x[i], y[i]) {
			return fmt.Errorf("%+v and %+v", x[i], y[i])
		}
	}
	return sameSections(a.Root, b.Root)
}

// sameSections compares which sections stand in the files.
func sameSections(a, b *Section) error {
	if a.Path() != b.Path() || a.Present != b.Present || len(a.Subs) != len(b.Subs) {
		return fmt.Errorf("sections %q and %q differ", a.Path(), b.Path())
	}
	for i := range a.Subs {
		if err := sameSections(a.Subs[i], b.Subs[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkRoundTrip shows and formats a configuration that was loaded from text, and
// loads what comes out.
func checkRoundTrip(table func() *Table, text string, res *Result) error {
	for _, defaults := range []bool{false, true} {
		shown := res.Show(defaults)
		again, err := load(table(), shown)
		if err != nil {
			return fmt.Errorf("reading what was shown: %w\nshown:\n%s", err, shown)
		}
		if err := same(res, again); err != nil {
			return fmt.Errorf("shown and read again: %w\nshown:\n%s", err, shown)
		}
	}
	formatted, err := Format("f", []byte(text))
	if err != nil {
		return fmt.Errorf("formatting: %w", err)
	}
	again, err := load(table(), string(formatted))
	if err != nil {
		return fmt.Errorf("reading what was formatted: %w\nformatted:\n%s", err, formatted)
	}
	if err := same(res, again); err != nil {
		return fmt.Errorf("formatted and read again: %w\nformatted:\n%s", err, formatted)
	}
	return checkFormatted(formatted)
}

// checkFormatted says whether formatting once more changes anything.
func checkFormatted(formatted []byte) error {
	twice, err := Format("f", formatted)
	if err != nil {
		return fmt.Errorf("formatting twice: %w\nof:\n%s", err, formatted)
	}
	if string(twice) != string(formatted) {
		return fmt.Errorf("formatting twice differs:\n%s\nand:\n%s", formatted, twice)
	}
	return nil
}

func TestReadme(t *testing.T) {
	tables := []*Table{}
	for range 50 {
		tables = append(tables, specTable(t))
	}
	inTestdata(t, "readme", func(t *testing.T, root *Table, file string) {
		res, err := Load(LoadOptions{}, file, root)
		if err != nil {
			t.Fatal(err)
		}
		var warnings strings.Builder
		for _, w := range res.Warnings {
			warnings.WriteString("# " + w.Pos.String() + ": " + w.Message + "\n")
		}
		shown := strings.ReplaceAll(res.Show(false)+warnings.String(), filepath.Dir(res.File), "CWD")
		golden(t, strings.TrimSuffix(file, ".conf")+".show", shown)
		table := tables[0]
		tables = tables[1:]
		again, err := Load(LoadOptions{FS: Files{res.File: res.Show(true)}}, file, table)
		if err != nil {
			t.Fatal(err)
		}
		if err := same(res, again); err != nil {
			t.Error(err)
		}
	})
}

// drawer makes random configurations from the tables.
type drawer struct {
	*rapid.T
	b strings.Builder
}

// space draws what may stand between two tokens.
func (d *drawer) space() string {
	return rapid.SampledFrom([]string{
		" ", "\n", "\t", " # comment {\n", " /* a } b */ ", "\n\n\n", "\r\n",
		"\n# own line\n", "\n\n  /* two\n lines */\n",
	}).Draw(d.T, "space")
}

func (d *drawer) put(tokens ...string) {
	for _, s := range tokens {
		d.b.WriteString(s)
		if rapid.IntRange(0, 3).Draw(d.T, "dense") == 0 || strings.HasSuffix(s, "\x00") {
			d.b.WriteString(d.space())
		} else {
			d.b.WriteString(" ")
		}
	}
}

func (d *drawer) name(s string) string {
	switch rapid.IntRange(0, 2).Draw(d.T, "case") {
	case 0:
		return strings.ToUpper(s)
	case 1:
		return strings.ToLower(s)
	}
	return s
}

func (d *drawer) table(t *Table, depth int) {
	var flags []string
	for i := range t.Options {
		o := &t.Options[i]
		if rapid.IntRange(0, 4).Draw(d.T, "use") != 0 {
			continue
		}
		switch o.kind() {
		case KindSection:
			d.section(o, depth)
		case KindFlag:
			not := rapid.SampledFrom([]string{"", "no_", "not_", "dont_", "-", "!", "~"}).Draw(d.T, "not")
			flags = append(flags, not+o.Name)
		default:
			d.option(o)
		}
	}
	if len(flags) > 0 {
		d.put(d.name("flags"), "=", "{", strings.Join(flags, d.space()+","), "}")
	}
}

func (d *drawer) section(o *Option, depth int) {
	n := 1
	if o.New != nil {
		n = rapid.IntRange(0, 3).Draw(d.T, "sections")
	}
	for i := range n {
		d.put(d.name(o.Name))
		switch {
		case len(o.Words) > 0:
			d.put(rapid.SampledFrom(o.Words).Draw(d.T, "name"))
		case o.Named:
			d.put(quote(rapid.String().Filter(isName).Draw(d.T, "name") + fmt.Sprint(i)))
		}
		d.put("{")
		d.table(o.Sample(), depth+1)
		d.put("}")
		if rapid.Bool().Draw(d.T, "semicolon") {
			d.put(";")
		}
	}
}

func isName(s string) bool { return !strings.ContainsFunc(s, syntax.IsControl) }

func (d *drawer) option(o *Option) {
	if o.Type == Expr {
		d.put(d.name(o.Name), "==", rapid.SampledFrom([]string{`a =~ "x;{}\"y"`, "1 < 2\n && 3 > 4"}).Draw(d.T, "expr"), ";")
		return
	}
	d.put(d.name(o.Name), "=", d.value(o), ";")
}

func (d *drawer) value(o *Option) string {
	if len(o.Words) == 0 {
		switch o.Type {
		case String:
			return quote(rapid.String().Filter(noNUL).Draw(d.T, "string"))
		case File, Dir, Path:
			return quote(rapid.String().Filter(isName).Draw(d.T, "path"))
		case List:
			return d.list(rapid.String().Filter(noNUL))
		case Int:
			if !o.isSize() {
				return fmt.Sprint(rapid.Int64Range(-1<<62, 1<<62).Draw(d.T, "int"))
			}
		case Time:
			return fmt.Sprintf("%dw %dms", rapid.IntRange(0, 100).Draw(d.T, "weeks"), rapid.IntRange(0, 1<<40).Draw(d.T, "ms"))
		}
		if o.isSize() {
			return fmt.Sprintf("%dGB%dB", rapid.IntRange(0, 1<<30).Draw(d.T, "GB"), rapid.IntRange(0, 1<<40).Draw(d.T, "B"))
		}
	}
	valid, _ := sampleValues(*o)
	return rapid.SampledFrom(valid).Draw(d.T, "value")
}

func noNUL(s string) bool { return !strings.Contains(s, "\x00") }

func (d *drawer) list(items *rapid.Generator[string]) string {
	words := rapid.SliceOfN(items, 0, 5).Draw(d.T, "list")
	for i := range words {
		words[i] = quote(words[i])
	}
	comma := ""
	if len(words) > 0 && rapid.Bool().Draw(d.T, "comma") {
		comma = ","
	}
	return "{" + d.space() + strings.Join(words, d.space()+","+d.space()) + comma + d.space() + "}"
}

// TestRoundTrip makes random configurations, which must be read, and be the same
// when they are shown or formatted and read again.
func TestRoundTrip(t *testing.T) {
	table := func() *Table { return specTable(t) }
	rapid.Check(t, func(rt *rapid.T) {
		d := &drawer{T: rt}
		d.table(specTable(t), 0)
		text := d.b.String()
		res, err := load(table(), text)
		if err != nil {
			rt.Fatalf("%v\nin:\n%s", err, text)
		}
		if err := checkRoundTrip(table, text, res); err != nil {
			rt.Fatalf("%v\nof:\n%s", err, text)
		}
	})
}
