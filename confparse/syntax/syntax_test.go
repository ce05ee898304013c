package syntax

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// TestFormat compares files with their canonical layout.
func TestFormat(t *testing.T) {
	files, err := filepath.Glob("testdata/format/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Format(file, text)
			if err != nil {
				t.Fatal(err)
			}
			wanted := strings.TrimSuffix(file, ".conf") + ".want"
			if *update {
				if err := os.WriteFile(wanted, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wanted)
			if err != nil || string(got) != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s\n%v", got, want, err)
			}
			if again, err := Format(file, got); err != nil || string(again) != string(got) {
				t.Errorf("laid out twice:\n%s\n%v", again, err)
			}
		})
	}
	if _, err := Format("f.conf", []byte("a = \n")); err == nil || !strings.Contains(err.Error(), "f.conf:2:1: error: unexpected end") {
		t.Error(err)
	}
	if _, err := Format("f.conf", make([]byte, MaxBytes+1)); err == nil {
		t.Error("too much is laid out")
	}
}

// dump prints a tree on one line.
func dump(list []*Entry) string {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s@%s", e.Name, e.At.Pos())
		if e.Label != nil {
			fmt.Fprintf(&b, " %q", e.Label.Text)
		}
		fmt.Fprintf(&b, " %d", e.Form)
		for _, v := range e.Values {
			fmt.Fprintf(&b, " %q", v.Text)
		}
		if e.Form == FormSection {
			b.WriteString(" {" + dump(e.Body) + "}")
		}
		b.WriteByte(';')
	}
	return b.String()
}

func TestParse(t *testing.T) {
	tests := map[string]string{
		"":                                "",
		"a = b;":                          `a@f:1:1 0 "b";`,
		"a = 1h 5m /* x */ 12s;":          `a@f:1:1 0 "1h 5m 12s";`,
		`a = "b" "c" # d` + "\n" + `"e";`: `a@f:1:1 0 "bce";`,
		"a = { b, \"c\", }":               `a@f:1:1 1 "b" "c";`,
		"a == b =~ \"};\" && c;":          `a@f:1:1 2 "b =~ \"};\" && c";`,
		"a { b = c; } a \"d e\" { };":     `a@f:1:1 3 {b@f:1:5 0 "c";};a@f:1:14 "d e" 3 {};`,
		"\ninclude \"x\";":                `include@f:2:1 4 "x";`,
	}
	for text, want := range tests {
		in := &Input{Nodes: MaxNodes}
		body, _ := Parse(&Source{Name: "f", Path: "/f", Text: text}, in)
		if got := dump(body); got != want || len(in.Errs) > 0 || in.Broken {
			t.Errorf("%s\ngot  %s %v\nwant %s", text, got, in.Errs, want)
		}
	}
}

// TestRecover: all mistakes are found, and what stands around them.
func TestRecover(t *testing.T) {
	in := &Input{Nodes: MaxNodes}
	body, _ := Parse(&Source{Name: "f", Text: "a = ;\nb = c;\nd { e f g h; i = j\n}\nk = { l; m };\nn = 'o';\n}\np = q;"}, in)
	if got, want := dump(body), `b@f:2:1 0 "c";d@f:3:1 3 {i@f:3:14 0 "j";};p@f:8:1 0 "q";`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var lines []string
	for _, d := range in.Errs {
		lines = append(lines, fmt.Sprint(d.Line))
	}
	if got := strings.Join(lines, " "); got != "1 3 3 5 6 7" || !in.Broken {
		t.Errorf("mistakes in lines %s\n%v", got, in.Errs)
	}
	var errs Errors
	if !errors.As(in.Err(nil), &errs) || !strings.HasSuffix(errs.Error(), "6 errors") {
		t.Errorf("%v", errs)
	}
}

// FuzzFormat lays out any text twice.
func FuzzFormat(f *testing.F) {
	files, _ := filepath.Glob("testdata/format/*.conf")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := Format("f", text)
		if err != nil {
			return
		}
		if twice, err := Format("f", once); err != nil || string(twice) != string(once) {
			t.Errorf("%v\nonce:\n%s\ntwice:\n%s", err, once, twice)
		}
	})
}

// TestParseLine: a value of a map is the language of a file, in one line.
func TestParseLine(t *testing.T) {
	show := func(body []*Entry) string {
		var b strings.Builder
		for _, e := range body {
			fmt.Fprintf(&b, "%s[", e.Name)
			for _, v := range e.Values {
				fmt.Fprintf(&b, "<%s>", v.Text)
			}
			for _, in := range e.Body {
				fmt.Fprintf(&b, "%s", in.Name)
			}
			b.WriteByte(']')
		}
		return b.String()
	}
	for text, want := range map[string]string{
		"":                             "",
		"a = b":                        "a[<b>]",
		"a = b; c = d;":                "a[<b>]c[<d>]",
		"a = 1h 5m":                    "a[<1h 5m>]",
		"s { a = b } t { c = {d} }":    "s[a]t[c]",
		`a = { "x" "y" z w, v, }`:      "a[<x><y><z><w><v>]",
		`a = "\"\\\x41"`:               `a[<"\A>]`,
		"a = /C=US":                    "",
		"a = b # c":                    "",
		"a = b /* c */":                "a[<b /* c */>]",
		"a = b; }":                     "",
		"a = { b":                      "",
		"a":                            "",
		`a = "`:                        "",
		"a = { 1 2 3 4 5 6 7 8 9 10 }": "",
	} {
		body, err := ParseLine(text, 9)
		if got := show(body); (err == nil) != (want != "" || text == "") || got != want && err == nil {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", text, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(`session_feature=x; tls_requirements { cert_fps={"aa:bb" "cc"}; violation={tempfail, delay}; };`)
	f.Add(`a = b # c`)
	f.Fuzz(func(t *testing.T, text string) {
		var count func(body []*Entry) int
		count = func(body []*Entry) (n int) {
			for _, e := range body {
				n += 1 + len(e.Values) + count(e.Body)
			}
			return n
		}
		if body, err := ParseLine(text, 50); err == nil && count(body) > 3*50 {
			t.Errorf("%d entries and values", count(body))
		}
	})
}
