package e2e

import (
	"bufio"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestUpgradeAfterReload: an upgrade passes the sockets on that are in effect after a reload, not those of
// the start.
func TestUpgradeAfterReload(t *testing.T) {
	t.Parallel()
	l := newLineage(t, settings{})
	l.begin()
	text, err := os.ReadFile(l.conf)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(old, now string) {
		t.Helper()
		writeFile(t, l.conf, strings.Replace(string(text), old, now, 1))
		if out, err := l.command("ctl", "reload"); err != nil {
			t.Fatalf("ctl reload: %v: %s", err, out)
		}
	}
	upgrade := func() {
		t.Helper()
		if r := l.upgrade(); !r.Done {
			t.Fatal(r.Error)
		}
	}
	greets := func(network, address string) bool {
		c, err := net.Dial(network, address)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(hangs))
		line, _ := bufio.NewReader(c).ReadString('\n')
		return strings.HasPrefix(line, "220 ")
	}
	socket := l.spool + "/in"
	reload("listen_socket", "listen_socket { type = unix; path = in; } listen_socket")
	before, err := os.Stat(socket)
	if err != nil || !greets("unix", socket) {
		t.Fatalf("no greeting after the reload: %v", err)
	}
	upgrade()
	if after, err := os.Stat(socket); err != nil || !os.SameFile(before, after) || !greets("unix", socket) || !greets("tcp", l.smtp) {
		t.Fatalf("it is another socket after the upgrade: %v", err)
	}

	// The new process has a socket that goes, and the next one begins without it.
	reload("", "")
	upgrade()
	if _, err := os.Stat(socket); err == nil || !greets("tcp", l.smtp) {
		t.Errorf("the socket that went: %v", err)
	}
	l.stopAll()
}
