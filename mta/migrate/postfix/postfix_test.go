package postfix

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	main := "# comment\n\nmyhostname = mx.example.org\nmydestination = $myhostname,\n# inside\n\n    localhost\n\tlocalhost.$mydomain\nempty =\nmyhostname = mx2.example.org\n"
	master := `smtp inet n - y - 1 postscreen
smtpd pass - - y - - smtpd
submission inet n - y - - smtpd
  -o syslog_name=postfix/$service_name
  # a comment
  -o { smtpd_client_restrictions = permit_sasl_authenticated, reject }
  -osmtpd_tls_security_level=encrypt -v
maildrop unix - n n - - pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop -o x -d ${recipient}
`
	c, err := Parse(strings.NewReader(main), strings.NewReader(master))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Value(nil, "mydestination"); err != nil || strings.Join(strings.Fields(v), " ") != "mx2.example.org, localhost localhost." {
		t.Errorf("mydestination = %q, %v", v, err)
	}
	if s, ok := c.Set(nil, "mydestination"); !ok || s.Line != 4 || s.Where() != "main.cf:4" {
		t.Errorf("mydestination is set at %v", s)
	}
	sub := &c.Services[2]
	if len(sub.Overrides) != 3 || !reflect.DeepEqual(sub.Args, []string{"-v"}) {
		t.Fatalf("submission = %+v", sub)
	}
	if v, err := c.Value(sub, "smtpd_client_restrictions"); err != nil || v != "permit_sasl_authenticated, reject" {
		t.Errorf("smtpd_client_restrictions = %q, %v", v, err)
	}
	if pipe := &c.Services[3]; len(pipe.Overrides) != 0 || pipe.ID() != "maildrop/unix" {
		t.Errorf("the arguments of pipe's command are not Postfix's: %+v", pipe)
	}
}

func TestParseErrors(t *testing.T) {
	for _, bad := range []struct{ main, master, want string }{
		{"  continued = 1\n", "", "line 1: begins with white space"},
		{"a = 1\nsecret hunter2\n", "", `line 2: "secret" has no =`},
		{"", "smtp inet n - y - -\n", "8 fields"},
		{"", "smtp inet n - y - - smtpd -o\n", "-o without"},
		{"", "smtp inet n - y - - smtpd -o { a = b\n", "without }"},
	} {
		_, err := Parse(strings.NewReader(bad.main), strings.NewReader(bad.master))
		if err == nil || !strings.Contains(err.Error(), bad.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q, %q: %v, want %q", bad.main, bad.master, err, bad.want)
		}
	}
}

func TestExpand(t *testing.T) {
	c := New()
	for _, l := range []string{"one = 1", "empty =", "nested = $one-${one}-$(one)", "loop = a $loop", "compatibility_level = 3.6", "big = " + strings.Repeat("$nested", 100)} {
		s, err := setting(l)
		if err != nil {
			t.Fatal(err)
		}
		c.Main = append(c.Main, s)
	}
	for in, want := range map[string]string{
		"$nested":                             "1-1-1",
		"$$one a":                             "$one a",
		"${one?yes}${empty?no}":               "yes",
		"${one:no}${empty:yes}":               "yes",
		"${empty?{a}:{b $one}}":               "b 1",
		"${ one ? { a } : { b } }":            "a",
		"${stress?{10}:{300}}s":               "300s",
		"${{$one} == {1} ? {same} : {other}}": "same",
		"${{$compatibility_level} <level {2} ? {old} : {new}}":     "new",
		"${{$compatibility_level} >=level {3.10} ? {old} : {new}}": "new",
		"${{2} < {10} ? {number} : {text}}":                        "number",
		"${{b} < {10} ? {number} : {text}}":                        "text",
		"$unknown_parameter":                                       "",
		"no reference { at all }":                                  "no reference { at all }",
	} {
		if got, err := c.Expand(nil, in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"$loop": "refers to itself", "${one": "no closing", "$ x": "no name follows", "${one!x}": "must follow the name",
		"${{a} ~ {b} ? {c}}": "not an operator", "${{a}": "no closing",
	} {
		if got, err := c.Expand(nil, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"a, b c\n\td":                     {"a", "b", "c", "d"},
		"hash:/a,inline:{a=b, {c = d e}}": {"hash:/a", "inline:{a=b, {c = d e}}"},
		"{ inet:h:1, timeout=5 } b":       {"{ inet:h:1, timeout=5 }", "b"},
		" , ":                             nil,
	} {
		if got, err := Split(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"{", "}", "a{b}}"} {
		if got, err := Split(bad); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestTables(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("virtual", "# x\nInfo@Example.org  jane,\n  joe\nonly-a-key\n")
	write("aliases", "Postmaster: root\n\"john doe\": jane,\n\tjoe\nnobody:\n")
	write("re", "/^a\\/b$/i  REJECT no\n!/x/ OK\n")
	write("re-if", "if /a/\n/b/ OK\nendif\n")
	write("nets", "192.0.2.0/24 REJECT\n2001:db8::/32  OK\n")
	write("nets-bad", "192.0.2.1/24 REJECT\n")
	write("gone.db", "")
	for _, c := range []struct {
		table string
		alias bool
		want  string // entries, or a part of the error
	}{
		{"hash:virtual", false, "info@example.org=jane,  joe"},
		{"hash:" + dir + "/virtual", false, "info@example.org=jane,  joe"},
		{"proxy:hash:aliases", true, "postmaster=root|john doe=jane,\tjoe"},
		{"regexp:re", false, `^a\/b$=REJECT no/i|x=OK/!`},
		{"pcre:re-if", false, "if and endif"},
		{"cidr:nets", false, "192.0.2.0/24=REJECT|2001:db8::/32=OK"},
		{"cidr:nets-bad", false, "not a network"},
		{"inline:{ a = b, { c = d e } F=g}", false, "a=b|c=d e|f=g"},
		{"static:OK", false, "*=OK"},
		{"hash:gone", false, ErrSource.Error()},
		{"hash:nowhere", false, "no such file"},
		{"ldap:/x", false, ErrType.Error()},
	} {
		table, ok := ParseTable(c.table, "")
		if !ok {
			t.Errorf("%s is no table", c.table)
			continue
		}
		entries, err := table.Read(dir, c.alias)
		var got []string
		for _, e := range entries {
			text := e.Key + "=" + e.Value
			if e.Pattern {
				text += "/" + e.Flags
			}
			if e.Not {
				text += "!"
			}
			got = append(got, strings.TrimSuffix(text, "/"))
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, "|"); s != c.want && (err == nil || !strings.Contains(s, c.want)) {
			t.Errorf("%s: %s, want %s", c.table, s, c.want)
		}
	}
	for _, no := range []string{"[smtp.example.org]:587", "inet:127.0.0.1:10023", "permit", "unix-x:y"} {
		if table, ok := ParseTable(no, ""); ok {
			t.Errorf("%s is taken for the table %s", no, table)
		}
	}
}

// FuzzParse reads anything as main.cf, master.cf and a table, and expands all of it.
func FuzzParse(f *testing.F) {
	f.Add("a = $b\nb = ${a?{x}:{y}}\n", "smtp inet n - y - - smtpd -o a=b\n", "a b\n")
	f.Add("a = ${{1} <level {2} ? {$a} : {b}}\n", "x unix - - - - - lmtp -o { a = b c }\n", "inline:{a=b, {c = d}}")
	f.Fuzz(func(t *testing.T, main, master, table string) {
		if c, err := Parse(strings.NewReader(main), strings.NewReader(master)); err == nil {
			for i := range c.Main {
				if v, err := c.Value(nil, c.Main[i].Name); err == nil && len(v) > maxExpanded {
					t.Errorf("%d bytes", len(v))
				}
			}
			for i := range c.Services {
				for _, o := range c.Services[i].Overrides {
					_, _ = c.Value(&c.Services[i], o.Name)
				}
			}
		}
		list, _ := Split(table)
		for _, e := range list {
			if p, ok := ParseTable(e, "hash"); ok && p.Type == "inline" {
				_, _ = p.Read("", false)
			}
		}
		for _, l := range strings.Split(table, "\n") {
			if l != "" {
				_, _, _ = indexed(line{l, 1}, true)
				_, _, _ = pattern(line{l, 1})
				_, _, _ = cidr(line{l, 1})
			}
		}
	})
}
