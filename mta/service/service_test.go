package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"meta1/mta/supervise"
)

// TestMain also is the program of the services under test.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "HELPER" {
		os.Exit(helper(os.Args[2:]))
	}
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "-i") && os.Args[2] == "HELPER" {
		os.Exit(helper(append(os.Args[3:], os.Args[1])))
	}
	if len(os.Args) == 2 && os.Args[1] == "MONITOR" {
		if err := Monitor(readForTest); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// readForTest reads what the configuration "meta1.conf" allows.
func readForTest(config, path, known string) (content []byte, now string, err error) {
	switch {
	case config != "meta1.conf" || path != "key.pem" && path != "large.pem":
		return nil, "", errors.New(path + " is not allowed by " + config)
	case known == "1":
		return nil, "1", nil
	case path == "large.pem":
		return make([]byte, maxRead+1), "2", nil
	}
	return []byte("the key"), "1", nil
}

// TestMonitorReads: files come from the monitor as its ReadFunc gives them.
func TestMonitorReads(t *testing.T) {
	r, err := StartMonitor(os.Args[0], []string{"MONITOR"}, nil, "meta1.conf", nil)
	if err != nil {
		t.Fatal(err)
	}
	if content, now, err := r.Read("key.pem", ""); string(content) != "the key" || now != "1" || err != nil {
		t.Errorf("%q, %q, %v", content, now, err)
	}
	if content, now, err := r.Read("key.pem", "1"); content != nil || now != "1" || err != nil {
		t.Errorf("unchanged: %q, %q, %v", content, now, err)
	}
	for path, want := range map[string]string{"/etc/shadow": "not allowed by meta1.conf", "large.pem": "larger than"} {
		if content, _, err := r.Read(path, ""); content != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", path, content, err)
		}
	}
	r.Close()
	if _, _, err := r.Read("key.pem", ""); !errors.Is(err, errGone) {
		t.Errorf("after the end: %v", err)
	}
}

func helper(args []string) int {
	switch args[0] {
	case "echo": // descriptors 0 and 1 are a connection
		fmt.Println("pid", os.Getpid(), strings.Join(args[1:], " "))
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "serve": // descriptor 0 is a listening socket; serve so many connections
		n, _ := strconv.Atoi(args[1])
		return serveConnections(os.Stdin, n)
	case "passed":
		return servePassed(args[1])
	case "append": // to a file
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return 1
		}
		fmt.Fprintln(f, "uid", os.Getuid(), strings.Join(args[2:], " "))
		_ = f.Close()
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(args[1])
		return n
	case "sleep":
		time.Sleep(time.Hour)
	case "say":
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr", strings.Join(args[1:], " "))
	}
	return 0
}

func serveConnections(f *os.File, n int) int {
	l, err := net.FileListener(f)
	if err != nil {
		return 1
	}
	for range n {
		c, err := l.Accept()
		if err != nil {
			return 2
		}
		fmt.Fprintln(c, "pid", os.Getpid())
		_ = c.Close()
	}
	return 0
}

// servePassed takes its sockets over the path and serves one connection on each.
func servePassed(path string) int {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 1
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return 2
	}
	oob := make([]byte, 1024)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return 3
	}
	files, err := received(oob[:n])
	if err != nil {
		return 4
	}
	_ = l.Close()
	for _, f := range files {
		if status := serveConnections(f, 1); status != 0 {
			return status
		}
	}
	return 0
}

func program(args ...string) Program {
	return Program{Service: "lda", Path: os.Args[0], Args: append([]string{"lda", "HELPER"}, args...), UID: -1, Dir: "/", Max: 1}
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// events are what a tree told.
type events struct {
	mu  sync.Mutex // guards all
	all []supervise.Event
	on  func(supervise.Event)
}

func (e *events) note(ev supervise.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
	if e.on != nil {
		e.on(ev)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// run keeps a service running until the test ends.
func run(t *testing.T, s Starter, c Config, on func(supervise.Event)) {
	t.Helper()
	if c.Processes == 0 {
		c.Processes = 1
	}
	units, err := Units(c, Deps{Starter: s, Log: quiet(), Metrics: NewMetrics(nil)})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := supervise.NewTree(units, (&events{on: on}).note)
	if err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(tree.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// starters runs a test with both starters.
func starters(t *testing.T, programs []Program, test func(*testing.T, Starter)) {
	t.Run("local", func(t *testing.T) {
		l := NewLocal(programs)
		t.Cleanup(l.Close)
		test(t, l)
	})
	t.Run("monitor", func(t *testing.T) {
		r, err := StartMonitor(os.Args[0], []string{"MONITOR"}, programs, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		test(t, r)
	})
}

func dialLine(t *testing.T, l net.Listener, say string) string {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	_, _ = io.WriteString(c, say)
	_ = c.(*net.UnixConn).CloseWrite()
	b, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAccept(t *testing.T) {
	p := program("echo", "x")
	p.PassID, p.Max, p.Connected = "-i", 2, true
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		l := listener(t)
		run(t, s, Config{Program: p, Action: Accept, Listeners: []net.Listener{l}, Policy: supervise.DefaultPolicy()}, nil)
		seen := map[string]bool{}
		for range 3 {
			got := strings.Fields(dialLine(t, l, "hello"))
			if len(got) != 5 || got[2] != "x" || got[3] != "-i0" && got[3] != "-i1" || got[4] != "hello" {
				t.Fatalf("answer %q", got)
			}
			seen[got[1]] = true
		}
		if len(seen) != 3 {
			t.Errorf("%d processes for 3 connections", len(seen))
		}
	})
}

// TestAcceptFails checks that failure_max ends a service that fails each request,
// and that without it each request is served.
func TestAcceptFails(t *testing.T) {
	p := program("exit", "75")
	p.Connected = true
	local := NewLocal([]Program{p})
	t.Cleanup(local.Close)
	for _, limit := range []int{0, 3} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			l := listener(t)
			failed := make(chan supervise.Event, 1)
			run(t, local, Config{Program: p, Action: Accept, Listeners: []net.Listener{l}, Policy: supervise.DefaultPolicy().WithMax(limit)}, func(e supervise.Event) {
				if e.State == supervise.Failed {
					failed <- e
				}
			})
			for range 4 {
				dialLine(t, l, "")
			}
			if limit == 0 {
				dialLine(t, l, "")
				return
			}
			if e := <-failed; e.Err == nil || e.Outcome != supervise.Fatal {
				t.Errorf("event %+v", e)
			}
		})
	}
}

func TestNoStartAccept(t *testing.T) {
	p := program("serve", "2")
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		l := listener(t)
		run(t, s, Config{Program: p, Action: NoStartAccept, Listeners: []net.Listener{l}, Policy: supervise.DefaultPolicy()}, nil)
		var pids []string
		for range 4 {
			pids = append(pids, dialLine(t, l, ""))
		}
		if pids[0] != pids[1] || pids[1] == pids[2] || pids[2] != pids[3] {
			t.Errorf("served by %q", pids)
		}
	})
}

// TestNoStartAcceptWaits checks that nothing is started without a connection.
func TestNoStartAcceptWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	p := program("append", path)
	local := NewLocal([]Program{p})
	t.Cleanup(local.Close)
	l := listener(t)
	run(t, local, Config{Program: p, Action: NoStartAccept, Listeners: []net.Listener{l}, Policy: supervise.DefaultPolicy()}, nil)
	time.Sleep(100 * time.Millisecond)
	if _, err := os.Stat(path); err == nil {
		t.Error("started without a connection")
	}
}

func TestPass(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fd")
	p := program("passed", path)
	p.PassFD = path
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		a, b := listener(t), listener(t)
		run(t, s, Config{Program: p, Action: Pass, Listeners: []net.Listener{a, b}, Policy: supervise.DefaultPolicy()}, nil)
		if x, y := dialLine(t, a, ""), dialLine(t, b, ""); x != y || x == "" {
			t.Errorf("served by %q and %q", x, y)
		}
	})
}

// TestPassToOthers: sockets are passed to the program's account and to nobody else who
// serves the path.
func TestPassToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fd")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, uid := range []int{-1, os.Getuid()} {
		if err := sendFiles(path, uid, nil); err != nil {
			t.Errorf("to user %d: %v", uid, err)
		}
	}
	if err := sendFiles(path, os.Getuid()+1, nil); err == nil || !strings.Contains(err.Error(), "is served by user") {
		t.Errorf("to another: %v", err)
	}
}

func TestWaitProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	p := program("append", path)
	p.PassID, p.Max = "-i", 2
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		_ = os.Remove(path)
		run(t, s, Config{Program: p, Action: Wait, Processes: 2, Policy: supervise.DefaultPolicy()}, nil)
		eventually(t, func() bool {
			b, _ := os.ReadFile(path)
			return strings.Contains(string(b), " -i0\n") && strings.Contains(string(b), " -i1\n")
		})
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 15_000 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("it did not happen within 5 minutes")
}

func TestWaitRestarts(t *testing.T) {
	tests := []struct {
		status string
		want   supervise.Outcome
	}{{"75", supervise.Soft}, {"69", supervise.Hard}, {"64", supervise.Fatal}}
	for _, tt := range tests {
		t.Run(tt.status, func(t *testing.T) {
			p := program("exit", tt.status)
			local := NewLocal([]Program{p})
			t.Cleanup(local.Close)
			got := make(chan supervise.Event, 10)
			policy := supervise.DefaultPolicy().WithMax(2)
			policy.Pause = time.Millisecond
			run(t, local, Config{Program: p, Action: Wait, Policy: policy}, func(e supervise.Event) {
				if e.Err != nil {
					got <- e
				}
			})
			var last supervise.Event
			for n := 1; last.State != supervise.Failed; n++ {
				last = <-got
				if want := os.Args[0] + " ended with exit status " + tt.status; last.Outcome != tt.want || last.Err.Error() != want {
					t.Fatalf("event %+v, want %v", last, tt.want)
				}
				if n > 3 {
					t.Fatal("restarted too often")
				}
			}
		})
	}
}

func TestMissingProgram(t *testing.T) {
	p := program()
	p.Path = "/nonexistent/lda"
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		_, err := s.Start("lda", 0, nil)
		if err == nil || !strings.Contains(err.Error(), "/nonexistent/lda") {
			t.Errorf("error %v", err)
		}
	})
}

// TestStarterRefuses checks what protects the monitor: nothing but the table's
// programs can be started, and nothing but those processes signalled.
func TestStarterRefuses(t *testing.T) {
	starters(t, []Program{program("sleep")}, func(t *testing.T, s Starter) {
		if _, err := s.Start("sh", 0, nil); err == nil {
			t.Error("a service that is not in the table was started")
		}
		for _, id := range []int{-1, 1} {
			if _, err := s.Start("lda", id, nil); err == nil {
				t.Errorf("process %d was started", id)
			}
		}
	})
	local := NewLocal([]Program{program("sleep")})
	defer local.Close()
	if err := local.signal(os.Getpid(), syscall.SIGTERM); err == nil {
		t.Error("a process that was not started could be signalled")
	}
	if _, err := Units(Config{Action: Accept}, Deps{}); err == nil {
		t.Error("accept without a socket was accepted")
	}
}

// TestMonitorEnds checks that programs end with the monitor's client, and that the
// client notices the end of the monitor.
func TestMonitorEnds(t *testing.T) {
	r, err := StartMonitor(os.Args[0], []string{"MONITOR"}, []Program{program("sleep")}, "meta1.conf", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start("lda", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	<-p.Done()
	if err := syscall.Kill(p.PID, 0); err != syscall.ESRCH {
		t.Errorf("process %d still runs: %v", p.PID, err)
	}

	r, err = StartMonitor(os.Args[0], []string{"MONITOR"}, []Program{program("sleep")}, "meta1.conf", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if p, err = r.Start("lda", 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.Status() != -int(syscall.SIGKILL) {
		t.Errorf("status %d", p.Status())
	}
	if _, err := r.Start("lda", 0, nil); err == nil {
		t.Error("a dead monitor started a program")
	}
}

// TestSignals checks that programs have the usual signals, whatever we do with ours.
func TestSignals(t *testing.T) {
	p := program()
	p.Path, p.Args = "/bin/sleep", []string{"sleep", "3600"}
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		proc, err := s.Start("lda", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		proc.Stop(20 * time.Second)
		if got := StatusText(proc.Status()); got != "signal terminated" {
			t.Errorf("ended with %s", got)
		}
	})
}

func TestStop(t *testing.T) {
	local := NewLocal([]Program{program("sleep")})
	defer local.Close()
	p, err := local.Start("lda", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(5 * time.Minute)
	if got := StatusText(p.Status()); got != "signal terminated" {
		t.Errorf("ended with %s", got)
	}
	p.Stop(0) // harmless
}

// TestCredential runs a program under another account.
func TestCredential(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "meta1-service-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "helper")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(exe, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := program("append", filepath.Join(dir, "out"))
	p.Path, p.UID, p.GID, p.Groups = exe, 65534, 65534, []int{65534}
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		proc, err := s.Start("lda", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Stop(5 * time.Minute)
		eventually(t, func() bool {
			b, _ := os.ReadFile(filepath.Join(dir, "out"))
			return strings.HasPrefix(string(b), "uid 65534")
		})
		_ = os.Remove(filepath.Join(dir, "out"))
	})
}

func TestLinkRefuses(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	defer c.Close()
	l := &link{conn: c.(*net.UnixConn)}
	for _, s := range []string{"\x7f\xff\xff\xff", "\x00\x00\x00\x02{]"} {
		if _, err := ours.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if f, _, err := l.read(); err == nil {
			t.Errorf("%q was read as %+v", s, f)
		}
	}
	_ = ours.Close()
	if _, _, err := l.read(); !errors.Is(err, io.EOF) {
		t.Errorf("error %v at the end", err)
	}
}

// TestOutput: a program prints to the last file of its start.
func TestOutput(t *testing.T) {
	p := program("say")
	p.Output, p.PassID, p.Max = true, "-i", 2
	starters(t, []Program{p}, func(t *testing.T, s Starter) {
		dir := t.TempDir()
		d := Deps{Starter: s, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()), Output: func(id int) (*os.File, error) {
			return os.OpenFile(fmt.Sprintf("%s/%d", dir, id), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		}}
		for id := range 2 {
			proc, err := start(Config{Program: p}, d, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			<-proc.Done()
			text, err := os.ReadFile(fmt.Sprintf("%s/%d", dir, id))
			if want := fmt.Sprintf("to stdout\nto stderr -i%d\n", id); err != nil || string(text) != want {
				t.Errorf("process %d printed %q, %v", id, text, err)
			}
		}
		d.Output = func(int) (*os.File, error) { return nil, errors.New("no such folder") }
		proc, err := start(Config{Program: p}, d, 0, nil)
		if err != nil {
			t.Fatalf("without a log file it does not run: %v", err)
		}
		<-proc.Done()
	})
}

// TestMonitorHangs: a monitor that does not answer holds nobody up for ever.
func TestMonitorHangs(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	r := newRemote(ours)
	if _, err := r.askWithin(time.Millisecond, frame{Op: opRead, Path: "key.pem"}, nil); err == nil || !strings.Contains(err.Error(), "not answered within 1ms") {
		t.Errorf("%v", err)
	}
	if len(r.waiting) != 0 {
		t.Errorf("%d questions still wait", len(r.waiting))
	}
	_ = theirs.Close()
	r.Close()
}
