package confparse

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// golden compares got with a file, or rewrites it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs. got:\n%s\nwant:\n%s", file, got, want)
	}
}

// inTestdata runs f for each .conf file of a folder, in that folder.
func inTestdata(t *testing.T, folder string, f func(t *testing.T, root *Table, file string)) {
	root := func() *Table { return specTable(t) }
	tables := map[string]*Table{}
	files, err := filepath.Glob("testdata/" + folder + "/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no files: ", err)
	}
	for _, file := range files {
		tables[file] = root()
	}
	t.Chdir("testdata/" + folder)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".conf"), func(t *testing.T) { f(t, tables[file], name) })
	}
}

// TestErrors compares the diagnostics of each file in testdata/errors with the
// .want file beside it.
func TestErrors(t *testing.T) {
	inTestdata(t, "errors", func(t *testing.T, root *Table, file string) {
		_, err := Load(LoadOptions{}, file, root)
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("no errors: %v", err)
		}
		cwd, err2 := os.Getwd()
		if err2 != nil {
			t.Fatal(err2)
		}
		golden(t, strings.TrimSuffix(file, ".conf")+".want", strings.ReplaceAll(err.Error(), cwd, "CWD")+"\n")
	})
}
