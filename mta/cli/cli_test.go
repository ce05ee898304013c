package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/settings"
)

func TestMain(m *testing.M) {
	env := func() Env {
		return Env{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: "1.2.3", Exit: os.Exit}
	}
	main := func() { os.Exit(Main(env())) }
	if len(os.Args) == 2 && os.Args[1] == monitorName || len(os.Args) > 2 && os.Args[1] == "lda" {
		main() // a program that meta1 under test has started
	}
	testscript.Main(m, map[string]func(){"meta1": main, "mailq": main, "sendmail": main})
}

// TestScripts runs the scripts of testdata, each a session of commands.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PORT", freePort(t))
			e.Setenv("METRICS", freePort(t))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor, "status": exitStatus, "subst": subst},
	})
}

// freePort is a port on which nobody listens now.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// waitFor repeats a command until it prints the text: waitfor TEXT COMMAND ...
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for range 15_000 {
		if ts.Exec(args[1], args[2:]...) == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("%q does not print %q", args[1:], args[0])
}

// subst replaces variables in a file: subst FILE.
func subst(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// exitStatus runs a command that must end with a status: status N COMMAND ...
func exitStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := err.(interface{ ExitCode() int }); ok {
		got = e.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s (%v)", got, args[0], err)
	}
}

func TestArguments(t *testing.T) {
	tests := map[string]string{
		"meta1 mailq": "mailq", "/usr/sbin/sendmail -t": "sendmail -t", "/usr/bin/mailq": "mailq",
		"newaliases": "ctl reload", "": "",
	}
	for args, want := range tests {
		if got := strings.Join(arguments(strings.Fields(args)), " "); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}

func TestOwnFlags(t *testing.T) {
	own, rest, err := ownFlags(strings.Fields("-t -C a.conf --server=1.2.3.4:25 -f x@y --help a@b -- -C c@d"))
	if err != nil || own != (ownOptions{"a.conf", "1.2.3.4:25", true}) || strings.Join(rest, " ") != "-t -f x@y a@b -- -C c@d" {
		t.Errorf("%+v, %q, %v", own, rest, err)
	}
	if own, _, _ := ownFlags([]string{"-Cb.conf", "--server", "s"}); own != (ownOptions{"b.conf", "s", false}) {
		t.Errorf("%+v", own)
	}
	if _, _, err := ownFlags([]string{"-C"}); status(err) != 64 {
		t.Errorf("error %v", err)
	}
}

// TestNumberOfArguments: what is wrong on the command line ends with status 64 in every command.
func TestNumberOfArguments(t *testing.T) {
	for _, line := range []string{"ctl backup", "ctl backup a b", "diff a", "createmap a b", "ctl status a", "serve a b"} {
		root := newRoot(&Env{Stdout: io.Discard, Stderr: io.Discard})
		root.SetArgs(strings.Fields(line))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); status(err) != 64 {
			t.Errorf("%s: status %d, %v", line, status(err), err)
		}
	}
}

func TestReachable(t *testing.T) {
	tests := map[control.Socket]string{
		{Network: "tcp", Address: "127.0.0.1:25"}: "127.0.0.1:25",
		{Network: "tcp", Address: "0.0.0.0:25"}:   "127.0.0.1:25",
		{Network: "tcp", Address: "[::]:25"}:      "[::1]:25",
		{Network: "tcp", Address: ":25"}:          "127.0.0.1:25",
		{Network: "unix", Address: "/run/s"}:      "/run/s",
	}
	for l, want := range tests {
		if got := reachable(l); got != want {
			t.Errorf("%v: %s, want %s", l, got, want)
		}
	}
}

func queueEntries() []control.Entry {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	e := control.Entry{TA: "S000000000000000200", Arrival: at, Size: 1500, Sender: "s@a.test", Rcpt: "x@b.test", State: msg.StateDeferred, NextTry: at.Add(time.Hour), Attempts: 2, Reason: "451 4.3.0 later\x1b[2J"}
	second := e
	second.Rcpt, second.State, second.RcptID, second.Reason = "y@b.test", msg.StateInFlight, "S000000000000000200-000001", "being delivered"
	second.NextTry = time.Time{}
	third := control.Entry{TA: "S000000000000000300", Arrival: at, Size: 10, Rcpt: "z@c.test", State: msg.StateHeld, Reason: "held"}
	return []control.Entry{e, second, third}
}

func list(t *testing.T, entries []control.Entry, asJSON bool) string {
	t.Helper()
	var b bytes.Buffer
	l := lister{out: bufio.NewWriter(&b), zone: time.UTC}
	l.print = l.text
	if asJSON {
		l.print = l.json
	}
	for _, e := range entries {
		if err := l.add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.end(asJSON); err != nil {
		t.Fatal(err)
	}
	if err := l.out.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMailq compares listings with testdata/mailq.txt and mailq.json.
func TestMailq(t *testing.T) {
	if got := list(t, nil, false); got != "Mail queue is empty\n" {
		t.Errorf("empty: %q", got)
	}
	for name, asJSON := range map[string]bool{"mailq.golden": false, "mailq-json.golden": true} {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if got := list(t, queueEntries(), asJSON); err != nil || got != string(want) {
			t.Errorf("%s (%v)\n%s", name, err, got)
		}
	}
}

func TestStatusText(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s := control.Status{
		Version: "1", Hostname: "mx.test", PID: 7, Started: at, Spool: "/spool", Config: "/etc/x.conf",
		Configuration: control.Configuration{
			Generation: 3, Since: at.Add(time.Minute), Failed: at.Add(30 * time.Minute), Errors: []string{"x.conf:3:1: no"},
			NeedRestart: []confparse.Change{{Option: "user", Old: "a", New: "b\x1b", Reload: confparse.Restart, Why: "it is so"}},
		},
		Listen:  []control.Socket{{Section: "smtps", Network: "tcp", Address: "127.0.0.1:25"}},
		Modules: []control.Module{{Name: "qmgr", State: "up", Since: at, Restarts: 1, Error: "bro\x1bken", Values: []control.Value{{Name: "accepting", Text: "yes"}, {Name: "AQ_entries", Number: 1 << 40}}}},
	}
	var b bytes.Buffer
	if err := printStatus(&b, &s, at.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/status.golden")
	if err != nil || b.String() != string(want) {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// TestHints checks that hints name the configuration only where they must.
func TestHints(t *testing.T) {
	t.Setenv("META1_CONF", "")
	t.Chdir(t.TempDir())
	path, err := filepath.Abs(quickSocket)
	if err != nil {
		t.Fatal(err)
	}
	s := control.Status{Config: "/x.conf", Listen: []control.Socket{
		{Section: "smtps", Address: "127.0.0.1:2525"}, {Section: "metrics", Address: "127.0.0.1:9025"}, {Section: "control", Address: path},
	}}
	if got := hintText("./meta1", s); !strings.Contains(got, "./meta1 sendmail user@localhost\n") || !strings.Contains(got, "curl http://127.0.0.1:9025/metrics\n") {
		t.Errorf("%s", got)
	}
	s.Listen[2].Address = "/elsewhere"
	if got := hintText("./meta1", s); !strings.Contains(got, "./meta1 sendmail -C /x.conf user@localhost\n") || !strings.Contains(got, "./meta1 mailq -f /x.conf\n") {
		t.Errorf("%s", got)
	}
}

func TestRoff(t *testing.T) {
	if got, want := roff(".a\n'b -c\\"), "\\&.a\n\\&'b \\-c\\e"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPrintHosts(t *testing.T) {
	var b bytes.Buffer
	err := printHosts(&b, control.Hosts{More: true, TriedLast: []control.Family{{Family: "IPv6", Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Reason: "451 4.4.1 network is unreachable"}}, Providers: []control.Provider{
		{Provider: "big", InUse: 3, Max: 20, Waiting: 7, Rate: 299.6, RateMax: 600, Interval: "1m0s", Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Reason: "421 4.7.28 slow\x1b"},
		{Provider: "other", Interval: "1m0s"},
	}, Hosts: []control.Host{
		{Host: "mx.test[192.0.2.1]:25", State: msg.HostClosed, Max: 100, Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Reason: "451 4.4.1 no\x1b[2J"},
		{Host: "mx.big[192.0.2.9]:25", State: msg.HostServes, InUse: 3, Window: 12, Max: 100, Waiting: 7, TLS: "TLSv1.3", Verify: "dane", Provider: "big"},
		{Host: "/run/lmtp", State: msg.HostServes, InUse: 3, Window: 12, Max: 100, Waiting: 7, TLS: "none"},
	}}, time.UTC)
	const want = `IPv6 does not work, and its hosts are tried last, until Jan  2 03:04:05: 451 4.4.1 network is unreachable
PROVIDER  IN USE  MAX  RATE    RATE MAX  WAITING  REASON
big       3       20   300/1m  600/1m    7        until Jan  2 03:04:05: 421 4.7.28 slow?
other     0       -    -       -         0        

HOST                   STATE   IN USE  WINDOW  MAX  WAITING  TLS           PROVIDER  REASON
mx.test[192.0.2.1]:25  closed  0       0       100  0        -             -         until Jan  2 03:04:05: 451 4.4.1 no?[2J
mx.big[192.0.2.9]:25   serves  3       12      100  7        TLSv1.3 dane  big       
/run/lmtp              serves  3       12      100  7        none          -         
there are more
`
	if got := b.String(); err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
}

// TestMeTA1Options: the options of MeTA1's programs do what those of the configuration do.
func TestMeTA1Options(t *testing.T) {
	parse := func(args ...string) (*settings.Config, error) {
		var o meta1Options
		c := &cobra.Command{RunE: func(*cobra.Command, []string) error { return nil }, SilenceErrors: true, SilenceUsage: true}
		o.flags(c)
		c.SetArgs(args)
		if err := c.Execute(); err != nil {
			return nil, err
		}
		set, err := o.assignments()
		if err != nil {
			return nil, err
		}
		const text = "qmgr { smtpc { connections_max = 20; initial_connections = 5; } } smar { access_map { } } " +
			"smtps { flags = { 8bitmime }; listen_socket { port = 25; } }"
		conf, _, err := settings.Load("/m.conf", confparse.LoadOptions{FS: confparse.Files{"/m.conf": text}, Set: set})
		return conf, err
	}
	c, err := parse("-C", "30", "-c", "7", "-O", "R=8", "-O", "O=9", "-a", "-T", "-L", "/var/log/meta1")
	if err != nil {
		t.Fatal(err)
	}
	q, f := c.Queue.SMTPC, c.Servers[0].Server.Flags
	if q.Max != 30 || q.Initial != 7 || c.Queue.SMTPS.RateMax != 8 || c.Queue.SMTPS.ConnectionsMax != 9 ||
		!f.Access || !f.LMTPDoesNotImplyRelaying || !f.EightBitMIME || c.LogDirectory != "/var/log/meta1" {
		t.Errorf("%+v %+v %+v %s", q, c.Queue.SMTPS, f, c.LogDirectory)
	}
	if c, err = parse(); err != nil || c.Queue.SMTPC.Max != 20 || c.Servers[0].Server.Flags.Access {
		t.Errorf("without options: %v", err)
	}
	for _, args := range [][]string{{"-O", "X=1"}, {"-O", "R"}, {"-O", "R=-1"}, {"-C", "2"}, {"-C", "many"}, {"-x", "1"}} {
		if _, err := parse(args...); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
