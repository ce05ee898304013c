package listen_test

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/listen"
)

func unix(path string) listen.Socket {
	return listen.Socket{Network: "unix", Path: path, Mode: 0o660, UID: -1, GID: -1, Section: "lda", Where: "meta1.conf:7"}
}

func TestAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	bound, err := listen.All([]listen.Socket{{Network: "tcp4", Host: "127.0.0.1"}, unix(path)})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("socket has mode %v (%v)", info.Mode(), err)
	}
	for _, l := range bound {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	listen.Close(bound)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket is left behind: %v", err)
	}
}

func TestAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	taken, err := listen.Bind(listen.Socket{Network: "tcp4", Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := netip.MustParseAddrPort(taken.Addr().String())
	first := filepath.Join(dir, "first")
	_, err = listen.All([]listen.Socket{unix(first), {Network: "tcp4", Host: "127.0.0.1", Port: addr.Port(), Section: "smtps", Where: "meta1.conf:12"}})
	want := "smtps: cannot listen on " + addr.String() + " (meta1.conf:12): address already in use: another program listens there"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first socket is left behind: %v", err)
	}
}

func TestUnix(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := listen.Bind(unix(stale))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if _, err := listen.Bind(unix(stale)); err == nil || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("a served socket: %v", err)
	}
	_ = l.Close()
	l, err = listen.Bind(unix(stale))
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	_ = l.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ path, want string }{
		"a file":       {file, "lda: cannot listen on " + file + " (meta1.conf:7): there is a file that is not a socket"},
		"no directory": {filepath.Join(dir, "no/s"), "no such file or directory"},
		"too long":     {filepath.Join(dir, strings.Repeat("x", 110)), "a Unix socket allows 103"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := listen.Bind(unix(tt.path)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "keep" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
}

func TestNoSuchAddress(t *testing.T) {
	_, err := listen.Bind(listen.Socket{Network: "tcp4", Host: "192.0.2.1", Port: 25, Section: "smtps"})
	if err == nil || !strings.Contains(err.Error(), "no interface of this host has the address") {
		t.Errorf("error %v", err)
	}
}

// TestGive gives a socket away, and nothing else that stands at its path by then.
func TestGive(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	const other = 987654
	dir := t.TempDir()
	bind := func(path string) listen.Socket {
		t.Helper()
		s := unix(path)
		s.UID, s.GID = other, other
		l, err := listen.Bind(s)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		t.Cleanup(func() { _ = l.Close() })
		return s
	}
	owner := func(path string) uint32 {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid
	}
	s := bind(dir + "/s")
	if err := listen.Give(s, 0); err != nil || owner(s.Path) != other {
		t.Errorf("owner %d, %v", owner(s.Path), err)
	}
	if err := listen.Give(s, 0); err == nil {
		t.Error("another account's socket was given away")
	}
	foreign := map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(dir+"/foreign", path) },
		"hard":   func(path string) error { return os.Link(dir+"/foreign", path) },
		"socket": func(path string) error { return os.Link(dir+"/foreign.sock", path) },
	}
	if err := os.WriteFile(dir+"/foreign", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bind(dir + "/foreign.sock")
	for name, put := range foreign {
		s := bind(dir + "/" + name)
		if err := errors.Join(os.Remove(s.Path), put(s.Path)); err != nil {
			t.Fatal(err)
		}
		if err := listen.Give(s, 0); err == nil || !strings.Contains(err.Error(), "changing its owner: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if owner(dir+"/foreign") != 0 || owner(dir+"/foreign.sock") != 0 {
		t.Error("something else has changed its owner")
	}
}
