package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meta1/mta/tlsconf/tlstest"
)

// said is what a process has told systemd.
type said struct {
	text string
	pid  int
}

// TestUpgradeSystemd: systemd with NotifyAccess=main hears of the new process from the old one, and then from the new one alone;
// systemctl reload upgrades only if there is another binary.
func TestUpgradeSystemd(t *testing.T) {
	t.Parallel()
	m := newLineage(t, settings{mailertable: ". 1^esmtp:[127.0.0.1]\n"})
	path := m.dir + "/notify"
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	raw, err := notify.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	heard := make(chan said, 10_000)
	go func() {
		b, oob := make([]byte, 1000), make([]byte, 100)
		for {
			n, oobn, _, _, err := notify.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			s := said{text: string(b[:n])}
			if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
				if cred, err := unix.ParseUnixCredentials(&messages[0]); err == nil {
					s.pid = int(cred.Pid)
				}
			}
			heard <- s
		}
	}()
	next := func() said {
		t.Helper()
		select {
		case s := <-heard:
			return s
		case <-time.After(hangs):
			t.Fatal("nothing is told to systemd")
			return said{}
		}
	}
	m.env = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}
	m.begin()
	if out, err := m.command("ctl", "upgrade", "--or-reload"); err != nil || !strings.Contains(out, "reloaded: ") {
		t.Errorf("the binary is the same: %v: %s", err, out)
	}
	m.install(meta1(t))
	old := m.pid
	out, err := m.command("ctl", "upgrade", "--or-reload")
	if err != nil || !strings.Contains(out, fmt.Sprintf("upgraded from e2e (process %d) to e2e (process ", old)) {
		t.Fatalf("%v: %s", err, out)
	}
	_, _ = fmt.Sscanf(out[strings.LastIndex(out, "(process "):], "(process %d)", &m.pid)
	main, ready := old, 0
	for range 1000 {
		s := next()
		if s.pid != main {
			t.Fatalf("process %d says %q, and %d is the main one", s.pid, s.text, main)
		}
		if s.text == "READY=1" {
			ready++
		}
		if s.text == fmt.Sprintf("MAINPID=%d\nREADY=1", m.pid) {
			main = m.pid
		}
		if main == m.pid && s.text == "WATCHDOG=1" {
			break
		}
	}
	if ready != 1 || main != m.pid {
		t.Errorf("ready %d times, the main process is %d", ready, main)
	}
	m.stopAll()
	for {
		if s := next(); s.text == "STOPPING=1" {
			if s.pid != m.pid {
				t.Errorf("process %d stops", s.pid)
			}
			return
		}
	}
}

// TestUpgradeAsRoot: started as root, with a key that only root may read, the new process gets that key, and
// does not keep root's rights either. It is not started if others can choose what root would start.
func TestUpgradeAsRoot(t *testing.T) {
	t.Parallel()
	needRoot(t, "it starts meta1 as root")
	m := newLineage(t, settings{
		mailertable: ". 1^esmtp:[127.0.0.1]\n",
		smtps:       `tls { cert_file = "mx.pem"; key_file = "mx.key"; }`,
	})
	tlstest.SelfSigned(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}}).Write(t, m.dir, "mx")
	m.begin()
	for range 2 { // the second is started by the monitor of the first
		if r := m.upgrade(); !r.Done {
			t.Fatalf("%+v", r)
		}
		status := readFile(t, fmt.Sprintf("/proc/%d/status", m.pid))
		says(t, status, "Uid:\t65534\t65534\t65534\t65534", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1")
		k, err := dial(m.smtp)
		if err != nil {
			t.Fatal(err)
		}
		if reply, err := k.cmd("STARTTLS"); err != nil || !strings.HasPrefix(reply, "220") {
			t.Errorf("STARTTLS: %s, %v", reply, err)
		}
		k.close()
	}
	// Nobody takes the place of the binary for root.
	m.stopAll()
	if err := os.Chmod(filepath.Dir(m.program), 0o777); err != nil {
		t.Fatal(err)
	}
	m.begin()
	if r := m.upgrade(); r.Done || !strings.Contains(r.Error, "others than root can change what that is: everybody may write "+filepath.Dir(m.program)) {
		t.Errorf("%+v", r)
	}
	m.stopAll()
}

// TestUpgradeInContainer: process 1 cannot be replaced, and says so.
func TestUpgradeInContainer(t *testing.T) {
	t.Parallel()
	needRoot(t, "it makes a name space of processes")
	m := newLineage(t, settings{mailertable: ". 1^esmtp:[127.0.0.1]\n"})
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", meta1(t), "serve", "-f", m.conf)
	cmd.Dir = m.dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	must(t, func() error { _, err := m.command("healthcheck"); return err })
	if r := m.upgrade(); r.Done || !strings.Contains(r.Error, "process 1 of a container") {
		t.Errorf("%+v", r)
	}
	if out, err := m.command("ctl", "stop"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
