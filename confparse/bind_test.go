package confparse

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/confparse/syntax"
)

// item is one instance of a repeatable section.
type element struct {
	name  string
	value int
}

// small is a configuration with one of everything.
type small struct {
	host     string
	entries  int
	timeout  time.Duration
	access   bool
	strict   bool
	tls      string
	hasTLS   bool
	elements []element
	calls    []string // of Check and Done, in order
	services []string
	check    func(r *Report)
}

func (c *small) table() *Table {
	t := &Table{
		Check: func(r *Report) {
			c.calls = append(c.calls, "check global")
			if c.check != nil {
				c.check(r)
			}
		},
		Done: func() { c.calls = append(c.calls, "done global") },
		Any: func(keyword, name string) *Table {
			if keyword == "refused" {
				return nil
			}
			var command string
			return &Table{
				Options: []Option{
					{Name: "path", Type: Path, Effect: Host, Required: true, Into: &command, Doc: "Program.", Readme: "3.7"},
				},
				Done: func() { c.services = append(c.services, keyword+":"+name+":"+command) },
			}
		},
	}
	t.Options = []Option{
		{Name: "hostname", Type: String, Into: &c.host, Doc: "Name of this host.", Readme: "3.4"},
		{Name: "qmgr", Kind: KindSection, Doc: "The queue.", Readme: "3.8", Sub: c.qmgr()},
		{Name: "element", Kind: KindSection, Named: true, Doc: "An element.", Readme: "own", New: c.element},
	}
	return t
}

func (c *small) qmgr() *Table {
	return &Table{
		Check: func(*Report) { c.calls = append(c.calls, "check qmgr") },
		Options: []Option{
			{
				Name: "AQ_entries_max", Type: Int, Unit: "entries", Default: "8192", Min: "1", Into: &c.entries, Reload: AtOnce,
				Doc: "Size of the active queue.", Readme: "3.8",
			},
			{Name: "timeout", Type: Time, Default: "1h 5m", Max: "1d", Into: &c.timeout, Doc: "How long.", Readme: "own"},
			{Name: "threads_max", Type: Int, Effect: Host, Doc: "Number of threads.", Readme: "8.3"},
			{Name: "access", Kind: KindFlag, Into: &c.access, Doc: "Ask the access map.", Readme: "3.10"},
			{Name: "strict", Kind: KindFlag, Default: "on", Into: &c.strict, Doc: "Be strict.", Readme: "own"},
			{
				Name: "tls", Kind: KindSection, Present: &c.hasTLS, Doc: "TLS.", Readme: "3.10",
				Sub: &Table{
					Check: func(*Report) { c.calls = append(c.calls, "check tls") },
					Options: []Option{
						{Name: "cert_file", Type: File, Default: "cert.pem", Into: &c.tls, Doc: "Certificate.", Readme: "3.10"},
					},
				},
			},
		},
	}
}

func (c *small) element(name string) *Table {
	e := &element{name: name}
	return &Table{
		Options: []Option{
			{Name: "value", Type: Int, Required: true, Into: &e.value, Doc: "Its value.", Readme: "own"},
		},
		Check: func(r *Report) { c.calls = append(c.calls, "check element "+r.Name()) },
		Done: func() {
			c.calls = append(c.calls, "done element")
			c.elements = append(c.elements, *e)
		},
	}
}

func TestDefaults(t *testing.T) {
	c := &small{host: "prefilled"}
	res := mustLoad(t, c.table(), "")
	if c.host != "prefilled" || c.entries != 8192 || c.timeout != 65*time.Minute || c.access || !c.strict ||
		c.tls != "/etc/meta1/cert.pem" || c.hasTLS {
		t.Errorf("%+v", c)
	}
	if want := []string{"check global", "done global"}; !slices.Equal(c.calls, want) {
		t.Errorf("calls: %q", c.calls)
	}
	if res.File != "/etc/meta1/meta1.conf" || len(res.Files) != 1 {
		t.Error(res.File, res.Files)
	}
}

func TestOrderOfChecks(t *testing.T) {
	stages := []string{}
	checks := &Table{Options: []Option{{
		Name: "check", Kind: KindSection, Named: true, Words: []string{"mail", "rcpt"},
		New: func(name string) *Table { stages = append(stages, name); return &Table{} },
	}}}
	mustLoad(t, checks, "check MAIL { } check mail { } check Rcpt { }")
	if !slices.Equal(stages, []string{"mail", "mail", "rcpt"}) {
		t.Errorf("stages: %q", stages)
	}
	c := &small{}
	mustLoad(t, c.table(), "element a { value = 1; } qmgr { tls { } } element b { value = 2; } lda x { path = /bin/lda; }")
	want := []string{
		"check element a", "done element", "check tls", "check qmgr", "check element b", "done element",
		"check global", "done global",
	}
	if !slices.Equal(c.calls, want) {
		t.Errorf("calls: %q", c.calls)
	}
	if !slices.Equal(c.elements, []element{{"a", 1}, {"b", 2}}) || !c.hasTLS {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.services, []string{"lda:x:/bin/lda"}) {
		t.Errorf("services: %q", c.services)
	}
}

func TestReport(t *testing.T) {
	const text = `hostname = x;
element a { value = 7; }
qmgr {
  flags = { access };
  AQ_entries_max = 0; # wrong by itself
}
`
	c := &small{check: func(r *Report) {
		r.Errorf("hostname", "host %s", "is bad")
		r.Errorf("qmgr/timeout", "default is bad")
		r.Errorf("qmgr/tls/cert_file", "absent is bad")
		r.Errorf("qmgr/access", "flag is bad")
		r.Errorf("element a/value", "value is bad")
		r.Errorf("element#1", "element is bad")
		r.Errorf("qmgr/AQ_entries_max", "said already")
		r.Errorf("", "all is bad")
		r.Warnf("hostname", "be warned")
		if r.Dir() != "/etc/meta1" {
			t.Error(r.Dir())
		}
		for path, want := range map[string]string{
			"hostname": "/etc/meta1/meta1.conf:1:12", "qmgr/timeout": "default", "qmgr/access": "/etc/meta1/meta1.conf:4:13",
			"qmgr/strict": "default", "element a": "/etc/meta1/meta1.conf:2:1", "element#1/value": "/etc/meta1/meta1.conf:2:21",
			"element#2/value": "default", "nowhere": "default", "qmgr": "/etc/meta1/meta1.conf:3:1", "qmgr/tls": "default",
		} {
			if pos, isSet := r.Origin(path); pos.String() != want || isSet != (want != "default") {
				t.Errorf("origin of %s: %s, %v", path, pos, isSet)
			}
		}
	}}
	res, err := load(c.table(), text)
	var got []string
	for _, d := range err.(Errors) {
		got = append(got, fmt.Sprintf("%d:%d %s", d.Line, d.Col, d.Message))
	}
	want := []string{
		"0:0 all is bad", "1:12 host is bad", "2:1 element is bad", "2:21 value is bad", "3:1 default is bad",
		"3:1 absent is bad", "4:13 flag is bad", "5:20 AQ_entries_max: 0 is less than 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if len(res.Warnings) != 1 || res.Warnings[0].Message != "be warned" || res.Warnings[0].Severity != SeverityWarning {
		t.Errorf("warnings: %v", res.Warnings)
	}
	d := res.Diagnose(SeverityError, "qmgr/access", "late %d", 1)
	if d.Line != 4 || d.Message != "late 1" || !strings.Contains(d.String(), "flags = { access };\n              ^~~~~~") {
		t.Error(d)
	}
	if pos, isSet := res.Origin("element a/value"); pos.Line != 2 || !isSet {
		t.Error(pos, isSet)
	}
}

func TestRequired(t *testing.T) {
	_, err := load((&small{}).table(), "element a { }\nlda { }")
	errs, _ := err.(Errors)
	if len(errs) != 2 || errs[0].Message != "section element a lacks value" || errs[0].Line != 1 ||
		errs[1].Message != "service section lda lacks path" || errs[1].Line != 2 {
		t.Error(err)
	}
}

func TestNoEffect(t *testing.T) {
	res := mustLoad(t, (&small{}).table(), "qmgr { threads_max = 5; } lda { path = x; }")
	if !slices.Equal(res.NoEffect, []string{"qmgr/threads_max"}) || len(res.Warnings) != 1 {
		t.Errorf("%q %v", res.NoEffect, res.Warnings)
	}
	if got := res.Warnings[0].String(); !strings.HasPrefix(got, "/etc/meta1/meta1.conf:1:8: warning: threads_max has no effect") {
		t.Error(got)
	}
}

// TestEffects: each option that changes nothing is named, a section in place of what is
// in it, and nothing twice.
func TestEffects(t *testing.T) {
	var later, warned, b bool
	var none, s string
	flag := func(name string, e Effect, into *bool) Option {
		return Option{Name: name, Kind: KindFlag, Readme: "1", Doc: "A flag.", Effect: e, Into: into}
	}
	inner := &Table{Options: []Option{{Name: "word", Type: String, Readme: "1", Doc: "A word.", Into: &s}, flag("in", None, &b)}}
	table := &Table{
		Options: []Option{
			{Name: "none", Type: String, Readme: "1", Doc: "Nothing.", Effect: None, Into: &none},
			flag("later", NotYet, &later), flag("warned", NotYet, &warned),
			{Name: "proxy", Kind: KindSection, Readme: "1", Doc: "A proxy.", Effect: NotYet, Sub: inner},
		},
		Check: func(r *Report) {
			if _, set := r.Origin("warned"); set && warned {
				r.Warnf("warned", "warned is not yet in effect: mail goes out without it")
			}
		},
	}
	if err := CheckTable(table); err != nil {
		t.Error(err)
	}
	for _, r := range Rows(table) {
		if want := map[string]Effect{"none": None, "later": NotYet, "warned": NotYet, "proxy": NotYet, "word": NotYet, "in": None}[r.Name]; r.Effect != want {
			t.Errorf("%s: effect %q, want %q", r.Name, r.Effect, want)
		}
	}
	res := mustLoad(t, table, "none = x;\nflags = {\nlater,\nwarned };\nproxy { word = x; flags = { in }; }")
	var got []string
	for _, w := range res.Warnings {
		got = append(got, fmt.Sprint(w.Line, " ", w.Message))
	}
	want := []string{
		"1 none has no effect", "3 later is not yet in effect",
		"4 warned is not yet in effect: mail goes out without it", "5 section proxy is not yet in effect",
	}
	if !slices.Equal(got, want) || !slices.Equal(res.NoEffect, []string{"none"}) || !slices.Equal(res.NotYet, []string{"later", "warned", "proxy"}) {
		t.Errorf("%q, no effect %q, not yet %q", got, res.NoEffect, res.NotYet)
	}
	if res = mustLoad(t, table, "flags = { no_later };"); len(res.Warnings)+len(res.NotYet) != 0 {
		t.Errorf("a flag that is cleared: %v", res.Warnings)
	}
}

// TestManyWarnings checks that warnings do not end the reading.
func TestManyWarnings(t *testing.T) {
	const servers = syntax.MaxDiagnostics
	var b strings.Builder
	for i := range servers {
		fmt.Fprintf(&b, "lda x%d { path = x; }\n", i)
	}
	c := &small{}
	text := b.String()
	c.check = func(r *Report) {
		for range 2 * syntax.MaxDiagnostics {
			r.Warnf("", "be warned")
		}
	}
	res := mustLoad(t, c.table(), text+"qmgr { threads_max = 5; AQ_entries_max = 7; }")
	if len(c.services) != servers || c.entries != 7 || len(res.Warnings) != syntax.MaxDiagnostics || len(res.NoEffect) != 1 {
		t.Error(len(c.services), c.entries, len(res.Warnings), len(res.NoEffect))
	}
}

func TestServices(t *testing.T) {
	_, err := load((&small{}).table(), "refused { }")
	if err == nil || !strings.Contains(err.Error(), `unknown section "refused"`) {
		t.Error(err)
	}
	_, err = load((&small{}).table(), "hostname { }")
	if err == nil || !strings.Contains(err.Error(), "it is an option, not a section") {
		t.Error(err)
	}
}

func TestMerge(t *testing.T) {
	var a, b, hidden int
	var calls []string
	one := &Table{
		Options: []Option{{Name: "x", Type: Int, Into: &a}},
		Check:   func(*Report) { calls = append(calls, "one") },
	}
	two := &Table{
		Options: []Option{{Name: "X", Type: Int, Into: &hidden}, {Name: "y", Type: Int, Into: &b}, {Name: "x", Kind: KindFlag}},
		Check:   func(*Report) { calls = append(calls, "two") },
		Done:    func() { calls = append(calls, "done") },
	}
	m := Merge(one, nil, two)
	mustLoad(t, m, "x = 1; y = 2; flags = { x };")
	if a != 1 || b != 2 || hidden != 0 || len(m.Options) != 3 || len(one.Options) != 1 {
		t.Error(a, b, hidden, len(m.Options))
	}
	if !slices.Equal(calls, []string{"one", "two", "done"}) {
		t.Error(calls)
	}
}

func TestIncludes(t *testing.T) {
	c := &small{}
	res, err := loadFiles(c.table(), Files{
		"/etc/meta1/meta1.conf":    "include \"conf.d/*.conf\";\nqmgr { INCLUDE queue/q; }\nelement z { value = 3; }",
		"/etc/meta1/conf.d/2.conf": "element b { value = 2; }\ninclude \"../queue/../shared\";",
		"/etc/meta1/conf.d/1.conf": "element a { value = 1; }",
		"/etc/meta1/conf.d/3.txt":  "nonsense",
		"/etc/meta1/queue/q":       "AQ_entries_max = 5; tls { cert_file = c.pem; }",
		"/etc/meta1/shared":        "hostname = shared;",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.elements, []element{{"a", 1}, {"b", 2}, {"z", 3}}) || c.entries != 5 || c.host != "shared" {
		t.Errorf("%+v", c)
	}
	if c.tls != "/etc/meta1/c.pem" {
		t.Errorf("a file name in an included file is relative to %s", c.tls)
	}
	want := []string{
		"/etc/meta1/meta1.conf", "/etc/meta1/conf.d/1.conf", "/etc/meta1/conf.d/2.conf", "/etc/meta1/shared", "/etc/meta1/queue/q",
	}
	if !slices.Equal(res.Files, want) {
		t.Errorf("files: %q", res.Files)
	}
	if pos, _ := res.Origin("qmgr/AQ_entries_max"); pos.String() != "/etc/meta1/queue/q:1:18" {
		t.Error(pos)
	}
}

func TestMissingFile(t *testing.T) {
	res, err := Load(LoadOptions{}, "testdata/no\x1bsuch.conf", (&small{}).table())
	var errs Errors
	if !errors.As(err, &errs) || res == nil {
		t.Fatal(err)
	}
	if want := "testdata/no?such.conf: error: reading the configuration: no such file or directory"; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if _, err := Load(LoadOptions{}, "testdata", (&small{}).table()); err == nil {
		t.Error("a directory is no configuration")
	}
	if pos, isSet := res.Origin("hostname"); isSet || pos.IsSet() || res.Show(true) != "" || len(res.Values(true)) != 0 {
		t.Error("a result without values has some")
	}
	if d := res.Diagnose(SeverityError, "hostname", "x"); d.Message != "x" {
		t.Error(d)
	}
}

// TestShow compares all forms of one configuration.
func TestShow(t *testing.T) {
	res := mustLoad(t, (&small{}).table(), `qmgr { flags = { no_strict }; timeout = 1d; } element "a b" { value = 1; }`)
	golden(t, "testdata/show.want", res.Show(false)+"--- with defaults\n"+res.Show(true))
	js, err := json.MarshalIndent(res.Values(true), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/show.json", string(js)+"\n")
	empty := mustLoad(t, (&small{}).table(), "")
	golden(t, "testdata/show_empty.want", empty.Show(true))
	if got := empty.Show(false); got != "" {
		t.Errorf("nothing is shown as %q", got)
	}
}

func TestCheckTable(t *testing.T) {
	if err := CheckTable((&small{}).table()); err != nil {
		t.Error(err)
	}
	good := Option{Name: "x", Type: Int, Into: new(int), Doc: "d", Readme: "own"}
	cases := map[string]struct {
		change func(o *Option)
		want   string
	}{
		"name":      {func(o *Option) { o.Name = "a b" }, `name "a b"`},
		"no name":   {func(o *Option) { o.Name = "" }, `name ""`},
		"doc":       {func(o *Option) { o.Doc = "" }, "no documentation"},
		"readme":    {func(o *Option) { o.Readme = "" }, "no documentation"},
		"type":      {func(o *Option) { o.Type = "integer" }, `type "integer"`},
		"kind":      {func(o *Option) { o.Kind = "thing" }, `kind "thing"`},
		"secret":    {func(o *Option) { o.Secret = true }, "a secret of type int"},
		"effect":    {func(o *Option) { o.Effect = "some" }, `effect "some"`},
		"default":   {func(o *Option) { o.Default = "five" }, "default: "},
		"too small": {func(o *Option) { o.Default, o.Min = "1", "2" }, "default: 1 is less than 2"},
		"min":       {func(o *Option) { o.Min = "low" }, `limit "low"`},
		"max":       {func(o *Option) { o.Max = "1KB" }, `limit "1KB"`},
		"field":     {func(o *Option) { o.Into = nil }, "no field"},
		"pointer":   {func(o *Option) { o.Into = 5 }, "the field is no pointer"},
		"fit":       {func(o *Option) { o.Into = new(string) }, "does not fit"},
		"narrow":    {func(o *Option) { o.Into, o.Default = new(uint8), "256" }, "out of range"},
		"two":       {func(o *Option) { o.Default = "1; y = 2" }, "not one value"},
		"flag":      {func(o *Option) { o.Kind, o.Default = KindFlag, "often" }, "Into is *int"},
		"section":   {func(o *Option) { o.Kind = KindSection }, "needs one of Sub and New"},
		"no table":  {func(o *Option) { o.Kind, o.New = KindSection, func(string) *Table { return nil } }, "no table"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := good
			c.change(&o)
			err := CheckTable(&Table{Options: []Option{o}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	twice := &Table{Options: []Option{good, good}}
	if err := CheckTable(twice); err == nil || !strings.Contains(err.Error(), "two rows") {
		t.Error(err)
	}
	flag := func(name string) Option {
		return Option{Name: name, Kind: KindFlag, Into: new(bool), Doc: "d", Readme: "own"}
	}
	if err := CheckTable(&Table{Options: []Option{flag("b"), flag("no_b")}}); err == nil {
		t.Error("no_b is a flag and the negation of one")
	}
	loop := &Table{}
	loop.Options = []Option{{Name: "s", Kind: KindSection, Sub: loop, Doc: "d", Readme: "own"}}
	if err := CheckTable(loop); err == nil || len(Rows(loop)) > 2*syntax.MaxDepth {
		t.Error("a table in itself is not found")
	}
}

func TestHasFlag(t *testing.T) {
	flags := []string{"a", "no_b", "c", "no_c"}
	got := []bool{
		HasFlag(flags, "a", false), HasFlag(flags, "b", true), HasFlag(flags, "c", true),
		HasFlag(flags, "d", true), HasFlag(flags, "d", false),
	}
	if !reflect.DeepEqual(got, []bool{true, false, false, true, false}) {
		t.Error(got)
	}
}

// TestSet: what a command line sets overrides the file, flags are added to those of the
// file, and messages name the place.
func TestSet(t *testing.T) {
	const file = "/etc/meta1/meta1.conf"
	read := func(text string, set ...Assignment) (*small, *Result, error) {
		c := &small{}
		res, err := Load(LoadOptions{FS: Files{file: text}, Set: set}, file, c.table())
		return c, res, err
	}
	set := Assignment{Section: "qmgr", Text: "AQ_entries_max = 9;", Source: "option -C"}
	for _, text := range []string{"", "qmgr { AQ_entries_max = 7; }", "QMGR { aq_Entries_Max = 7; }"} {
		c, res, err := read(text, set)
		if err != nil || c.entries != 9 {
			t.Errorf("%q: %d, %v", text, c.entries, err)
		}
		if pos, isSet := res.Origin("qmgr/AQ_entries_max"); !isSet || pos.File != "option -C" {
			t.Errorf("%q: set at %v", text, pos)
		}
	}
	_, _, err := read("", Assignment{Section: "qmgr", Text: "AQ_entries_max = none;", Source: "option -C"})
	if err == nil || !strings.HasPrefix(err.Error(), "option -C:1:18: error: AQ_entries_max: ") {
		t.Error(err)
	}

	var one, two bool
	flag := func(name string, into *bool) Option {
		return Option{Name: name, Kind: KindFlag, Readme: "1", Doc: "A flag.", Into: into}
	}
	table := &Table{Options: []Option{flag("one", &one), flag("two", &two)}}
	_, err = Load(LoadOptions{FS: Files{file: "flags = { one };"}, Set: []Assignment{{Text: "flags = { two };"}}}, file, table)
	if err != nil || !one || !two {
		t.Errorf("%v %v %v", one, two, err)
	}
}
