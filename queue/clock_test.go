package queue

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// wallClock is a clock that can be set. Its readings have no monotonic part.
type wallClock struct{ ahead atomic.Int64 }

func (c *wallClock) now() time.Time      { return time.Now().Round(0).Add(time.Duration(c.ahead.Load())) }
func (c *wallClock) set(d time.Duration) { c.ahead.Add(int64(d)) }

// clockWorld is a queue whose destinations are down, with a clock that can be set.
func clockWorld(w *world, up *atomic.Bool) *wallClock {
	c := &wallClock{}
	w.now = c.now
	w.cfg.RetryMax, w.cfg.ReturnDefault = 10*time.Minute, 10*time.Hour // idle time costs ticks
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		switch {
		case up.Load() || q.Rcpts[0].To.Domain == "here.test":
			return w.take(q, smtp.NewReply(250, "", "ok"))
		case q.Rcpts[0].To.Domain == "dead.test":
			return failedHost(q)
		}
		return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
	}
	return c
}

const year = 365 * 24 * time.Hour

// TestTheClockIsSet sets the clock in all directions and expects that no recipient
// waits longer than retry_delay_max for it, and none is given up for it.
func TestTheClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{
		"a year forward": year, "a bit forward": 5 * time.Minute, "a bit back": -5 * time.Minute, "ten years back": -10 * year,
	} {
		for _, down := range []bool{false, true} {
			kind := map[bool]string{false: ", running", true: ", not running"}[down]
			t.Run(name+kind, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					var up atomic.Bool
					c := clockWorld(w, &up)
					q := w.start()
					w.mustSend(q, "s@here.test", "m", "a@busy.test", "b@dead.test")
					time.Sleep(time.Hour)
					if down {
						w.restart(func() { c.set(by) })
					} else {
						c.set(by)
					}
					time.Sleep(w.cfg.RetryMax) // fails again
					if got := w.all("s@here.test"); len(got) != 0 {
						t.Fatalf("given up: %q", got)
					}
					for _, e := range w.listAll() {
						if wait := e.NextTry.Sub(c.now()); wait <= 0 || wait > w.cfg.RetryMax {
							t.Errorf("%v is shown to be tried in %v", e.Rcpt, wait)
						}
					}
					if a := w.operate(msg.OpFlush, msg.Selection{}); a.Done != 2 {
						t.Errorf("a flush of all reached %d of 2", a.Done)
					}
					up.Store(true)
					time.Sleep(w.cfg.RetryMax + time.Second)
					if n := w.served(); n != 2 {
						t.Errorf("%d of 2 were served: %+v", n, w.listAll())
					}
					if !down && !strings.Contains(w.log.String(), "the clock of the machine was set") {
						t.Error("no word of it in the log")
					}
					w.checkEmpty()
				})
			})
		}
	}
}

func (w *world) restart(between func()) {
	w.t.Helper()
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	between()
	w.start()
}

// TestAgeWhenTheClockIsSet: queue_return is measured, not read off the clock.
func TestAgeWhenTheClockIsSet(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up atomic.Bool
		c := clockWorld(w, &up)
		q := w.start()
		w.mustSend(q, "s@here.test", "m", "a@busy.test")
		day := w.cfg.ReturnDefault / 5 // as it were
		for _, by := range []time.Duration{year, -2 * year, year} {
			c.set(by)
			time.Sleep(day)
		}
		if len(w.all("s@here.test")) != 0 {
			t.Error("given up after three days of five")
		}
		time.Sleep(2*day + 2*w.cfg.RetryMax)
		if got := strings.Join(w.all("s@here.test"), ""); !strings.Contains(got, "maximum time in queue exceeded") {
			t.Errorf("after five days: %q", got)
		}

		w.mustSend(q, "t@here.test", "m", "b@busy.test")
		time.Sleep(day)
		w.restart(func() { c.set(year) })
		time.Sleep(day) // 1 + 2.5 + 1
		if len(w.all("t@here.test")) != 0 {
			t.Error("a restart with another clock counts as a year")
		}
		time.Sleep(day/2 + 2*w.cfg.RetryMax)
		if len(w.all("t@here.test")) != 1 {
			t.Error("a restart with another clock does not count")
		}
		w.checkEmpty()
	})
}

// TestClockBefore1970: a machine whose clock stands before 1970 at the start, as one without a
// battery may, holds no mail back.
func TestClockBefore1970(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.now = func() time.Time { return time.Now().AddDate(-60, 0, 0) }
		var tries atomic.Int64
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if tries.Add(1) == 1 {
				return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "s@here.test", "m", "r@d.test")
		time.Sleep(2 * time.Minute)
		if w.got("r@d.test", "m") != 1 {
			t.Error("deferred mail was not tried again")
		}
		w.checkEmpty()
	})
}
