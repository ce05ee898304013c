package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNameWhatExists: commands, targets of make, tests and files that the
// documentation names are there.
func TestDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	makefile := readFile(t, "../Makefile")
	pages := []string{"../README.md", "../ARCHITECTURE.md", "../CONTRIBUTING.md", "../SECURITY.md", "../examples/README.md"}
	more, err := filepath.Glob("../docs/*.md")
	if err != nil || len(more) < 5 {
		t.Fatal(more, err)
	}
	checks := []struct {
		pattern *regexp.Regexp
		exists  func(found []string) bool
	}{
		{regexp.MustCompile("[`\n]make ([a-z0-9]+)"), func(f []string) bool { return strings.Contains(makefile, "\n"+f[1]+":") }},
		{regexp.MustCompile("go test ([^`\n]*?)-(run|bench) ([A-Za-z]+)(?:[^`\n]*? (\\./[a-z0-9/]+))?"), func(f []string) bool {
			kind := map[string]string{"run": "Test", "bench": "Benchmark"}[f[2]]
			return hasTest(t, strings.Fields(f[1]+" "+f[4]), kind+".*"+strings.TrimPrefix(f[3], kind))
		}},
		{regexp.MustCompile("`((?:docs|examples|contrib|scripts|mta|queue|e2e|\\.ci)/[A-Za-z0-9_./-]+)`"), func(f []string) bool {
			_, err := os.Stat("../" + f[1])
			return err == nil
		}},
		{regexp.MustCompile("(?:`|`\\./|\n\\./)meta1 ([a-z]+)(?: ([a-z]+))?"), func(f []string) bool {
			_, one := os.Stat("../man/meta1-" + f[1] + ".1")
			_, two := os.Stat("../man/meta1-" + f[1] + "-" + f[2] + ".1")
			groups := strings.Contains(" config ctl queue ", " "+f[1]+" ")
			return one == nil && (!groups || f[2] == "" || two == nil)
		}},
	}
	named := 0
	for _, page := range append(pages, more...) {
		text := readFile(t, page)
		for _, c := range checks {
			for _, found := range c.pattern.FindAllStringSubmatch(text, -1) {
				named++
				if !c.exists(found) {
					t.Errorf("%s names %q, which is not there", page, strings.TrimSpace(found[0]))
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d names were found", named)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hasTest reports whether one of the packages among the words of a command has a
// function that matches.
func hasTest(t *testing.T, words []string, pattern string) bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ` + pattern)
	for _, word := range words {
		dir, ok := strings.CutPrefix(word, "./")
		if !ok {
			continue
		}
		files, err := filepath.Glob("../" + dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if function.MatchString(readFile(t, f)) {
				return true
			}
		}
	}
	return false
}
