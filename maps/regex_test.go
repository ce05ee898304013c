package maps

import (
	"context"
	"strings"
	"testing"
)

// README 10.1.
const readmeRegex = `/bounce-[0-9]+-[0-9]+@/ei error:550 5.7.1 no numbered bounces
;user@friendly.domain;i   OK
,sender\+[a-z]+@.*\.other.domain,e   OK
`

func TestRegexREADME(t *testing.T) {
	m, err := ReadRegex(strings.NewReader(readmeRegex), "re", false)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"from:bounce-12-345@a.example":  "error:550 5.7.1 no numbered bounces",
		"from:Bounce-1-2@a.example":     "error:550 5.7.1 no numbered bounces",
		"from:bounce-x-2@a.example":     "",
		"USER@FRIENDLY.DOMAIN":          "OK",
		"user@friendly-domain":          "OK",
		"sender+abc@host.other.domain":  "OK",
		"sender@host.other.domain":      "",
		"senderrrabc@host.other.domain": "",
	} {
		v, r := m.Lookup(context.Background(), key)
		if v != want || (r == OK) != (want != "") {
			t.Errorf("%s: %q %v, want %q", key, v, r, want)
		}
	}
}

func TestRegexPOSIX(t *testing.T) {
	for _, c := range []struct {
		line string
		yes  string
		no   string
	}{
		{`/^a+b$/ x`, "a+b", "aab"},
		{`/^a+b$/e x`, "aab", "a+b"},
		{`/^a\+b$/ x`, "aab", "a+b"},
		{`/^(a)$/ x`, "(a)", "a"},
		{`/^\(a\)$/ x`, "a", "(a)"},
		{`/^a\{2\}$/ x`, "aa", "a{2}"},
		{`/^a{2}$/ x`, "a{2}", "aa"},
		{`/^a\|b$/ x`, "a", "c|d"},
		{`/^a|b$/ x`, "a|b", "a"},
		{`/^*a$/ x`, "*a", "a"},
		{`/*a/ x`, "*a", "a"},
		{`/^\(*a\)$/ x`, "*a", "a"},
		{`/a^b/ x`, "a^b", "ab"},
		{`/a$b/ x`, "a$b", "ab"},
		{`/^a*$/ x`, "aaa", "b"},
		{`/^a?$/ x`, "a?", "a"},
		{`/^[]a]$/ x`, "]", "b"},
		{`/^[^]a]$/ x`, "b", "]"},
		{`/^[\a]$/ x`, `\`, "b"},
		{`/^[\d]$/e x`, "d", "1"},
		{`/^[[:digit:]x]+$/e x`, "1x2", "y"},
		{`/^[a-c]$/ x`, "b", "d"},
		{`/^[a^]$/ x`, "^", "b"},
		{`/^\.$/ x`, ".", "a"},
		{`/^.$/ x`, "a", "ab"},
		{`/\<word\>/ x`, "a word b", "awordb"},
		{`/ABC/i x`, "abc", "abd"},
		{`/(?i)x/e v`, "", "x"},
		{"/\xc3\xbc/ v", "a\u00fcb", "ub"},
		{`|a/b|e v`, "a/b", "ab"},
	} {
		rule, err := parseRegexLine(c.line)
		if err != nil {
			if c.yes != "" {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		if c.yes != "" && !rule.re.MatchString(c.yes) {
			t.Errorf("%s (%s) does not match %q", c.line, rule.re, c.yes)
		}
		if c.yes != "" && rule.re.MatchString(c.no) {
			t.Errorf("%s (%s) matches %q", c.line, rule.re, c.no)
		}
	}
}

func TestRegexErrors(t *testing.T) {
	for text, want := range map[string]string{
		"/a/ x\n/b\n":        `f:2: second '/' is missing`,
		"/a/\n":              "no value",
		"/a/i\n":             "no value",
		"/a/x v\n":           "unknown flag",
		"// v\n":             "0 bytes",
		"/[a/ v\n":           "no end",
		`/\(a\)\1/ v` + "\n": "back-references",
		"/(a/e v\n":          "missing closing",
		`/a\/ v` + "\n":      "ends with a backslash",
		"abca v\n":           "cannot enclose",
		"/[[=a=]]/ v\n":      "not possible in brackets",
		"/" + strings.Repeat("a", 5000) + "/ v\n": "must have 1 to 4096",
	} {
		if _, err := ReadRegex(strings.NewReader(text), "f", false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}

func FuzzRegexLine(f *testing.F) {
	for _, l := range strings.Split(readmeRegex, "\n") {
		f.Add(l, "key")
	}
	f.Add(`/^\(*a\)[]\d[:alpha:]]$/ x`, "a")
	f.Fuzz(func(t *testing.T, line, key string) {
		if line == "" {
			return
		}
		if rule, err := parseRegexLine(line); err == nil {
			rule.re.MatchString(key)
			if rule.value == "" {
				t.Error("rule without value")
			}
		}
	})
}
