package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/confparse/manual"
	"meta1/maps"
	"meta1/mta/settings"
	"meta1/queue/conf"
	"meta1/resolver/access"
	"meta1/resolver/alias"
)

// TestManuals compares the manual pages that are kept with the source with those that
// would be made now.
func TestManuals(t *testing.T) {
	want := map[string]string{"../../docs/meta1.conf.5.md": manual.Markdown((&settings.Config{}).Options())}
	ofMaps, err := mapsManual()
	if err != nil {
		t.Fatal(err)
	}
	want["../../docs/maps.md"] = ofMaps
	for name, text := range pages(newRoot(&Env{})) {
		want["../../man/"+name] = text
	}
	for file, text := range want {
		have, err := os.ReadFile(file)
		if err != nil || string(have) != text {
			t.Errorf("%s is out of date (%v): run make man", file, err)
		}
	}
	files, err := filepath.Glob("../../man/*")
	if err != nil || len(files) < 20 {
		t.Errorf("%d manual pages, %v", len(files), err)
	}
	for _, file := range files {
		if want[file] == "" {
			t.Errorf("%s is the page of nothing: remove it", file)
		}
	}
}

// TestManPages looks at what a reader needs of a page.
func TestManPages(t *testing.T) {
	all := pages(newRoot(&Env{Version: "1.2.3"}))
	for name, text := range all {
		if !strings.HasPrefix(text, ".TH ") || !strings.Contains(text, "\n.SH DESCRIPTION\n") || strings.Contains(text, "1.2.3") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	for name, want := range map[string]string{
		"meta1.1": `.B meta1 serve`, "meta1-serve.1": `.B \-f, \-\-file string`, "meta1-config-check.1": "exit status is 0",
		"meta1.conf.5": `\fBAQ_entries_max\fR (int; unit entries; default 20000`,
	} {
		if !strings.Contains(all[name], want) {
			t.Errorf("%s lacks %s:\n%.2000s", name, want, all[name])
		}
	}
}

// TestExampleFile reads the configuration that explains all options, as it is and
// with everything in it that is commented out.
func TestExampleFile(t *testing.T) {
	text := manual.Example((&settings.Config{}).Options())
	load := func(text string) error {
		_, _, err := settings.Load("/c", confparse.LoadOptions{FS: confparse.Files{"/c": text}})
		return err
	}
	if err := load(text); err != nil {
		t.Error(err)
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		at := strings.IndexByte(line, '#')
		if at < 0 || line[at+1] == ' ' || strings.Contains(line, " = ;") || strings.Contains(line, "==") {
			continue
		}
		b.WriteString(line[:at] + line[at+1:])
	}
	err := load(b.String())
	for line := range strings.Lines(err.Error()) { // sections without what they need are no matter of syntax
		if strings.Contains(line, "error: ") && !strings.Contains(line, "lacks") && !strings.Contains(line, "needs") {
			t.Error(line)
		}
	}
}

// TestSources: a manual explains options itself; MeTA1's README is named once for a
// section, as the source.
func TestSources(t *testing.T) {
	page := manual.Markdown((&settings.Config{}).Options())
	if n, chapters := strings.Count(page, "README"), strings.Count(page, "\n## "); n > chapters {
		t.Errorf("README is named %d times in %d sections", n, chapters)
	}
	for _, r := range confparse.Rows((&settings.Config{}).Options()) {
		if strings.Contains(r.Doc, "README") {
			t.Errorf("%s/%s is explained by a text that readers do not have: %s", r.Section, r.Name, r.Doc)
		}
	}
}

// TestMapsPage: the page about maps has all tags, and its examples are right.
func TestMapsPage(t *testing.T) {
	page, err := mapsManual()
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range access.Tags() {
		if !strings.Contains(page, "| `"+tag.Name+"` |") {
			t.Errorf("%s is missing", tag.Name)
		}
	}
	for _, tag := range conf.Tags() {
		if !strings.Contains(page, "| `"+tag.Name+"` |") {
			t.Errorf("%s of QMGR's map is missing", tag.Name)
		}
	}
	examples := strings.Split(page, "```\n")
	if len(examples) != 5 {
		t.Fatalf("%d examples", len(examples)/2)
	}
	for i, check := range []func(key, value string) error{
		func(key, value string) error { return access.CheckEntry(access.Tags(), key, value) }, alias.CheckEntry,
	} {
		for line := range strings.Lines(examples[2*i+1]) {
			key, value, err := maps.SplitEntry(strings.TrimSuffix(line, "\n"))
			if err == nil {
				err = check(key, value)
			}
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}
