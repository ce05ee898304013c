package mailutils

import (
	"fmt"
	"strings"
	"testing"

	"meta1/confparse/syntax"
)

// dump writes statements in one line, strings in quotes.
func dump(list []*Stmt) string {
	var parts []string
	for _, s := range list {
		text := s.Keyword
		for _, a := range s.Args {
			var values []string
			for _, v := range a.Values {
				if v.Quoted {
					values = append(values, fmt.Sprintf("%q", v.Text))
				} else {
					values = append(values, v.Text)
				}
			}
			if joined := strings.Join(values, ","); a.List {
				text += " (" + joined + ")"
			} else {
				text += " " + joined
			}
		}
		if s.Block {
			text += " {" + dump(s.Body) + "}"
		} else {
			text += ";"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func TestLoad(t *testing.T) {
	files := Map{
		"/etc/pies.inc": "b two;\n", "/etc/conf.d/": "", "/etc/conf.d/pmult": "c three;", "/etc/empty.d/": "",
		"/etc/loop": "include main;", "/etc/sub/x": "include y;", "/etc/sub/y": "y 1;",
	}
	for _, c := range []struct{ text, want, wrong string }{
		{"listen inet://127.0.0.1:3333;", "listen inet://127.0.0.1:3333;", ""},
		{"a 1; # one\nb 2; // two\n/* three; # */ c /**/ 3;", "a 1; b 2; c 3;", ""},
		{"client { type milter; read-timeout 5 minutes; }; x;", "client {type milter; read-timeout 5 minutes;} x;", ""},
		{"client mf {} client \"two words\" { url unix:/x; }", `client mf {} client "two words" {url unix:/x;}`, ""},
		{"define-macros (mail, rcpt) (auth_type,auth_author , );", "define-macros (mail,rcpt) (auth_type,auth_author);", ""},
		{`t "a\tb\n\"\\" "second" ;u "x` + "\\\n" + `y";`, `t "a\tb\n\"\\second"; u "xy";`, ""},
		{"t <<EOT\nline \\\"one\\\"\n\ttwo\nEOT\n;", `t "line \"one\"\n\ttwo\n";`, ""},
		{"t <<-EOT\n\tone\n\tEOT;\nx;", `t "one\n"; x;`, ""},
		{"t <<- \"E\"\n   one\\n\n   E\n;", `t "one\\n\n";`, ""},
		{"t <<\\E\n\\t\nE;", `t "\\t\n";`, ""},
		{"include pies.inc; a 1;", "b two; a 1;", ""},
		{"include conf.d; include empty.d;", "c three;", ""},
		{"include sub/x;", "y 1;", ""},
		{"program pmult { a 1; } program calloutd { b 2; } c 3;", "c 3; a 1;", ""},
		{"program pmult { program pmult { a 1; } }", "program pmult {a 1;}", ""},

		{"include /none;", "", "main:1:9: error: including \"/none\": open /none: file does not exist"},
		{"include loop;", "", "/etc/loop:1:9: error: \"/etc/main\" includes itself"},
		{"a 1", "", "main:1:4: error: the statement a ends in the end of the file"},
		{"a 1\nb { c 2; ", "a 1 b {c 2;}", "/etc/main:2:3: error: the block a has no end"},
		{"a \"x;", "", "this string has no end"},
		{"/* x", "", "this comment has no end"},
		{"a 1; } b 2;", "a 1; b 2;", "main:1:6: error: this } closes nothing"},
		{"log-level >info; b 1;", "log-level info; b 1;", "\">\" is not part of a word"},
		{"a (b c); d 1;", "d 1;", "\"c\" stands in a list"},
		{"a (b, (c)); d 1;", "d 1;", "\"(\" stands in a list"},
		{"1a x; b 1;", "b 1;", "\"1a\" is not a keyword"},
		{"\"a\" x; b 1;", "b 1;", "\"a\" is not a keyword"},
		{"t <<EOT\nx", "", "this here-document has no end"},
		{"t <<\"\\", "", "this here-document has no marker"},
		{"t \"\\", "", "this string has no end"},
		{"t <<EOT x\nEOT;", "", "this here-document has no marker"},
		{"program { a 1; }", "", "program without a name"},
		{strings.Repeat("a {", 40), "", "blocks are nested more than 32 deep"},
		{strings.Repeat("a;", 120000), "", "there are more than 100000 statements and values"},
		{"a b c { x; }", "a b c {x;}", "the block a has more than one tag"},
	} {
		name := c.text[:min(len(c.text), 40)]
		files["/etc/main"] = c.text
		f, err := Load(files, "/etc/main", "pmult")
		if err != nil {
			t.Fatal(name, err)
		}
		if c.wrong == "" && f.Err() != nil || c.wrong != "" && (f.Err() == nil || !strings.Contains(f.Err().Error(), c.wrong)) {
			t.Errorf("%q: %v, want %q", name, f.Err(), c.wrong)
		}
		if got := dump(f.Stmts); got != c.want && (c.wrong == "" || c.want != "") {
			t.Errorf("%q: %s, want %s", name, got, c.want)
		}
	}
	if _, err := Load(files, "/none", "pmult"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestWarning(t *testing.T) {
	f, err := Load(Map{"m": `a "b\qc";`}, "m", "p")
	if err != nil || f.Err() != nil || len(f.Diags.Warnings) != 1 || dump(f.Stmts) != `a "bqc";` {
		t.Errorf("%v %v %v %s", err, f.Err(), f.Diags.Warnings, dump(f.Stmts))
	}
}

// FuzzLoad reads arbitrary text. It must end; what it says must be fit for a terminal; what
// it accepts must be the same when written and read again.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		"listen inet://127.0.0.1:3333;\nclient x { url \"a b\"; log-level \">info\"; read-timeout 5 minutes; };\n",
		"define-macros (mail, rcpt) (a,b); t <<- EOT\n x\n EOT;", "include m; program p { a 1; } /* */ // #\n} {", "a \"\\q\\\n\" \"b\";",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Load(Map{"m": text}, "m", "p")
		if err != nil {
			return
		}
		said := fmt.Sprint(file.Err(), file.Diags.Warnings)
		for _, c := range said {
			if c != '\n' && syntax.IsControl(c) {
				t.Errorf("%q in a message: %q", c, said)
			}
		}
		if file.Err() != nil {
			return
		}
		again, err := Load(Map{"m": write(file.Stmts)}, "m", "none")
		if err != nil || again.Err() != nil || dump(again.Stmts) != dump(file.Stmts) {
			t.Errorf("%q: %v %v\n%s\n%s", text, err, again.Err(), dump(file.Stmts), dump(again.Stmts))
		}
	})
}

// write writes statements so that they can be read again.
func write(list []*Stmt) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteString(s.Keyword)
		for _, a := range s.Args {
			if a.List {
				b.WriteString("(")
			}
			for j, v := range a.Values {
				switch {
				case !v.Quoted:
					b.WriteString(" " + v.Text)
				default:
					b.WriteString(` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v.Text) + `"`)
				}
				if a.List && j < len(a.Values)-1 {
					b.WriteString(",")
				}
			}
			if a.List {
				b.WriteString(")")
			}
		}
		if s.Block {
			b.WriteString("{" + write(s.Body) + "}\n")
		} else {
			b.WriteString(";\n")
		}
	}
	return b.String()
}
