package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// world is what an API of a test asks.
type world struct {
	mu      sync.Mutex       // guards what Run's goroutine reads and the test writes meanwhile
	values  map[string]int64 // of qmgr
	rcpts   int              // in the queue, one a message
	listed  int              // pages that were asked for
	stopped bool
	log     string
	down    bool

	handover msg.Handover
	busy     int      // recipients that cannot be rerouted now
	reroutes []string // where mail went each time
}

// change changes it while somebody asks.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) api() *API {
	return New(Deps{
		List: func(_ context.Context, q msg.ListQ) (msg.ListA, error) {
			w.listed++
			first := 1
			if ta, _, err := smtp.ParseRcptID(q.After); err == nil {
				first = int(ta.Counter) + 1
			}
			var a msg.ListA
			for i := first; i <= w.rcpts && len(a.Entries) < q.Max; i++ {
				a.Entries = append(a.Entries, msg.ListEntry{
					TA: smtp.ID{Counter: uint64(i)}, State: msg.StateDeferred, Rcpt: smtp.Path{Local: "x", Domain: "a.test"}, Dest: "mx:a.test",
					Reason: "451 by mx.a.test[192.0.2.1]:25", Sender: smtp.Path{Local: "s", Domain: "b.test"},
				})
			}
			a.More = len(a.Entries) == q.Max
			return a, nil
		},
		Hosts: func(context.Context, bool) (control.Hosts, error) {
			return control.Hosts{Hosts: []control.Host{{Host: "mx.a.test[192.0.2.1]:25"}, {Host: "mx.c.test"}}}, nil
		},
		Modules: func(_ context.Context, q msg.StatusQ) map[string]msg.StatusA {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.down {
				return nil
			}
			a := msg.StatusA{Closed: q.Close == "S1"}
			for name, n := range w.values {
				a.Values = append(a.Values, msg.StatusValue{Name: name, Number: n})
			}
			return map[string]msg.StatusA{
				"qmgr":     a,
				"smtps":    {Values: []msg.StatusValue{{Name: "sessions", Number: 1}}, Connections: []msg.Connection{{ID: "S1", Begun: time.Unix(5, 0)}, {ID: "S0", Begun: time.Unix(4, 0)}}},
				"smtps MX": {Values: []msg.StatusValue{{Name: "sessions", Number: 2}}},
				"smtpc":    {Connections: []msg.Connection{{ID: "C1"}}},
			}
		},
		LogFiles: func() ([]string, error) {
			if w.log == "" {
				return nil, errors.New("no log file")
			}
			return []string{w.log, w.log + ".none"}, nil
		},
		Now: time.Now, Gate: &msg.Gate{}, Throttles: &msg.Throttles{}, Log: slog.New(slog.DiscardHandler),
		Handover: &w.handover, Reroute: func(context.Context) (int, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reroutes = append(w.reroutes, w.handover.Via())
			return w.busy, nil
		},
		CheckPeer: func(_ context.Context, peer string) error {
			if peer != "peer.test" {
				return errors.New("no such host")
			}
			return nil
		},
		Flush: func(context.Context) error { return nil }, Stop: func() { w.change(func() { w.stopped = true }) },
	}, time.Now())
}

// TestStats: rates over windows, also over the new start of a module.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{values: map[string]int64{"accepted": 1000}}
		a := w.api()
		g := supervise.NewGroup(t.Context())
		g.Go(a.Run)
		synctest.Wait()
		for i := range 60 { // ten minutes
			time.Sleep(10 * time.Second)
			w.change(func() {
				w.values["accepted"] += 20 // two a second
				if i == 30 {
					w.values["accepted"] = 20 // QMGR was started again
				}
			})
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		s, err := a.Stats(t.Context())
		if err != nil || s.Now["sessions"] != 3 {
			t.Errorf("%+v %v", s, err)
		}
		for name := range s.Rates {
			if r := s.Rates[name]["accepted"]; r < 1.6 || r > 2.3 {
				t.Errorf("%s: %v a second", name, r)
			}
		}
		time.Sleep(time.Hour)
		a.mu.Lock()
		if len(a.samples) > 92 {
			t.Errorf("%d samples are kept", len(a.samples))
		}
		a.mu.Unlock()
		if s, _ = a.Stats(t.Context()); s.Rates["15m"]["accepted"] != 0 {
			t.Errorf("%v a second after an hour without mail", s.Rates)
		}
		g.Stop()
		_ = g.Wait()
	})
}

// TestSummaryIsKept: many askers cost as much as one.
func TestSummaryIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{rcpts: 25_000}
		a := w.api()
		for range 10 {
			if s, err := a.Summary(t.Context(), control.SummaryQuestion{}); err != nil || s.Recipients != w.rcpts || s.Messages != w.rcpts {
				t.Fatal(s.Recipients, s.Messages, err)
			}
		}
		if w.listed != 3 {
			t.Errorf("%d pages", w.listed)
		}
		time.Sleep(3 * time.Second)
		_, _ = a.Summary(t.Context(), control.SummaryQuestion{})
		if w.listed != 6 {
			t.Errorf("%d pages after a while", w.listed)
		}
		time.Sleep(time.Nanosecond)
		if _, err := a.Summary(t.Context(), control.SummaryQuestion{Fresh: true}); err != nil || w.listed != 9 {
			t.Errorf("%d pages when it must be counted anew: %v", w.listed, err)
		}
	})
}

// TestMessage: one message in a queue of many, by both of its names, and what the log has of one that is gone.
func TestMessage(t *testing.T) {
	w := &world{rcpts: 30_000}
	a := w.api()
	ta := smtp.ID{Counter: 20_000}
	for _, id := range []string{ta.String(), smtp.RcptID(ta, 0)} {
		m, err := a.Message(t.Context(), id)
		if err != nil || !m.Queued || len(m.Recipients) != 1 || m.TA != ta.String() || len(m.Recipients[0].Hosts) != 1 || len(m.Notes) != 1 {
			t.Errorf("%s: %+v %v", id, m, err)
		}
	}
	gone := smtp.ID{Counter: 40_000}
	for _, id := range []string{gone.String(), "../../etc/passwd", ""} {
		if _, err := a.Message(t.Context(), id); !errors.Is(err, control.ErrNoMessage) {
			t.Errorf("%q: %v", id, err)
		}
	}
	w.log = filepath.Join(t.TempDir(), "log")
	line := fmt.Sprintf(`{"time":"2026-11-22T04:00:00Z","module":"qmgr","sev":"INFO","event":"delivered","ss_ta":"%s","rcpt_id":"%s","rcpt":"<y@a.test>","reply":"250 ok","ended":"yes"}`+"\n", gone, smtp.RcptID(gone, 0))
	if err := os.WriteFile(w.log, []byte(strings.Repeat("rubbish\n", 100)+line), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := a.Message(t.Context(), gone.String())
	if err != nil || m.Queued || len(m.Recipients) != 1 || m.Recipients[0].Outcome == nil || m.Recipients[0].Rcpt != "y@a.test" {
		t.Errorf("%+v %v", m, err)
	}
}

// TestThrottle: limits have a reason and an end, by the clock.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := (&world{}).api()
		g := supervise.NewGroup(t.Context())
		g.Go(a.Run)
		set := func(q control.ThrottleQuestion) int {
			list, err := a.Throttle(t.Context(), q)
			if err != nil {
				return -1
			}
			return len(list)
		}
		for _, c := range []struct {
			q    control.ThrottleQuestion
			want int
		}{
			{control.ThrottleQuestion{Kind: msg.ThrottleInOpen, Net: "192.0.2.1", Max: 2, Reason: "flood", For: time.Minute}, 1},
			{control.ThrottleQuestion{Kind: msg.ThrottleInRate, Net: "192.0.2.0/24", Max: 2, Reason: "flood"}, 2},
			{control.ThrottleQuestion{Kind: msg.ThrottleInRate, Net: "192.0.2.0/33", Max: 2, Reason: "flood"}, -1},
			{control.ThrottleQuestion{Kind: msg.ThrottleInRate, Net: "example.org", Max: 2, Reason: "flood"}, -1},
			{control.ThrottleQuestion{Kind: msg.ThrottleInRate, Max: 2}, -1},
			{control.ThrottleQuestion{Kind: msg.ThrottleInRate, Max: 2, Reason: "x", For: -1}, -1},
			{control.ThrottleQuestion{Kind: msg.ThrottleOutOpen, Clear: true}, -1},
			{control.ThrottleQuestion{Net: "192.0.2.1", Clear: true}, -1},
		} {
			if got := set(c.q); got != c.want {
				t.Errorf("%+v: %d", c.q, got)
			}
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if list := a.Throttles(t.Context()); len(list) != 1 || list[0].Net != "192.0.2.0/24" || !list[0].Until.IsZero() {
			t.Errorf("%+v", list)
		}
		if set(control.ThrottleQuestion{Clear: true}) != 0 {
			t.Error("not cleared")
		}
		g.Stop()
		_ = g.Wait()
	})
}

// TestDrain: new mail is refused until it is cancelled; it ends when nothing is left, or when its time is over.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{values: map[string]int64{"AQ_entries": 5, "deferred": 7}}
		stopped := false
		a := w.api()
		g := supervise.NewGroup(t.Context())
		g.Go(a.Run)
		phase := func(after time.Duration, want control.DrainPhase) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if d := a.DrainState(t.Context()); d.Phase != want {
				t.Errorf("%+v, want %s", d, want)
			}
		}
		begin := func(q control.DrainQuestion) {
			t.Helper()
			if _, err := a.Drain(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		phase(time.Minute, control.NotDraining)
		begin(control.DrainQuestion{Keep: true, Reason: "upgrade", Until: time.Hour})
		if why, closed := a.deps.Gate.Closed(); !closed || why != "upgrade" {
			t.Error("mail is taken")
		}
		phase(30*time.Minute, control.Draining)
		w.change(func() {
			w.values["AQ_entries"] = 0
			w.down = true // what is not known is not nothing
		})
		phase(time.Minute, control.Draining)
		w.change(func() { w.down = false })
		phase(3*time.Second, control.Drained)
		if w.change(func() { stopped = w.stopped }); stopped {
			t.Error("it has ended")
		}
		begin(control.DrainQuestion{Cancel: true})
		if _, closed := a.deps.Gate.Closed(); closed {
			t.Error("mail is refused")
		}
		phase(time.Minute, control.NotDraining)
		w.change(func() { w.values["open_transactions"] = 1 })
		begin(control.DrainQuestion{})
		phase(4*time.Minute, control.Draining)
		phase(time.Minute+time.Second, control.DrainEnds)
		if w.change(func() { stopped = w.stopped }); !stopped {
			t.Error("it has not ended")
		}
		if _, err := a.Drain(t.Context(), control.DrainQuestion{Cancel: true}); err == nil {
			t.Error("cancelled too late")
		}
		for _, bad := range []control.DrainQuestion{{Until: -1}, {Until: 48 * time.Hour}, {Reason: "a\r\n250 ok"}, {Reason: strings.Repeat("x", 300)}} {
			if _, err := a.Drain(t.Context(), bad); err == nil {
				t.Errorf("%+v", bad)
			}
		}
		g.Stop()
		_ = g.Wait()
	})
}

// TestConnections: clients and hosts, the oldest first, and one that is closed.
func TestConnections(t *testing.T) {
	w := &world{}
	a := w.api()
	all, err := a.Connections(t.Context())
	if err != nil || len(all.Connections) != 3 || all.Connections[0].ID != "S0" || all.Connections[2].Direction != "out" || all.More {
		t.Errorf("%+v %v", all, err)
	}
	for id, want := range map[string]bool{"S1": true, "S9": false} {
		if done, err := a.CloseConnection(t.Context(), control.CloseConnection{ID: id}); err != nil || done.Closed != want {
			t.Errorf("%s: %v %v", id, done, err)
		}
	}
	if _, err := a.CloseConnection(t.Context(), control.CloseConnection{}); err == nil {
		t.Error("a connection without id was closed")
	}
}
