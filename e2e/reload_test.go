package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestReload: a reload of the running program is one step. A mistake changes nothing and is told with
// its place, a check changes nothing, and a client that is connected keeps what it began with. HUP and
// USR1 do the same.
func TestReload(t *testing.T) {
	t.Parallel()
	m := newMTA(t, settings{mailertable: ". lmtp:\n"})
	m.start()
	text := readFile(t, m.conf)
	change := func(smtps string) {
		writeFile(t, m.conf, strings.Replace(text, "\nsmtps {", "\nsmtps { "+smtps, 1))
	}
	dial := func() (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := net.Dial("tcp", m.smtp)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			t.Fatalf("%q, %v", line, err)
		}
		return conn, in
	}
	conn, in := dial()
	defer conn.Close()
	size := func(conn net.Conn, in *bufio.Reader) (size string) {
		t.Helper()
		if _, err := fmt.Fprint(conn, "EHLO x\r\n"); err != nil {
			t.Fatal(err)
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if i := strings.Index(line, "SIZE "); i > 0 {
				size = strings.TrimSpace(line[i+5:])
			}
			if strings.HasPrefix(line, "250 ") {
				return size
			}
		}
	}
	now := func() string {
		t.Helper()
		conn, in := dial()
		defer conn.Close()
		return size(conn, in)
	}
	first := size(conn, in)
	reload := func(status int, want string, args ...string) {
		t.Helper()
		out, err := m.command(append([]string{"ctl", "reload"}, args...)...)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != status || !strings.Contains(out, want) {
			t.Errorf("%q: status %d, %s", args, code, out)
		}
	}

	writeFile(t, m.dir+"/mt", "a.test nonsense:x:y:z\n")
	change("message_size_max = 77;")
	reload(78, "mt:1:")
	if got := now(); got != first {
		t.Errorf("SIZE %s after a reload that failed", got)
	}
	writeFile(t, m.dir+"/mt", ". lmtp:\n")
	reload(0, "smtps/message_size_max: 10000KB -> 77KB (new sessions)", "--check")
	if got := now(); got != first {
		t.Errorf("SIZE %s after a check", got)
	}
	reload(0, `"generation": 2`, "--json")
	if got := now(); got != "78848" {
		t.Errorf("SIZE %s after a reload", got)
	}
	if got := size(conn, in); got != first {
		t.Errorf("SIZE %s in a session that began before", got)
	}
	writeFile(t, m.conf, "CDB_base_directory = elsewhere;\n"+text)
	reload(0, "elsewhere (needs a restart: the queue stays where it is while meta1 runs)")
	if out, err := m.command("ctl", "status"); err != nil || !strings.Contains(out, "needs a restart") {
		t.Errorf("%v\n%s", err, out)
	}
	for n, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
		change(fmt.Sprintf("message_size_max = %d;", 78+n))
		if err := m.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint((78 + n) << 10)
		must(t, func() error {
			if got := now(); got != want {
				return fmt.Errorf("SIZE %s after %v, want %s", got, s, want)
			}
			return nil
		})
	}
}
