package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestSystemd: meta1 as systemd starts it, with its sockets and a watchdog, and without root.
func TestSystemd(t *testing.T) {
	t.Parallel()
	needRoot(t, "it starts meta1 as another account")
	m := newMTA(t, settings{})
	port := m.smtp[strings.LastIndexByte(m.smtp, ':')+1:]
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	for _, path := range []string{m.dir, m.spool, m.dir + "/notify"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if path == m.spool {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	socket := func(address string) *os.File {
		t.Helper()
		l, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	// start is what systemd does: the descriptors from 3 on, the process's own id, no rights.
	start := func(files ...*os.File) *exec.Cmd {
		t.Helper()
		script := `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all "$0" serve -f "$1"`
		cmd := exec.Command("sh", "-c", script, meta1(t), m.conf)
		cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(files)), "NOTIFY_SOCKET="+m.dir+"/notify", "WATCHDOG_USEC=200000")
		cmd.ExtraFiles = files
		return cmd
	}
	// A socket that no section listens on ends the start.
	out, err := output(start(socket("127.0.0.1:0")))
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(out, "systemd passes sockets that no section of the configuration listens on: 127.0.0.1:") {
		t.Errorf("a socket too many: %v: %s", err, out)
	}

	passed := socket("127.0.0.1:" + port)
	cmd := start(passed)
	log, err := os.Create(m.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	told := map[string]int{}
	for told["READY=1"] == 0 || told["WATCHDOG=1"] < 5 {
		b := make([]byte, 1000)
		if err := notify.SetReadDeadline(time.Now().Add(hangs)); err != nil {
			t.Fatal(err)
		}
		n, err := notify.Read(b)
		if err != nil {
			m.showLog()
			t.Fatalf("after %v: %v", told, err)
		}
		told[string(b[:n])]++
	}
	k, _ := dialFrom(t, "127.0.0.1", m.smtp)
	k.say(t, "QUIT", "221")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		m.showLog()
		t.Error(err)
	}
	// The socket is systemd's, and goes on to take connections for the next start.
	c, err := net.Dial("tcp", m.smtp)
	if err != nil {
		t.Fatalf("the socket was closed: %v", err)
	}
	_ = c.Close()
}

// TestUnits: systemd itself finds nothing wrong with the units, and the one without root is as
// closed as docs/install.md says.
func TestUnits(t *testing.T) {
	t.Parallel()
	for _, units := range [][]string{{"contrib/systemd/meta1.service", "contrib/systemd/meta1.socket"}, {"examples/meta1.service"}} {
		dir := testDir(t)
		args := []string{"verify", "--recursive-errors=no", "--man=no"}
		for _, name := range units {
			path := filepath.Join(dir, filepath.Base(name))
			const line = "\nRestartPreventExitStatus=64 69 77 78\n" // package mta/exit
			if strings.HasSuffix(name, ".service") && !strings.Contains(readFile(t, "../"+name), line) {
				t.Errorf("%s does not have%s", name, line)
			}
			// verify wants the program that is started.
			writeFile(t, path, strings.ReplaceAll(readFile(t, "../"+name), "/usr/local/sbin/meta1", meta1(t)))
			args = append(args, path)
		}
		out, err := output(exec.Command("systemd-analyze", args...))
		if err != nil || strings.Contains(out, "meta1.s") {
			t.Errorf("%q: %v: %s", units, err, out)
		}
	}
	out, err := output(exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", "../contrib/systemd/meta1.service"))
	if level := regexp.MustCompile(`Overall exposure level for meta1.service: 1\.\d`).FindString(out); err != nil || level == "" {
		t.Errorf("%v: %s", err, out)
	}
}
