package confparse

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// specRow is a line of testdata/options.tsv, the list of every option.
type specRow struct {
	section, name, kind, typ, unit, deflt, readme, effect string
}

func specRows(tb testing.TB) []specRow {
	tb.Helper()
	text, err := os.ReadFile("testdata/options.tsv")
	if err != nil {
		tb.Fatal(err)
	}
	var rows []specRow
	for _, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "section\t") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 8 {
			tb.Fatalf("options.tsv: %d columns in %q", len(f), line)
		}
		rows = append(rows, specRow{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]})
	}
	return rows
}

// specDefaults are the defaults of options.tsv that are values, not descriptions.
var specDefaults = map[string]bool{
	"9": true, "0": true, "1": true, "false": true, "10": true, "100": true, "+": true, "=": true,
	"53": true, "25": true, "1MB": true, "64KB": true, "rsa-sha256": true, "simple": true,
	"0xFFFFFFFF": true, "access.db": true, "aliases.db": true, "mt": true, "defedb": true,
	"qmgr_conf.db": true, "lmtpsock": true, "secure": true, "on": true,
}

// specTable makes the whole tree of tables from options.tsv, with a field of the
// right type for each row.
func specTable(tb testing.TB) *Table {
	tb.Helper()
	s := &spec{rows: specRows(tb)}
	return s.root()
}

type spec struct{ rows []specRow }

func (s *spec) root() *Table {
	root := s.table("global")
	for _, module := range []string{"qmgr", "smar", "smtpc"} {
		root.Options = append(root.Options, Option{
			Name: module, Kind: KindSection, Sub: Merge(s.table(module), s.table("*")), Doc: "Module.", Readme: "3.3",
		})
	}
	root.Options = append(root.Options, Option{
		Name: "smtps", Kind: KindSection, Doc: "SMTP server.", Readme: "3.10",
		New: func(string) *Table { return Merge(s.table("smtps"), s.table("*")) },
	})
	root.Any = func(string, string) *Table { return s.table("*") }
	return root
}

func (s *spec) table(section string) *Table {
	t := &Table{}
	for _, r := range s.rows {
		if r.section == section {
			t.Options = append(t.Options, s.option(r))
		}
	}
	return t
}

func (s *spec) option(r specRow) Option {
	o := Option{
		Name: r.name, Kind: Kind(r.kind), Unit: r.unit, Readme: r.readme, Effect: Effect(r.effect),
		Doc: "Sets " + r.name + ".",
	}
	if specDefaults[r.deflt] {
		o.Default = r.deflt
	}
	if o.Default == "=" {
		o.Default = `"="`
	}
	switch o.Kind {
	case KindSection:
		s.section(&o, r)
	case KindFlag:
		o.Into = new(bool)
	case KindOption:
		o.Type, o.Words = specType(r.typ)
		o.Into = reflect.New(reflect.TypeOf(o.Type.zero())).Interface()
	}
	return o
}

func (s *spec) section(o *Option, r specRow) {
	path := r.name
	if r.section != "global" {
		path = r.section + "/" + r.name
	}
	switch {
	case r.typ == "as smtps/tls":
		o.Sub = s.table("smtps/tls")
	case strings.HasPrefix(r.typ, "cert_file"):
		o.Sub = s.table("smtps/tls")
	case strings.HasSuffix(r.typ, "repeatable"):
		o.New = func(string) *Table { return s.table(path) }
		o.Named = strings.HasPrefix(r.typ, "named")
		if words := strings.Fields(strings.TrimSuffix(r.typ, ", repeatable")); len(words) > 1 {
			o.Words = words[1:]
		}
	default:
		o.Sub = s.table(path)
	}
}

func specType(s string) (Type, []string) {
	switch {
	case strings.HasPrefix(s, "enum"):
		return Enum, strings.Fields(s)[1:]
	case s == "flags full_address detail_plus detail_star star domain dotsubdomain dot",
		s == "flags sender client_ip":
		return Flags, strings.Fields(s)[1:]
	case strings.HasPrefix(s, "flags"):
		return Flags, nil
	case s == "list of ip":
		return IPList, nil
	case strings.HasPrefix(s, "list"):
		return List, nil
	case strings.HasPrefix(s, "boolean"):
		return Expr, nil
	}
	return Type(s), nil
}

// load reads one text as /etc/meta1/meta1.conf, shown as meta1.conf.
func load(t *Table, text string) (*Result, error) {
	return loadFiles(t, Files{"/etc/meta1/meta1.conf": text})
}

// loadFiles reads /etc/meta1/meta1.conf; messages name it with its whole path.
func loadFiles(t *Table, files Files) (*Result, error) {
	return Load(LoadOptions{FS: files}, "/etc/meta1/meta1.conf", t)
}

func mustLoad(tb testing.TB, t *Table, text string) *Result {
	tb.Helper()
	res, err := load(t, text)
	if err != nil {
		tb.Fatalf("load: %v\nof:\n%s", err, text)
	}
	return res
}

// TestSpecTable checks that the tree made from options.tsv is sound, which also
// says that every type of that file is known here.
func TestSpecTable(t *testing.T) {
	root := specTable(t)
	if err := CheckTable(root); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, r := range Rows(root) {
		have[r.Section+" "+r.Name] = true
	}
	for _, r := range specRows(t) {
		section := strings.Replace(r.section, "*", "qmgr", 1)
		if !have[section+" "+r.name] {
			t.Errorf("%s %s is not listed", section, r.name)
		}
	}
}

// sampleValues gives texts that are valid for a type, and one that is not.
func sampleValues(o Option) (valid []string, invalid string) {
	if len(o.Words) > 0 {
		return o.Words, "no_such_word_at_all"
	}
	if o.isSize() {
		return []string{"1", "64KB", "1MB 5B", "0x10"}, "5x"
	}
	switch o.Type {
	case Int:
		return []string{"7", "0x1F", "017", "-1"}, "seven"
	case Time:
		return []string{"5", "1h 5m 12s", "100ms", "2w"}, "5 parsec"
	case Bool:
		return []string{"on", "OFF", "1", "false"}, "perhaps"
	case IP:
		return []string{"127.0.0.1", "2001:db8::1"}, "127.0.0.256"
	case IPList:
		return []string{"{ 127.0.0.1, ::1 }", "{ }", "10.0.0.1"}, "{ here }"
	case Address:
		return []string{"<a@example.org>", "a@example.org", `"\"x y\"@example.org"`}, "nobody"
	case List:
		return []string{"{ a, \"b c\", }", "{ }", `"x y"`}, "{ a b }"
	case Expr:
		return []string{`mail =~ "^a;b}"`, "transactions > 5"}, ""
	case MapName:
		return []string{"localusers"}, `""`
	case Enum:
		return []string{"word"}, `""`
	case Flags:
		return []string{"{ word, -other }"}, "{ two words }"
	}
	return []string{"x", `"a \"b\" \\ \r\n"`, `"joined " "up"`}, "two words"
}

// TestEveryOption sets each option of options.tsv to valid values, and to an
// invalid one, which must be reported with the option's name and its line.
func TestEveryOption(t *testing.T) {
	n := 0
	for _, row := range Rows(specTable(t)) {
		if row.Kind == KindSection {
			continue
		}
		n++
		t.Run(row.Section+"/"+row.Name, func(t *testing.T) { testRow(t, row) })
	}
	if n < 400 {
		t.Fatalf("only %d options", n)
	}
}

func testRow(t *testing.T, row Row) {
	o := Option{Name: row.Name, Type: Type(row.Type), Words: row.Words, Unit: row.Unit}
	if row.Kind == KindFlag {
		mustLoad(t, specTable(t), inSection(row.Section, "flags = { "+row.Name+" };"))
		wantError(t, inSection(row.Section, "flags = { "+row.Name+"x };"), row.Name+"x")
		return
	}
	valid, invalid := sampleValues(o)
	if o.Type == File || o.Type == Dir || o.Type == Path {
		valid = []string{"x/y.db", "/x/y", `"with blank"`}
	}
	for _, v := range valid {
		res := mustLoad(t, specTable(t), inSection(row.Section, row.Name+o.assign()+v+";"))
		found := false
		res.Each(func(s *Section, v *Setting) {
			if !v.IsSet {
				return
			}
			found = true
			if got := reflect.ValueOf(v.Option.Into).Elem().Interface(); !reflect.DeepEqual(got, v.Value) {
				t.Errorf("field is %v, value %v", got, v.Value)
			}
			if v.Origin().Line != 2 {
				t.Errorf("%s has origin %s", row.Name, v.Origin())
			}
		})
		if !found {
			t.Errorf("%s = %s: not among the settings", row.Name, v)
		}
	}
	wantError(t, inSection(row.Section, row.Name+o.assign()+invalid+";"), row.Name)
}

// inSection puts an entry on line 2, in the given section.
func inSection(section, entry string) string {
	open, end := "", ""
	if section != "global" {
		for _, s := range strings.Split(section, "/") {
			switch s {
			case "map", "connection_limits", "source", "session_features":
				s += " x"
			case "check":
				s += " mail"
			}
			open, end = open+s+" { ", end+" }"
		}
	}
	return open + "\n" + entry + "\n" + end
}

func wantError(t *testing.T, text, word string) {
	t.Helper()
	_, err := load(specTable(t), text)
	errs, ok := err.(Errors)
	if !ok {
		t.Fatalf("no error in %q", text)
	}
	for _, d := range errs {
		if d.Line == 2 && strings.Contains(d.Message, word) {
			return
		}
	}
	t.Errorf("no error on line 2 that names %s:\n%v", word, err)
}

func TestValues(t *testing.T) {
	day := 24 * time.Hour
	cases := []struct {
		opt  Option
		text string
		want any // nil for an error
	}{
		{Option{Type: Int}, "0x10", int64(16)},
		{Option{Type: Int}, "010", int64(8)},
		{Option{Type: Int}, "0", int64(0)},
		{Option{Type: Int}, "-5", int64(-5)},
		{Option{Type: Int}, "9223372036854775807", int64(9223372036854775807)},
		{Option{Type: Int}, "9223372036854775808", nil},
		{Option{Type: Int}, "99999999999999999999", nil},
		{Option{Type: Int}, "09", nil},
		{Option{Type: Int}, "0x", nil},
		{Option{Type: Int}, "1_000", nil},
		{Option{Type: Int}, "+5", nil},
		{Option{Type: Int}, "5KB", nil},
		{Option{Type: Int, Unit: "entries"}, "5KB", nil},
		{Option{Type: Int, Unit: "KB"}, "5", int64(5 << 10)},
		{Option{Type: Int, Unit: "KB"}, "5B", int64(5)},
		{Option{Type: Int, Min: "1", Max: "10"}, "0", nil},
		{Option{Type: Int, Min: "1", Max: "10"}, "10", int64(10)},
		{Option{Type: Int, Min: "1", Max: "10"}, "11", nil},
		{Option{Type: Size}, "5", int64(5)},
		{Option{Type: Size}, "1GB 1MB 1kb 1b", int64(1<<30 + 1<<20 + 1<<10 + 1)},
		{Option{Type: Size}, "1GB1MB", int64(1<<30 + 1<<20)},
		{Option{Type: Size}, `"4 KB"`, nil},
		{Option{Type: Size}, "5MB 3", nil},
		{Option{Type: Size}, "9999999999GB", nil},
		{Option{Type: Size}, "8589934591GB 1GB", nil},
		{Option{Type: Size}, "-1", nil},
		{Option{Type: Size}, "1.5MB", nil},
		{Option{Type: Size, Max: "1MB"}, "1025KB", nil},
		{Option{Type: Time}, "1h 5m 12s", time.Hour + 5*time.Minute + 12*time.Second},
		{Option{Type: Time}, "5m3s", 5*time.Minute + 3*time.Second},
		{Option{Type: Time}, "1w2d", 9 * day},
		{Option{Type: Time}, "90", 90 * time.Second},
		{Option{Type: Time, Unit: "ms"}, "90", 90 * time.Millisecond},
		{Option{Type: Time, Unit: "ms"}, "1s 90ms", 1090 * time.Millisecond},
		{Option{Type: Time}, "5 m", nil},
		{Option{Type: Time}, "", nil},
		{Option{Type: Time}, "99999999w", nil},
		{Option{Type: Time, Min: "1m"}, "59", nil},
		{Option{Type: Time, Min: "1m", Max: "1h 30m"}, "1h 31m", nil},
		{Option{Type: Bool}, "True", true},
		{Option{Type: Bool}, "0", false},
		{Option{Type: Bool}, "yes", nil},
		{Option{Type: String}, `"a" "b" /* c */ "c"`, "abc"},
		{Option{Type: String}, `"\a\b\f\n\r\t\v\\\"\'\?\x41\101\x4G"`, "\a\b\f\n\r\t\v\\\"'?AA\x04G"},
		{Option{Type: String}, `"\q"`, nil},
		{Option{Type: String}, `"\0"`, nil},
		{Option{Type: String}, `"\400"`, nil},
		{Option{Type: String}, `"\x"`, nil},
		{Option{Type: String}, "\"one\\\nline\"", "oneline"},
		{Option{Type: String}, "\"one\nline\"", nil},
		{Option{Type: String}, "\"one\\\r\nline\"", "oneline"},
		{Option{Type: String}, `smtps/smtpsfd`, "smtps/smtpsfd"},
		{Option{Type: String}, `{ single }`, "single"},
		{Option{Type: String}, `{ a, b }`, nil},
		{Option{Type: String}, `a b`, nil},
		{Option{Type: String}, `a "b"`, nil},
		{Option{Type: String}, `"ÄÖ€"`, "ÄÖ€"},
		{Option{Type: Enum, Words: []string{"Inet", "unix"}}, "INET", "Inet"},
		{Option{Type: Enum, Words: []string{"Inet", "unix"}}, "inet6", nil},
		{Option{Type: Enum}, "mail", "mail"},
		{Option{Type: List}, `{ a, "b c", }`, []string{"a", "b c"}},
		{Option{Type: List}, `{ }`, []string{}},
		{Option{Type: List}, `{ , }`, nil},
		{Option{Type: List}, `"CRAM-MD5 DIGEST-MD5"`, []string{"CRAM-MD5", "DIGEST-MD5"}},
		{Option{Type: List, Words: []string{"PLAIN"}}, "plain", []string{"PLAIN"}},
		{Option{Type: List, Words: []string{"PLAIN"}}, "plian", nil},
		{
			Option{Type: Flags, Words: []string{"a", "no_b"}},
			"{ A, not_a, dont_a, No_a, -a, !a, ~a, no_b, no_no_b }",
			[]string{"a", "no_a", "no_a", "no_a", "no_a", "no_a", "no_a", "no_b", "no_no_b"},
		},
		{Option{Type: Flags, Words: []string{"a"}}, "{ b }", nil},
		{Option{Type: Flags}, "-any", []string{"no_any"}},
		{Option{Type: IP}, "::1", netip.IPv6Loopback()},
		{Option{Type: IP}, "localhost", nil},
		{Option{Type: IPList}, "{ 1.2.3.4 }", []netip.Addr{netip.AddrFrom4([4]byte{1, 2, 3, 4})}},
		{Option{Type: IPList}, `"1.2.3.4, ::1"`, []netip.Addr{netip.AddrFrom4([4]byte{1, 2, 3, 4}), netip.IPv6Loopback()}},
		{Option{Type: IPList}, "{ 1.2.3.400 }", nil},
		{Option{Type: File}, "a.db", "/etc/meta1/a.db"},
		{Option{Type: File}, "../a.db", "/etc/a.db"},
		{Option{Type: File}, "/a//b", "/a/b"},
		{Option{Type: File}, `""`, ""},
		{Option{Type: File}, `"a\nb"`, nil},
		{Option{Type: Dir}, "a/b/", "a/b/"},
		{Option{Type: Path}, "smtps/sock", "smtps/sock"},
		{Option{Type: Address}, "<a@b.example>", "a@b.example"},
		{Option{Type: Address}, "a@b.example", "a@b.example"},
		{Option{Type: Address}, "<>", ""},
		{Option{Type: Address}, "<a@b", nil},
		{Option{Type: Address}, "@b", nil},
		{Option{Type: Address}, "a@", nil},
		{Option{Type: MapName}, "m", "m"},
		{Option{Type: MapName}, `""`, nil},
	}
	for _, c := range cases {
		t.Run(string(c.opt.Type)+" "+c.text, func(t *testing.T) {
			c.opt.Name = "v"
			got, err := c.opt.parse(c.text, "/etc/meta1")
			if c.want == nil {
				if err == nil {
					t.Fatalf("got %v, want an error", got)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %#v, %v; want %#v", got, err, c.want)
			}
			if c.opt.Type == File || c.opt.Type == Address {
				return
			}
			again, err := c.opt.parse(c.opt.format(got), "/etc/meta1")
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("written as %s and read again: %#v, %v", c.opt.format(got), again, err)
			}
		})
	}
}

// TestFields stores into fields of many Go types.
func TestFields(t *testing.T) {
	type word string
	var (
		i   int
		u8  uint8
		u32 uint32
		w   word
		b   bool
		d   time.Duration
	)
	table := func() *Table {
		return &Table{Options: []Option{
			{Name: "i", Type: Int, Into: &i, Doc: "d", Readme: "own"},
			{Name: "u8", Type: Int, Into: &u8, Doc: "d", Readme: "own"},
			{Name: "u32", Type: Int, Into: &u32, Doc: "d", Readme: "own"},
			{Name: "w", Type: Enum, Into: &w, Doc: "d", Readme: "own"},
			{Name: "b", Type: Bool, Into: &b, Doc: "d", Readme: "own"},
			{Name: "d", Type: Time, Into: &d, Doc: "d", Readme: "own"},
			{Name: "wrong", Type: Time, Into: new(bool), Effect: Host},
		}}
	}
	mustLoad(t, table(), "i = -1; u8 = 255; u32 = 0xFFFFFFFF; w = x; b = on; d = 5;")
	if i != -1 || u8 != 255 || u32 != 0xFFFFFFFF || w != "x" || !b || d != 5*time.Second {
		t.Error(i, u8, u32, w, b, d)
	}
	for text, want := range map[string]string{
		"u8 = 256;":             "out of range",
		"u8 = -1;":              "out of range",
		"i = 9999999999999999;": "",
		"wrong = 5;":            "Into is *bool",
	} {
		_, err := load(table(), text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := fmt.Sprint(i); got != "9999999999999999" {
		t.Error(got)
	}
}
