package mta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/lda"
	"meta1/mta/logfmt"
	"meta1/mta/msg"
	"meta1/mta/service"
	"meta1/mta/store"
	"meta1/mta/supervise"
	"meta1/queue/fsck"
)

// TestMain also is the monitor, and the process that drops its privileges.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "MONITOR" {
		if err := service.Monitor(ReadForServer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "SERVE" {
		os.Exit(serveProcess(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == "LDA" {
		os.Exit(ldaProcess(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == "FSCK" {
		_, err := Fsck(context.Background(), FsckSetup{
			File: os.Args[2], Repair: true, Rebuild: true, Report: func(fsck.Finding) {}, Exit: os.Exit, Stderr: os.Stderr,
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(exit.Status(err))
	}
	goleak.VerifyTestMain(m)
}

// TestTwoMTAs lets one MTA send mail to another in the same process, which delivers it
// to a delivery agent by LMTP: nothing may be global.
func TestTwoMTAs(t *testing.T) {
	box := deliveryAgent(t)
	b := startAs(t, "b.test", "b.test lmtp:\na.test 1^esmtp:[127.0.0.1]\n", `smtpc { LMTP_socket = "`+box+`/lmtp"; }`)
	_, port, _ := net.SplitHostPort(b.address("smtps"))
	a := startAs(t, "a.test", ". "+port+"^esmtp:[127.0.0.1]\n", "")

	const n = 20
	for i := range n {
		text := fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", i)
		if err := smtp.SendMail(a.address("smtps"), nil, "s@a.test", []string{"joe@b.test"}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "arrival of all messages", func() bool {
		names, _ := os.ReadDir(box + "/mail/joe/new")
		return len(names) == n
	})
	eventually(t, "an empty queue", func() bool {
		left := 0
		for _, m := range []*running{a, b} {
			if err := m.control.Queue(t.Context(), func(control.Entry) error { left++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return left == 0
	})
	a.stop()
	b.stop()
	for _, m := range []*running{a, b} {
		if log := m.log.String(); !strings.Contains(log, "event=end, elapsed") || strings.Contains(log, "sev=ERR") {
			t.Errorf("log\n%s", log)
		}
		if _, err := os.Stat(m.dir + "/spool/control"); err == nil {
			t.Error("the control socket is left behind")
		}
	}
}

// TestStatus looks at a running MTA in all the ways that there are.
func TestStatus(t *testing.T) {
	r := start(t, "", "")
	for path, want := range map[string]string{
		"/healthz": "ok\n", "/readyz": "ok\n", "/metrics": "meta1_mta_module_up{module=\"qmgr\"} 1\n",
		"/debug/pprof/": "goroutine",
	} {
		if status, body := r.get(path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.300s", path, status, body)
		}
	}
	if status, _ := r.get("/nothing"); status != 404 {
		t.Errorf("/nothing: %d", status)
	}
	s, err := r.control.Status(t.Context())
	if err != nil || s.Version != "1.2" || s.Hostname != "mx.test" || s.PID != os.Getpid() || s.Spool != r.dir+"/spool" {
		t.Errorf("status %+v, %v", s, err)
	}
	var units []string
	for _, m := range s.Modules {
		units = append(units, m.Name+" "+m.State)
		if len(m.Values) == 0 {
			t.Errorf("%s tells nothing of itself", m.Name)
		}
	}
	if got, want := strings.Join(units, ", "), "smar up, smtpc up, qmgr up, smtps up"; got != want {
		t.Errorf("modules %s, want %s", got, want)
	}
	if h, err := r.control.Health(t.Context()); err != nil || !h.OK {
		t.Errorf("health %+v, %v", h, err)
	}
	eventually(t, "the log", func() bool { return strings.Contains(r.log.String(), "event=ready") })
}

// TestQueueListing queues mail for a host that refuses connections.
func TestQueueListing(t *testing.T) {
	r := start(t, ". 1^esmtp:[127.0.0.1]\n", "")
	if err := smtp.SendMail(r.address("smtps"), nil, "s@a.test", []string{"a@b.test", "c@d.test"}, []byte("Subject: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	var all []control.Entry
	eventually(t, "two deferred recipients", func() bool {
		all = nil
		if err := r.control.Queue(t.Context(), func(e control.Entry) error { all = append(all, e); return nil }); err != nil {
			t.Fatal(err)
		}
		return len(all) == 2 && strings.Contains(all[0].Reason+all[1].Reason, "refused")
	})
	if e := all[1]; e.Sender != "s@a.test" || e.Rcpt != "c@d.test" || !strings.HasSuffix(e.RcptID, "-000001") || !strings.HasPrefix(e.RcptID, e.TA) {
		t.Errorf("entry %+v", e)
	}
	// An operation takes the identifiers that the listing gives.
	for _, c := range []struct {
		o    control.Operation
		done int
	}{
		{control.Operation{Op: msg.OpHold, RcptID: all[1].RcptID}, 1},
		{control.Operation{Op: msg.OpHold, RcptID: all[1].TA + "-000002"}, 0},
		{control.Operation{Op: msg.OpRelease, TA: all[0].TA, RcptID: all[1].RcptID}, 1},
	} {
		if done, err := r.control.Operate(t.Context(), c.o); err != nil || done.Done != c.done {
			t.Errorf("%+v: %+v, %v", c.o, done, err)
		}
	}
	eventually(t, "both are held", func() bool { // what was released may be tried just now
		if _, err := r.control.Operate(t.Context(), control.Operation{Op: msg.OpHold, TA: all[0].TA}); err != nil {
			t.Fatal(err)
		}
		held := 0
		if err := r.control.Queue(t.Context(), func(e control.Entry) error {
			if e.State == msg.StateHeld {
				held++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return held == 2
	})
	other := control.Operation{Op: msg.OpHold, TA: "S00000000000FFFFF00", RcptID: all[1].RcptID}
	for _, o := range []control.Operation{{Op: msg.OpHold, RcptID: "nonsense"}, {Op: msg.OpHold, RcptID: all[0].TA}, other} {
		if done, err := r.control.Operate(t.Context(), o); err == nil {
			t.Errorf("%+v: %+v", o, done)
		}
	}
}

func TestReload(t *testing.T) {
	r := start(t, "a.test 1^esmtp:[127.0.0.1]\n", "")
	report, err := r.control.Reload(t.Context())
	if err != nil || len(report.Errors) > 0 || len(report.NeedRestart) > 0 || strings.Join(report.Reloaded, " ") != "smar qmgr smtps" {
		t.Errorf("%+v, %v", report, err)
	}
	write(t, r.dir+"/meta1.conf", config(r.dir, "smtpc { log_level = 14; IO_timeout = 7m; }"))
	report, err = r.control.Reload(t.Context())
	if err != nil || len(report.NeedRestart) > 0 || strings.Join(paths(report.Changed), " ") != "smtpc/IO_timeout smtpc/log_level" {
		t.Errorf("%+v, %v", report, err)
	}
	write(t, r.dir+"/mt", "a.test nonsense:x:y:z\n")
	write(t, r.dir+"/meta1.conf", "hostnme = x;")
	report, err = r.control.Reload(t.Context())
	if err != nil || len(report.Errors) < 2 || !strings.Contains(report.Errors[0], "meta1.conf:1:1") {
		t.Errorf("%+v, %v", report, err)
	}
	if h, err := r.control.Health(t.Context()); err != nil || !h.OK {
		t.Errorf("health after a failed reload: %+v, %v", h, err)
	}
	r.signals <- syscall.SIGUSR1
	eventually(t, "statistics in the log", func() bool { return strings.Count(r.log.String(), "event=statistics") >= 4 })
}

func TestSignals(t *testing.T) {
	r := start(t, "", "log_file = log;")
	log := r.dir + "/spool/log"
	if err := os.Rename(log, log+".0"); err != nil {
		t.Fatal(err)
	}
	r.signals <- syscall.SIGUSR2
	eventually(t, "a new log file", func() bool { _, err := os.Stat(log); return err == nil })
	r.signals <- syscall.SIGTERM
	if err := r.group.Wait(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "event=signal, signal=terminated\n") || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("log %s, %v", text, err)
	}
	if s := r.log.String(); s != "" {
		t.Errorf("on standard error: %s", s)
	}
}

// TestService keeps a delivery agent as a service.
func TestService(t *testing.T) {
	r := start(t, "", `lda { start_action = accept; path = "/bin/cat"; listen_socket { type = unix; path = sock; } }
		broken { start_action = wait; path = "/bin/false"; failure_max = 1; }`)
	c, err := net.Dial("unix", r.dir+"/spool/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	b := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	const reason = "service broken was given up: /bin/false ended with exit status 1"
	eventually(t, "the broken service is given up", func() bool {
		h, err := r.control.Health(t.Context())
		return err == nil && !h.OK && slices.Equal(h.Reasons, []string{reason})
	})
	if s, err := r.control.Status(t.Context()); err != nil || s.Health.OK || !slices.Equal(s.Health.Reasons, []string{reason}) {
		t.Errorf("status says %+v (%v)", s.Health, err)
	}
	if status, body := r.get("/readyz"); status != 503 || body != reason+"\n" {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, body := r.get("/healthz"); status != 200 || body != "ok\nwarning: "+reason+"\n" { // a restart would not help
		t.Errorf("/healthz: %d %s", status, body)
	}
}

// TestFails checks that a start that fails says why and leaves nothing behind.
func TestFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	tests := map[string]struct {
		prepare func(dir string)
		extra   string
		status  int
		want    string
	}{
		"configuration": {nil, "smtps x { }", exit.Config, "section smtps x lacks listen_socket"},
		"port in use": {
			nil, "smtps x { id = 1; listen_socket { port = " + port + "; address = 127.0.0.1; } }", exit.Unavailable,
			"smtps x: cannot listen on 127.0.0.1:" + port + " (listen_socket at DIR/meta1.conf:6:42): address already in use",
		},
		"address not there": {
			nil, "smtps x { id = 1; listen_socket { port = 2525; address = 192.0.2.1; } }", exit.TempFail,
			"smtps x: cannot listen on 192.0.2.1:2525 (listen_socket at DIR/meta1.conf:6:42): ",
		},
		"socket path": {
			nil, "x { path = x; start_action = accept; listen_socket { type = unix; path = \"no/x\"; } }", exit.Unavailable,
			"x: cannot listen on DIR/spool/no/x (listen_socket at DIR/meta1.conf:6:74): no such file or directory",
		},
		"spool is a file": {func(dir string) { write(t, dir+"/spool", "") }, "", exit.CantCreate, "DIR/spool: not a directory"},
		"mailertable":     {func(dir string) { write(t, dir+"/mt", "a.test nonsense:x:y:z\n") }, "", exit.Config, "DIR/mt:1"},
		"no mailertable":  {func(dir string) { _ = os.Remove(dir + "/mt") }, "", exit.Config, "DIR/mt"},
		"socket owner": {
			nil, "x { path = x; start_action = accept; listen_socket { type = unix; path = x; user = \"no-such-user\"; } }", exit.Config,
			`listen_socket of section x: there is no user "no-such-user"`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			write(t, dir+"/meta1.conf", config(dir, tt.extra))
			write(t, dir+"/mt", "")
			write(t, dir+"/access", "")
			if tt.prepare != nil {
				tt.prepare(dir)
			}
			before, _ := os.ReadDir(dir)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var log logBuffer
			err := Run(ctx, Setup{File: dir + "/meta1.conf", Version: "1", Executable: os.Args[0], Stderr: &log})
			want := strings.ReplaceAll(tt.want, "DIR", dir)
			if exit.Status(err) != tt.status || !strings.Contains(err.Error(), want) {
				t.Errorf("status %d, %v\nwant %d, %s", exit.Status(err), err, tt.status, want)
			}
			after, _ := os.ReadDir(dir)
			if len(after) != len(before) {
				t.Errorf("left behind: %v", after)
			}
		})
	}
}

// TestInUse checks that a second MTA does not touch the spool of a first.
func TestInUse(t *testing.T) {
	r := start(t, "", "")
	write(t, r.dir+"/second.conf", strings.Replace(config(r.dir, ""), "qmgr {", "qmgr { control_socket = other;", 1))
	var log logBuffer
	err := Run(t.Context(), Setup{File: r.dir + "/second.conf", Stderr: &log})
	if exit.Status(err) != exit.Unavailable || !strings.Contains(err.Error(), fmt.Sprintf("in use: another meta1 runs in it (process %d)", os.Getpid())) {
		t.Errorf("error %v", err)
	}
	if h, err := r.control.Health(t.Context()); err != nil || !h.OK {
		t.Errorf("the first: %+v, %v", h, err)
	}
}

// TestEndAtOnce checks that a second INT does not wait for anything.
func TestEndAtOnce(t *testing.T) {
	m := &mta{logs: &logs{stderr: logfmt.NewWriter(io.Discard)}, log: slog.New(slog.DiscardHandler), conf: &Config{}}
	m.endUnits = func() {}
	ended := 0
	m.setup.Exit = func(status int) { ended = status }
	m.signal(t.Context(), syscall.SIGINT)
	m.signal(t.Context(), syscall.SIGTERM)
	if ended != 0 {
		t.Errorf("ended with %d", ended)
	}
	m.signal(t.Context(), syscall.SIGINT)
	if ended != 130 {
		t.Errorf("ended with %d, want 130", ended)
	}
	ended = 0
	m.fatal(errors.New("disk broke"))
	if ended != exit.IOErr {
		t.Errorf("ended with %d, want %d", ended, exit.IOErr)
	}
}

func TestExplainStore(t *testing.T) {
	for _, cause := range []error{store.ErrDamaged, store.ErrVersion, store.ErrInUse} {
		err := explainStore(fmt.Errorf("ibdb: %w", cause))
		if !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), ")") {
			t.Errorf("%v", err)
		}
	}
	if err := errors.New("other"); explainStore(err) != err {
		t.Error("another error was changed")
	}
}

// TestPrivileges starts an MTA as root, with a service under an account of its own. The
// server must have no privileges left, the service its account, and what they need
// must be theirs.
func TestPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(config(dir, `who {
		start_action = accept; user = daemon; path = "/usr/bin/id"; listen_socket { type = unix; path = sock; umask = 0; } }
		server { start_action = accept; path = "/usr/bin/id"; listen_socket { type = unix; path = sock2; umask = 0; } }`),
		"allow_root = true;", "user = nobody;", 1)
	t.Run("monitor", func(t *testing.T) {
		testPrivileges(t, dir, conf, map[string]string{"sock": "uid=1(daemon) gid=1(daemon) groups=1(daemon)", "sock2": "uid=65534(nobody)"})
	})
	t.Run("no monitor", func(t *testing.T) { // a service under the account of the server needs none
		testPrivileges(t, dir, strings.Replace(conf, "user = daemon;", "", 1), map[string]string{"sock": "uid=65534(nobody)", "sock2": "uid=65534(nobody)"})
	})
}

// testPrivileges serves in a process of its own; services are what id says on their sockets.
func testPrivileges(t *testing.T, dir, conf string, services map[string]string) {
	write(t, dir+"/meta1.conf", conf)
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	cmd := exec.Command(os.Args[0], "SERVE", dir+"/meta1.conf")
	var log logBuffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &log)
		}
	}()
	who, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "Groups:\t65534 \n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if threads := strings.Count(string(who), "Name:"); threads < 2 || strings.Count(string(who), want) != threads {
			t.Errorf("not all of %d threads have %q:\n%s\n%s", threads, want, who, &log)
		}
	}
	for socket, want := range services {
		c, err := net.Dial("unix", dir+"/spool/"+socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
		if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("the service at %s runs as %s (%v), want %s\n%s", socket, b, err, want, &log)
		}
		_ = c.Close()
	}
	for _, name := range []string{"", "/lock", "/control", "/defedb"} {
		info, err := os.Stat(dir + "/spool" + name)
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Errorf("%s does not belong to nobody: %v", name, err)
		}
	}
}

// serveProcess serves in a process of its own, for tests that change its account.
func serveProcess(file string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	err := Run(context.Background(), Setup{
		File: file, Version: "1", Executable: os.Args[0], MonitorArgs: []string{"MONITOR"}, Stderr: os.Stderr, Signals: signals,
		Exit: os.Exit,
		Ready: func(s control.Status, _ *Config) {
			for _, l := range s.Listen {
				fmt.Printf("listen %s %s\n", l.Section, l.Address)
			}
			threads, _ := filepath.Glob("/proc/self/task/*/status")
			for _, name := range threads {
				who, _ := os.ReadFile(name)
				fmt.Printf("%s", who)
			}
			if dir := os.Getenv("PROBE"); dir != "" {
				probe(dir)
			}
			_ = os.Stdout.Close()
		},
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
	}
	return exit.Status(err)
}

// TestLogDirectory: with log_directory each section has a log file of its own, also what
// a service's program prints, and USR2 opens all of them again.
func TestLogDirectory(t *testing.T) {
	logs := shortDir(t)
	r := start(t, "", `log_directory = "`+logs+`";
		cry { start_action = wait; path = "/bin/sh"; arguments = "sh -c echo\\ hello"; pass_id = "-i"; use_id_in_logfile_name = on; failure_max = 1; }`)
	has := func(name, what string) {
		t.Helper()
		eventually(t, what+" in "+name, func() bool {
			text, _ := os.ReadFile(logs + "/" + name)
			return strings.Contains(string(text), what)
		})
	}
	has("mta.log", "event=ready")
	has("qmgr.log", "event=queue is open")
	if conn, err := net.Dial("tcp", r.address("smtps")); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
		has("smtps.log", "client_ip=127.0.0.1")
	}
	for _, name := range []string{"mta.log", "qmgr.log", "smar.log", "smtpc.log", "smtps.log", "cry.log", "cry0.log"} {
		if err := os.Rename(logs+"/"+name, logs+"/"+name+".0"); err != nil {
			t.Error(err)
		}
	}
	r.signals <- syscall.SIGUSR2
	eventually(t, "the files are opened again", func() bool {
		for _, name := range []string{"mta.log", "qmgr.log", "smar.log", "smtpc.log", "smtps.log", "cry.log"} {
			if _, err := os.Stat(logs + "/" + name); err != nil {
				return false
			}
		}
		return true
	})
	if text := r.log.String(); strings.Contains(text, "module=qmgr") {
		t.Errorf("qmgr logs to standard error, too:\n%s", text)
	}
}

// TestMistypedRules: rules that can have no effect keep nobody from running, and the log
// names them at the start and at each reload.
func TestMistypedRules(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", config(dir, ""))
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "cltaddr:127. relay\nto:bob@example.org REJCT\n")
	r := startIn(t, dir)
	has := func(line string, n int) {
		t.Helper()
		eventually(t, line, func() bool { return strings.Count(r.log.String(), line) == n })
	}
	has("access:2:1", 1)
	write(t, dir+"/access", "cltaddr:127. relay\nto:bob@example.org reject\ncltadr:10. relay\n")
	r.signals <- syscall.SIGHUP
	has("access:3:1", 1)
	has("did you mean cltaddr:?", 1)
	has("access:2:1", 1)
}

// deliveryAgent runs a delivery agent on the socket lmtp of a directory, which puts mail below mail in it.
func deliveryAgent(t *testing.T) (box string) {
	t.Helper()
	box = shortDir(t)
	l, err := net.Listen("unix", box+"/lmtp")
	if err != nil {
		t.Fatal(err)
	}
	agent := supervise.NewGroup(context.Background())
	agent.Go(func(ctx context.Context) error {
		return lda.Run(ctx, lda.Options{MailDir: box + "/mail", Create: true, Listener: l, Hostname: "box.test"})
	})
	t.Cleanup(func() {
		agent.Stop()
		if err := agent.Wait(); err != nil {
			t.Error(err)
		}
	})
	return box
}
