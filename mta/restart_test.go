package mta

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/supervise"
)

// breakable lets the running instance of a unit end with an error.
func breakable(u supervise.Unit, broken <-chan struct{}) supervise.Unit {
	inner := u.New
	u.New = func() (func(context.Context) error, error) {
		run, err := inner()
		return func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			ended := supervise.NewGroup(ctx)
			ended.Go(run)
			select {
			case <-broken:
				cancel()
				_ = ended.Wait()
				return errors.New("broken by the test")
			case <-ended.Context().Done():
				return ended.Wait()
			}
		}, err
	}
	return u
}

// startBreakable starts the MTA of a directory, each module of which ends with an error when
// something is sent to its channel, and is started again as often as it ends.
func startBreakable(t *testing.T, dir string) (*mta, map[string]chan struct{}, *logBuffer, control.Status) {
	t.Helper()
	log := new(logBuffer)
	ready := make(chan control.Status, 1)
	m := begin(Setup{File: dir + "/meta1.conf", Version: "1", Executable: os.Args[0], Stderr: log, Ready: func(s control.Status, _ *Config) { ready <- s }})
	if err := errors.Join(m.load(), m.prepare(t.Context()), m.build()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.release)
	m.hub = newHub("1") // build has made units of its own
	broken := map[string]chan struct{}{}
	units, err := m.units()
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range units {
		broken[u.Name] = make(chan struct{})
		u.Policy = supervise.Policy{Pause: 10 * time.Millisecond, PauseMax: 10 * time.Millisecond}
		units[i] = breakable(u, broken[u.Name])
	}
	if m.tree, err = supervise.NewTree(units, m.notice); err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(m.serve)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Errorf("%v\n%s", err, log)
		}
	})
	return m, broken, log, <-ready
}

// TestModulesRestart ends each module in turn. A new instance must take its place, and mail
// must go on.
func TestModulesRestart(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", config(dir, ""))
	write(t, dir+"/mt", ". 1^esmtp:[127.0.0.1]\n")
	write(t, dir+"/access", "cltaddr:127. quick:relay\n")
	m, broken, log, s := startBreakable(t, dir)
	at := slices.IndexFunc(s.Listen, func(l control.Socket) bool { return l.Section == "smtps" })
	sent := 0
	send := func() {
		t.Helper()
		sent++
		rcpt := fmt.Sprintf("r%d@b.test", sent)
		if err := smtp.SendMail(s.Listen[at].Address, nil, "s@a.test", []string{rcpt}, []byte("Subject: x\r\n\r\n")); err != nil {
			t.Fatalf("message %d: %v\n%s", sent, err, log)
		}
	}
	send()
	for _, name := range []string{"smar", "smtpc", "qmgr", "smtps", "qmgr"} {
		before := restarts(m, name)
		broken[name] <- struct{}{}
		eventually(t, name+" is up again", func() bool { return restarts(m, name) == before+1 && m.Health(t.Context()).OK })
		send()
	}
	eventually(t, "all messages in the queue, tried", func() bool {
		p, err := m.Queue(t.Context(), "", 100)
		return err == nil && len(p.Entries) == sent && !slices.ContainsFunc(p.Entries, func(e control.Entry) bool { return !strings.Contains(e.Reason, "refused") })
	})
	if n := strings.Count(log.String(), "error=broken by the test"); n != 5 {
		t.Errorf("%d ends in the log\n%s", n, log)
	}
}

// restarts is how often a unit was started again.
func restarts(m *mta, unit string) int {
	for _, s := range m.tree.Status() {
		if s.Name == unit && s.State == supervise.Up {
			return s.Restarts
		}
	}
	return -1
}
