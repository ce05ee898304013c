package msg

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/supervise"
)

// TestProgress: the stage goes forward only, and each progress starts the time anew.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewProgress()
		check := func(stage DeliverStage, idle time.Duration) {
			t.Helper()
			if s, d := p.Idle(); s != stage || d != idle {
				t.Errorf("%v for %v, want %v for %v", s, d, stage, idle)
			}
		}
		check(DeliverConnect, 0)
		time.Sleep(20 * time.Second)
		check(DeliverConnect, 20*time.Second)
		p.Reach(DeliverGreeting)
		time.Sleep(24 * 365 * time.Hour)
		check(DeliverGreeting, 24*365*time.Hour)
		p.Reach(DeliverRcpt)
		p.Reach(DeliverMail)
		time.Sleep(time.Second)
		check(DeliverRcpt, time.Second)
		for range 2 {
			if !p.GiveWay() || p.Finish() {
				t.Error("it did not give way for good")
			}
		}
		p.Reach(DeliverDot)
		check(DeliverDot, 0)
		if p.Finish() {
			t.Error("it finishes after it gave way")
		}
	})
}

// TestProgressFinishes: what sends its final dot does not give way; nobody waits for one
// without a Progress.
func TestProgressFinishes(t *testing.T) {
	p := NewProgress()
	for range 2 {
		if !p.Finish() || p.GiveWay() {
			t.Error("it gave way in the end")
		}
	}
	p = nil
	p.Reach(DeliverMail)
	if s, d := p.Idle(); s != DeliverConnect || d != 0 || !p.Finish() || p.GiveWay() {
		t.Error("no progress is noted, and it gave way")
	}
}

// TestProgressRace: of the two ends of a delivery exactly one is told that it may.
func TestProgressRace(t *testing.T) {
	for range 2000 {
		p := NewProgress()
		var ends atomic.Int32
		g := supervise.NewGroup(context.Background())
		for _, end := range []func() bool{p.GiveWay, p.Finish} {
			g.Go(func(context.Context) error {
				if end() {
					ends.Add(1)
				}
				return nil
			})
		}
		g.Go(func(context.Context) error { p.Reach(DeliverData); return nil })
		if err := g.Wait(); err != nil || ends.Load() != 1 {
			t.Fatalf("%d ends, %v", ends.Load(), err)
		}
	}
}
