package dayfiles

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/vfs"
)

// TestDir: days are kept, replaced and removed; what is damaged is put aside and named, all of it.
func TestDir(t *testing.T) {
	d := Dir{FS: vfs.Real(), Path: filepath.Join(t.TempDir(), "counts"), Max: 40}
	first := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	second := first.Add(24 * time.Hour)
	for start, text := range map[time.Time]string{first: "old", second: second.Format(time.RFC3339)} {
		if err := d.Write(start, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Write(first, []byte(first.Format(time.RFC3339))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"20261101T000000.json": "not a time", "20261102T000000.json": first.Format(time.RFC3339), "20261103T000000.json": strings.Repeat("x", 41),
		"20261104T000000.new": "half", "notes.txt": "a stranger's",
	} {
		if err := os.WriteFile(filepath.Join(d.Path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(text []byte) (string, time.Time, error) {
		start, err := time.Parse(time.RFC3339, string(text))
		return string(text), start, err
	}
	days, damaged, err := Load(&d, read)
	if err != nil || !slices.Equal(days, []string{"2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"}) {
		t.Errorf("%q, %v", days, err)
	}
	for _, want := range []string{"20261101T000000.json: parsing", "20261102T000000.json: it is about another day", "20261103T000000.json: it has more than 40 bytes"} {
		if damaged == nil || !strings.Contains(damaged.Error(), want) {
			t.Errorf("no %q in %v", want, damaged)
		}
	}
	names, err := d.FS.List(d.Path)
	slices.Sort(names)
	want := "20261101T000000.damaged 20261102T000000.damaged 20261103T000000.damaged 20261121T000000.json 20261122T000000.json notes.txt"
	if err != nil || strings.Join(names, " ") != want {
		t.Errorf("%v, %v", names, err)
	}
	if err := errors.Join(d.Remove(first), d.Remove(first)); err != nil {
		t.Error(err)
	}
	if days, damaged, err := Load(&d, read); err != nil || damaged != nil || len(days) != 1 {
		t.Errorf("%q, %v, %v", days, damaged, err)
	}
}
