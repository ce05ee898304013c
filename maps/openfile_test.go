package maps

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPipe: a map that became a named pipe is refused at once; nobody waits for somebody who writes into it.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() error{
		"text":   func() error { _, err := OpenText(path, false); return err },
		"regex":  func() error { _, err := OpenRegex(path, false); return err },
		"cdb":    func() error { _, err := OpenCDB(path, false); return err },
		"passwd": func() error { _, err := OpenPasswd(path, false); return err },
		"lock":   func() error { _, err := lockFile(path); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, err := OpenText(os.DevNull, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, result := m.Lookup(t.Context(), "x"); result != NotFound {
		t.Errorf("the null device: %v", result)
	}
}
