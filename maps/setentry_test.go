package maps

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestSetEntry(t *testing.T) {
	for _, tt := range []struct{ name, old, key, value, want string }{
		{"new", "", "a", "1", "a\t1\n"},
		{"new behind others", "# c\nb 2\n", "a", "1", "# c\nb 2\na\t1\n"},
		{"no line end", "b 2", "a", "1", "b 2\na\t1\n"},
		{"replaced", "a 1\nb 2\n", "a", "3", "a\t3\nb 2\n"},
		{"continued lines", "a 1\n  more\n# c\n  and more\nb 2\n  of b\n", "a", "3", "a\t3\n# c\nb 2\n  of b\n"},
		{"in any case", "Alice: 1\n", "alice", "2", "alice\t2\n"},
		{"twice", "a 1\nb 2\na 3\n", "a", "4", "a\t4\nb 2\n"},
		{"removed", "a 1\nb 2\n", "a", "", "b 2\n"},
		{"a part of a key", "ab 1\n", "a", "2", "ab 1\na\t2\n"},
		{"CR LF", "a 1\r\nb 2\r\n", "b", "3", "a 1\r\nb\t3\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "map")
			if err := os.WriteFile(path, []byte(tt.old), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := SetEntry(path, tt.key, tt.value); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tt.want {
				t.Errorf("%q %v, want %q", got, err, tt.want)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v %v", info.Mode(), err)
			}
		})
	}
}

func TestSetEntryMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	if err := SetEntry(path, "a", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	const old = "b 2\n"
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range [][2]string{{"a b", "1"}, {"a", "1\n"}, {"a\nb", "1"}, {"a", " 1"}, {"a", "1 "}, {"#a", "1"}, {"", "1"}, {"a", ""}} {
		if err := SetEntry(path, e[0], e[1]); err == nil {
			t.Errorf("%q is accepted", e)
		}
	}
	if err := SetEntry(path, "a", ""); !errors.Is(err, ErrNoEntry) {
		t.Errorf("removed what is not there: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != old {
		t.Errorf("the file became %q", got)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("%d files are left", len(names))
	}
}

// TestSetEntryAtOnce: of many that change the file at a time none loses the entry of
// another.
func TestSetEntryAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := SetEntry(path, fmt.Sprintf("key%d", i), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := os.ReadFile(path)
	if err != nil || strings.Count(string(got), "\n") != 20 {
		t.Errorf("%v\n%s", err, got)
	}
}
