package mta

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"meta1/confparse"
)

// dialogue is a connection to a server.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// talk begins a dialogue that is greeted.
func (r *running) talk(t *testing.T) *dialogue {
	t.Helper()
	return r.talkTo(t, r.address("smtps"))
}

// talkTo is talk with the server at an address.
func (r *running) talkTo(t *testing.T, address string) *dialogue {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &dialogue{t, conn, bufio.NewReader(conn)}
	d.hear("220 ")
	return d
}

// say sends a line and waits for a reply with a line that ends as wanted.
func (d *dialogue) say(line, want string) {
	d.t.Helper()
	if _, err := fmt.Fprintf(d.conn, "%s\r\n", line); err != nil {
		d.t.Fatal(err)
	}
	d.hear(want)
}

func (d *dialogue) hear(want string) {
	d.t.Helper()
	var all []string
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			d.t.Fatalf("%q, %v", all, err)
		}
		all = append(all, strings.TrimSpace(line))
		if len(line) > 3 && line[3] == ' ' {
			break
		}
	}
	if !strings.Contains(strings.Join(all, "\n"), want) {
		d.t.Errorf("%q, want %q", all, want)
	}
}

// TestReloadClasses: each option says when a change takes effect, and why that takes a restart.
func TestReloadClasses(t *testing.T) {
	restart := 0
	for _, r := range confparse.Rows(new(Config).Options()) {
		switch {
		case r.Reload == confparse.Restart && r.Why == "":
			t.Errorf("%s/%s needs a restart and does not say why", r.Section, r.Name)
		case r.Reload == confparse.Restart:
			restart++
		case r.Reload != confparse.AtOnce && r.Reload != confparse.NewSessions && r.Reload != confparse.NoEffect:
			t.Errorf("%s/%s: %q", r.Section, r.Name, r.Reload)
		}
	}
	t.Logf("%d options and sections need a restart", restart)
}

// TestReloadIsOneStep: a mistake in any part leaves every part as it was, all mistakes are told at
// once, and a check changes nothing.
func TestReloadIsOneStep(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	file := r.dir + "/meta1.conf"
	change := func(smtps, extra string) {
		text := config(r.dir, extra)
		write(t, file, strings.Replace(text, "flags = { access, 8bitmime };", "flags = { access, 8bitmime }; "+smtps, 1))
	}
	generation := func() (int, int) {
		s, err := r.control.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Configuration.Generation, len(s.Configuration.Errors)
	}
	try := func(rcpt, want string) {
		t.Helper()
		if reply := r.offer("smtps", "127.0.0.1", "x@a.test", rcpt); !strings.HasPrefix(reply, want) {
			t.Errorf("%s: %s, want %s", rcpt, reply, want)
		}
	}
	// The new mailertable and the new limit would do, the certificate would not.
	write(t, r.dir+"/mt", "a.test lmtp:\nb.test nonsense:x:y:z\n")
	change("invalid_addresses_per_session_max = 7; tls { cert_file = \"no.pem\"; key_file = \"no.key\"; }", "")
	report, err := r.control.Reload(t.Context())
	errs := strings.Join(report.Errors, "\n")
	if err != nil || !strings.Contains(errs, "no.pem") || !strings.Contains(errs, "no.key") || !strings.Contains(errs, "mt:2:") || len(report.Changed) > 0 || report.Generation != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if n, failed := generation(); n != 1 || failed == 0 {
		t.Errorf("generation %d, %d errors", n, failed)
	}
	try("y@a.test", "250")

	write(t, r.dir+"/mt", "a.test lmtp:\n")
	change("invalid_addresses_per_session_max = 7;", "CDB_base_directory = other;")
	if report, err = r.control.CheckReload(t.Context()); err != nil || !report.Check || report.Generation != 2 || len(report.NeedRestart) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if n, _ := generation(); n != 1 {
		t.Errorf("generation %d after a check", n)
	}
	report, err = r.control.Reload(t.Context())
	want := confparse.Change{Option: "smtps/invalid_addresses_per_session_max", Old: "200", New: "7", Reload: confparse.NewSessions}
	if len(report.Changed) == 1 {
		want.Where = report.Changed[0].Where
	}
	if err != nil || len(report.Errors) > 0 || len(report.Changed) != 1 || report.Changed[0] != want || !strings.HasPrefix(want.Where, file+":") {
		t.Errorf("%+v, %v", report, err)
	}
	if n := report.NeedRestart; len(n) != 1 || n[0].Option != "CDB_base_directory" || n[0].Why == "" {
		t.Errorf("%+v", n)
	}
	if n, failed := generation(); n != 2 || failed > 0 {
		t.Errorf("generation %d, %d errors", n, failed)
	}
	change("", "")
	if report, err = r.control.Reload(t.Context()); err != nil || len(report.NeedRestart) > 0 || len(report.Changed) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestReloadKeepsSessions: a session goes on with the options with which it began, while later ones
// have the new ones.
func TestReloadKeepsSessions(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	change := func(smtps string) {
		t.Helper()
		write(t, r.dir+"/meta1.conf", strings.Replace(config(r.dir, ""), "flags = { access, 8bitmime };", "flags = { access, 8bitmime }; "+smtps, 1))
		if report, err := r.control.Reload(t.Context()); err != nil || len(report.Errors)+len(report.NeedRestart) > 0 {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	old := r.talk(t)
	old.say("EHLO x", "SIZE 10240000")
	change("message_size_max = 77; greeting = \"new\";")
	old.say("EHLO x", "SIZE 10240000")
	now := r.talk(t)
	now.say("EHLO x", "SIZE 78848")
	change("threads_max = 1;")
	now.say("EHLO x", "SIZE 78848")
	conn, err := net.Dial("tcp", r.address("smtps"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&dialogue{t, conn, bufio.NewReader(conn)}).hear("421 4.3.2")
	change("")
	last := r.talk(t)
	last.say("EHLO x", "SIZE 10240000")
	r.signals <- syscall.SIGHUP
	eventually(t, "the generation of a signal", func() bool {
		s, err := r.control.Status(t.Context())
		return err == nil && s.Configuration.Generation == 5
	})
}
