package confparse

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestPipe: a configuration that is a named pipe, or includes one, is refused at once; what a shell passes by a descriptor is read.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, including := filepath.Join(dir, "pipe"), filepath.Join(dir, "conf")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(including, []byte("include \"pipe\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, including} {
		if _, err := Load(LoadOptions{}, file, &Table{}); err == nil || !strings.Contains(err.Error(), "it is a named pipe") {
			t.Errorf("%s: %v", file, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	f, err := diskFS{}.Open("/dev/fd/" + strconv.Itoa(int(r.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Close(), r.Close()
}
