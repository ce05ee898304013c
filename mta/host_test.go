package mta

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/account"
	"meta1/mta/exit"
)

func TestSpool(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a/b")
	s, err := openSpool(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.take(); err != nil {
		t.Fatal(err)
	}
	other, err := openSpool(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.take(); exit.Status(err) != exit.Unavailable || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("a second lock: %v", err)
	}
	other.undo(nil)
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		t.Errorf("the lock of the first is gone: %v", err)
	}
	s.undo(nil)
	if _, err := os.Stat(filepath.Join(base, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("undo left the directory behind: %v", err)
	}
}

func TestSpoolRefused(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "x")} {
		if _, err := openSpool(dir, nil); exit.Status(err) != exit.CantCreate || !strings.Contains(err.Error(), dir+": not a directory") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := os.Mkdir(filepath.Join(base, "spool"), 0o755); err != nil {
		t.Fatal(err)
	}
	stranger := &account.Account{Name: "stranger", UID: 4711, GID: 4711, Groups: []int{4711}}
	if _, err := openSpool(filepath.Join(base, "spool"), stranger); exit.Status(err) != exit.NoPerm || !strings.Contains(err.Error(), "cannot be written by user stranger: permission denied") {
		t.Errorf("error %v", err)
	}
}
