package listen_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"meta1/mta/listen"
)

// TestHanded takes sockets of another process: what nobody takes is no error and stays open until Close, which
// removes the paths of those alone that are ours to remove.
func TestHanded(t *testing.T) {
	dir := t.TempDir()
	sockets := map[string]listen.Passed{}
	for _, name := range []string{"taken", "ours", "systemd's"} {
		l, err := listen.Bind(unix(filepath.Join(dir, name)))
		if err != nil {
			t.Fatal(err)
		}
		p := listen.Passed{Listener: l, Unlink: name != "systemd's"}
		p.KeepPath(true)
		sockets[name] = p
	}
	in := listen.Handed([]listen.Passed{sockets["systemd's"], sockets["taken"], sockets["ours"]})
	if l, ok := in.Take(unix(filepath.Join(dir, "taken"))); !ok || !l.Unlink {
		t.Errorf("%+v, %v", l, ok)
	}
	if _, ok := in.Take(unix(filepath.Join(dir, "taken"))); ok {
		t.Error("it was taken twice")
	}
	if err := in.Unused(); err != nil {
		t.Error(err)
	}
	c, err := net.Dial("unix", filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatalf("it was closed: %v", err)
	}
	_ = c.Close()
	in.Close()
	for name, want := range map[string]bool{"taken": true, "ours": false, "systemd's": true} {
		if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that goes on to serve is given up without its path: another process has it.
	taken := sockets["taken"]
	_ = taken.Close()
	if _, err := os.Lstat(filepath.Join(dir, "taken")); err != nil {
		t.Error(err)
	}
	var none *listen.Inherited
	none.Close()
	if _, ok := none.Take(unix("x")); ok {
		t.Error("a socket of nobody")
	}
}
