package server

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/server/condition"
)

// loadText reads options as loadConfig does; the section begins on the first line.
func loadText(options string) (Config, *confparse.Result, error) {
	var cfg Config
	root := &confparse.Table{Options: []confparse.Option{{
		Name: "smtps", Kind: confparse.KindSection, Sub: cfg.Options(), Readme: "3.10", Doc: "x",
	}}}
	result, err := confparse.Load(confparse.LoadOptions{FS: confparse.Files{"/m.conf": "smtps {\n" + options + "\n}"}}, "/m.conf", root)
	return cfg, result, err
}

// TestConditionPlaces: a mistake in a condition has its place in the file, also behind
// comments, strings with marks, and line ends.
func TestConditionPlaces(t *testing.T) {
	for options, want := range map[string]string{
		`check mail { condition == mial =~ "x"; action = abort; }`: `/m.conf:2:27: error: condition: unknown identifier "mial"
    check mail { condition == mial =~ "x"; action = abort; }
                              ^~~~
    did you mean mail?`,
		`check connect { condition == 1 == 1; action = abort; }
check mail {
  action = permfail;
  condition == mail =~ "a;{}#" /* a comment
     of two lines */ && # another
     rcpt =~ "b";
}`: `/m.conf:7:6: error: condition: rcpt is not known at the stage mail, only from rcpt on
    rcpt =~ "b";
    ^~~~`,
		"check mail { condition == \"é\" =~ \"(\"; action = abort; }": `/m.conf:2:34: error: condition: error parsing regexp: missing closing ): ` + "`(`" + `
    check mail { condition == "é" =~ "("; action = abort; }
                                     ^~~`,
		`check connect { condition == mail =~ "x"; action = abort; }`:         `/m.conf:2:30: error: condition: mail is not known at the stage connect, only from mail on`,
		`check connect { condition == cipher_bits < 128; action = abort; }`:   `/m.conf:2:30: error: condition: cipher_bits is not known at the stage connect`,
		`check data { condition == message_id =~ "x"; action = abort; }`:      `message_id is not known at the stage data, only from eom on`,
		`check mail { condition == mail; action = abort; }`:                   `/m.conf:2:27: error: condition: mail is a string, expected a condition`,
		`check mail { condition == 1 == 1`:                                    `expected ";"`,
		`check ehlo { condition == 1 == 1; action = abort; }`:                 `"ehlo" is no name of a section check`,
		`check mail { condition == 1 == 1; action = reject; }`:                `action`,
		`check { condition == 1 == 1; action = abort; }`:                      `section check needs a name`,
		`check mail { condition = "1 == 1"; action = abort; }`:                `condition`,
		`check rcpt { condition == transactions > ; action = abort; }`:        `/m.conf:2:41: error: condition: condition ends where an operand is expected`,
		`check eom { condition == hops > 10 hops; action = abort; }`:          `/m.conf:2:36: error: condition: unexpected "hops", expected an operator`,
		`check eom { condition == 1 == 1 / 0; action = abort; }`:              `/m.conf:2:31: error: condition: division by zero`,
		`check eom { condition == strcmp(hops, 5) == 0; action = permfail; }`: `/m.conf:2:39: error: condition: 5 is a number, expected a string`,
	} {
		_, _, err := loadText(options)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v\nwant\n%s", options, err, want)
		}
	}
}

// TestConditionWarnings: identifiers that never have a value are told of.
func TestConditionWarnings(t *testing.T) {
	for options, want := range map[string]string{
		`check connect { condition == client_name =~ "x"; action = abort; }`:                          "/m.conf:2:30 client_name never has a value without the flag access",
		`flags = { access }; check connect { condition == client_name =~ "x"; action = abort; }`:      "",
		`check mail { condition == tls_version =~ "x"; action = abort; }`:                             "/m.conf:2:27 tls_version never has a value without a section tls",
		`check mail { condition == auth_authen =~ "x"; action = abort; }`:                             "/m.conf:2:27 auth_authen never has a value without a section auth",
		`check rcpt { condition == rcpt =~ "x"; action = abort; }`:                                    "",
		`check data { condition == rcpt =~ "x"; action = abort; }`:                                    "/m.conf:2:27 at this stage rcpt is the last recipient alone",
		`check data { condition == transaction_rcpts_ok > 1 && 1 == 1; action = abort; }`:             "",
		`check mail { condition == mail =~ "x" || strcmp(cipher, "") == 0; action = abort; }`:         "/m.conf:2:49 cipher never has a value without a section tls",
		`check mail { condition == /* mail */ client_resolve =~ "no"; action = abort; } # no comment`: "/m.conf:2:38 client_resolve never has a value without the flag access",
	} {
		_, result, err := loadText(options)
		if err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		var got []string
		for _, w := range result.Warnings {
			if text, ok := strings.CutPrefix(w.Message, "condition: "); ok {
				got = append(got, w.Pos.String()+" "+text)
			}
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
}

// TestBadConditionByHand: a Config that was not read from a file is refused, too.
func TestBadConditionByHand(t *testing.T) {
	for _, k := range []Check{
		{Stage: "mail", Action: actionAbort, Condition: "1 +"},
		{Stage: "ehlo", Action: actionAbort, Condition: "1 == 1"},
	} {
		if _, err := New(Config{Checks: []Check{k}}, newFakeMTA().deps()); err == nil {
			t.Errorf("%+v was taken", k)
		}
	}
}

// TestChecksPage: the examples of docs/checks.md are read without mistakes and warnings, and
// its table of identifiers is that of the program.
func TestChecksPage(t *testing.T) {
	page, err := os.ReadFile("../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, d := range condition.Docs() {
		table.WriteString("| `" + d.Name + "` | " + d.Type + " | " + d.From + " | " + d.Text + " |\n")
	}
	if !strings.Contains(string(page), "|---|---|---|---|\n"+table.String()) {
		t.Errorf("the table of docs/checks.md is not\n%s", table.String())
	}
	examples := regexp.MustCompile("(?ms)^```(|text)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	var stages, actions []string
	for _, e := range examples {
		if e[1] == "text" {
			continue
		}
		if inside, ok := strings.CutPrefix(e[2], "smtps {\n"); ok {
			e[2] = strings.TrimSuffix(inside, "}\n")
		}
		cfg, result, err := loadText("flags = { access };\ntls { }\nauth { }\nauthentication { }\n" + e[2])
		if err != nil {
			t.Errorf("%s\n%v", e[2], err)
			continue
		}
		for _, w := range result.Warnings {
			if strings.HasPrefix(w.Message, "condition") {
				t.Errorf("%s\n%v", e[2], w)
			}
		}
		for _, k := range cfg.Checks {
			stages, actions = append(stages, k.Stage), append(actions, k.Action)
		}
	}
	for _, s := range condition.StageNames() {
		if !slices.Contains(stages, s) {
			t.Errorf("docs/checks.md has no example of check %s", s)
		}
	}
	for _, a := range []string{actionPermfail, actionTempfail, actionAbort} {
		if !slices.Contains(actions, a) {
			t.Errorf("docs/checks.md has no example of the action %s", a)
		}
	}
}

// TestLookupWarnings: flags and sections that need another flag are told of.
func TestLookupWarnings(t *testing.T) {
	for options, want := range map[string]string{
		"flags = { lookup_session_conf };": "/m.conf:2:11 the flag lookup_session_conf has no effect without the flag access",
		"flags = { rcpt_conf };":           "/m.conf:2:11 the flag rcpt_conf has no effect without the flag access",
		"flags = { access, lookup_session_conf, rcpt_conf }; session_features x { }":      "",
		"flags = { access };\nsession_features x { flags = { -starttls, !dsn, xverp }; }": "/m.conf:3:1 session_features has no effect without the flag lookup_session_conf",
	} {
		_, result, err := loadText(options)
		if err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		var got []string
		for _, w := range result.Warnings {
			got = append(got, w.Pos.String()+" "+w.Message)
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
}

// TestFeatureWords: every extension but those that are mere words of EHLO's reply can be
// turned off, by the words of README 3.10 among others.
func TestFeatureWords(t *testing.T) {
	for _, w := range []string{"starttls", "auth", "chunking", "prdr", "pipelining", "8bitmime", "dsn", "xverp"} {
		if !slices.Contains(featureWords(), w) {
			t.Errorf("%s cannot be turned off", w)
		}
	}
	if n := len(featureWords()); n != int(extCount)-2 {
		t.Errorf("%d words for %d extensions", n, extCount)
	}
	if _, _, err := loadText("session_features x { flags = { -help }; }"); err == nil {
		t.Error("help is a feature")
	}
}

// TestExtensionsPage: the example of session_features in docs/extensions.md is read without
// mistakes and warnings.
func TestExtensionsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/extensions.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```\nsmtps \\{\n(.*?)\\}\n```").FindStringSubmatch(string(page))
	if example == nil {
		t.Fatal("docs/extensions.md has no example")
	}
	cfg, result, err := loadText(example[1])
	if err != nil || len(result.Warnings) > 0 || len(cfg.SessionFeatures) == 0 {
		t.Errorf("%s\n%v %v", example[1], err, result.Warnings)
	}
}
