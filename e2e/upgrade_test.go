package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// upgradeRounds is how often a test upgrades: a few times, or as often as META1_UPGRADES says.
func upgradeRounds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("META1_UPGRADES")); err == nil {
		return n
	}
	return few
}

// lineage is a meta1 that is upgraded, as the process that serves now. The first process starts from a binary of
// the test's own, which can be replaced.
type lineage struct {
	*mta
	program string // its binary
	pid     int
}

// upgradeReport is what ctl upgrade --json prints.
type upgradeReport struct {
	Done bool `json:"done"`
	Old  struct {
		PID int `json:"pid"`
	} `json:"old"`
	New struct {
		Version string `json:"version"`
		PID     int    `json:"pid"`
	} `json:"new"`
	PauseMS int64  `json:"pause_ms"`
	Error   string `json:"error"`
}

// newLineage prepares a meta1 with a binary of its own.
func newLineage(t *testing.T, s settings) *lineage {
	t.Helper()
	l := &lineage{mta: newMTA(t, s)}
	l.program = l.dir + "/bin/meta1"
	if err := os.Mkdir(l.dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	l.install(meta1(t))
	t.Cleanup(func() {
		if l.pid != 0 {
			_ = syscall.Kill(l.pid, syscall.SIGKILL)
		}
	})
	return l
}

// install puts another binary in the place of the one that runs, as a package does.
func (l *lineage) install(from string) {
	l.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		l.t.Fatal(err)
	}
	l.replace(b)
}

// script puts a shell script in the place of the binary. In it $REAL is meta1 itself, and it says the version.
func (l *lineage) script(serve string) {
	l.t.Helper()
	l.replace([]byte(fmt.Sprintf("#!/bin/sh\nREAL=%s\ncase $1 in\nversion) echo 'meta1 9.9' ;;\nconfig) ;;\nserve)\n%s\n;;\nesac\n", meta1(l.t), serve)))
}

func (l *lineage) replace(content []byte) {
	l.t.Helper()
	syscall.ForkLock.RLock() // a program that is started now would keep it open for writing
	err := os.WriteFile(l.program+".new", content, 0o755)
	syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.Rename(l.program+".new", l.program)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// begin starts the first process and waits until it greets.
func (l *lineage) begin() {
	l.t.Helper()
	l.launchFrom(l.program)
	l.ready()
	l.pid = l.cmd.Process.Pid
}

// upgrade upgrades once; the report is that of the command, whose exit status tells whether it is done.
func (l *lineage) upgrade(args ...string) upgradeReport {
	l.t.Helper()
	out, err := l.command(append([]string{"ctl", "upgrade", "--json"}, args...)...)
	var r upgradeReport
	if json.Unmarshal([]byte(out), &r) != nil {
		l.t.Fatalf("ctl upgrade: %v: %s", err, out)
	}
	exit := (*exec.ExitError)(nil)
	if errors.As(err, &exit) && exit.ExitCode() != 75 || r.Done != (err == nil) {
		l.t.Fatalf("ctl upgrade ended with %v: %s", err, out)
	}
	if r.Done {
		l.pid = r.New.PID
	}
	return r
}

// lives tells whether a process runs.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

// stopAll ends the process that serves, and sees to it that it ends.
func (l *lineage) stopAll() {
	l.t.Helper()
	if out, err := l.command("ctl", "stop"); err != nil {
		l.t.Fatalf("ctl stop: %v: %s", err, out)
	}
	must(l.t, func() error {
		if lives(l.pid) {
			return fmt.Errorf("process %d has not ended", l.pid)
		}
		return nil
	})
}

// tally counts what clients see.
type tally struct {
	mu                                      sync.Mutex // guards the rest
	connections, refused, sentAway, cut, ok int
	other                                   []error
}

// client sends messages over connection after connection until stop is closed.
func (c *tally) client(l *ledger, addr string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c.one(l, addr, stop)
	}
}

// one is one connection of some messages.
func (c *tally) one(l *ledger, addr string, stop <-chan struct{}) {
	k, err := dial(addr)
	c.mu.Lock()
	c.connections++
	switch {
	case err == nil:
		c.ok++
	case strings.Contains(err.Error(), "greeting: 421"):
		c.sentAway++
	case errors.Is(err, syscall.ECONNREFUSED):
		c.refused++
	default:
		c.other = append(c.other, err)
	}
	c.mu.Unlock()
	if err != nil {
		return
	}
	defer k.close()
	for range 1 + rand.N(20) {
		id := l.take()
		if err := k.send(l.message(id)); err != nil {
			c.mu.Lock()
			c.cut++
			c.mu.Unlock()
			return
		}
		l.ack(id)
		select {
		case <-stop:
			return
		default:
		}
	}
	_, _ = k.cmd("QUIT")
}

// TestUpgradeUnderLoad upgrades again and again under load: no connection is refused, no message lost.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	l := newLedger(t, mixed)
	s := newSink(t, "")
	s.keep = l.arrive
	rounds := upgradeRounds(3)
	s.answer(func(verb, _ string) string {
		if verb == "RCPT" && rounds > 10 && rand.N(20) == 0 { // it takes some seconds until such mail is tried again
			return "451 4.3.0 later"
		}
		return ""
	})
	m := newLineage(t, settings{mailertable: toPort(t, ".", s.addr)})
	m.begin()
	if out, err := m.command("ctl", "throttle", "set", "in_open", "500", "--net", "192.0.2.0/24", "--reason", "a flood"); err != nil {
		t.Fatal(err, out)
	}
	stop := make(chan struct{})
	var c tally
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { c.client(l, m.smtp, stop) })
	}
	var pauses []int64
	for range rounds {
		l.more(20)
		before := m.pid
		m.install(meta1(t))
		r := m.upgrade()
		if !r.Done || r.New.PID == before || r.Old.PID != before || r.New.Version != "e2e" {
			t.Fatalf("%+v", r)
		}
		pauses = append(pauses, r.PauseMS)
		must(t, func() error {
			if lives(before) {
				return fmt.Errorf("process %d has not ended", before)
			}
			return nil
		})
	}
	l.more(20)
	close(stop)
	wg.Wait()
	must(t, l.complete)
	m.queueEmpty()
	acked, _, _ := l.missing()
	slices.Sort(pauses)
	t.Logf("%d upgrades, %d connections, %d messages acknowledged: refused %d, lost 0, duplicates %d; %d connections were greeted with 421, %d ended by 421 between messages; pauses: median %d ms, longest %d ms",
		rounds, c.connections, acked, c.refused, l.duplicates(), c.sentAway, c.cut, pauses[len(pauses)/2], pauses[len(pauses)-1])
	if c.refused > 0 || len(c.other) > 0 {
		t.Errorf("%d connections were refused, and others failed: %v", c.refused, c.other)
	}
	if n := l.duplicates(); n > 0 {
		t.Errorf("%d duplicates although each process ended in order", n)
	}
	if out, err := m.command("ctl", "throttle"); err != nil || !strings.Contains(out, "a flood") {
		t.Errorf("the limit of an operator is lost: %v: %s", err, out)
	}
	m.stopAll()
	if _, err := os.Stat(m.spool + "/control"); err == nil {
		t.Error("the control socket is left behind")
	}
	if log := tail(m.log, 1<<20); strings.Contains(log, "sev=ERR") || strings.Contains(log, "sev=FATAL") {
		t.Errorf("the log has errors")
	}
}
