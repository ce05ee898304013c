package sched

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"meta1/queue/retry"
)

func TestConcurrencyWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	r := retry.Bounds{Min: time.Minute, Max: time.Hour}
	w := newWindow(Limits{Initial: 4, Max: 6})
	if w.free(now) != 4 {
		t.Fatalf("initial window %d", w.free(now))
	}
	fail := func() bool { w.start(); return w.failed(now, r, 0) }
	for range 2 {
		if fail() {
			t.Fatalf("the window closed at size %d", w.size)
		}
	}
	if w.size != 1 {
		t.Fatalf("window %d after two failures", w.size)
	}
	if !fail() || w.free(now) != 0 || !w.closed(now) {
		t.Fatal("three failures did not close the window")
	}
	now = now.Add(time.Minute)
	if w.free(now) != 1 {
		t.Fatal("no probe after the time was over")
	}
	w.start()
	if w.free(now) != 0 {
		t.Fatal("two probes at once")
	}
	if !w.failed(now, r, 0) || w.until != now.Add(2*time.Minute) {
		t.Fatalf("second closing until %v", w.until)
	}
	w.start() // an old one that was still in progress
	if w.failed(now, r, 0) || w.downs != 2 {
		t.Error("a window that is closed was closed")
	}
	now = w.until
	serve := func() { w.start(); w.served(now) }
	if serve(); w.free(now) != 1 {
		t.Fatalf("window %d after the probe", w.free(now))
	}
	for range 20 {
		serve()
	}
	if w.size != 6 {
		t.Errorf("window grew to %d, limit is 6", w.size)
	}
	w.start()
	if w.refused(now, 2); w.size != 2 {
		t.Errorf("window %d of a host that allows two", w.size)
	}
	if serve(); w.size != 2 {
		t.Errorf("window %d at once after it was refused", w.size)
	}
	now = now.Add(ceilingTime)
	if serve(); w.size != 3 {
		t.Errorf("window %d after a while", w.size)
	}
}

func TestWindowKeepsItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Initial: rapid.IntRange(1, 5).Draw(t, "initial"), Max: rapid.IntRange(5, 9).Draw(t, "max")}
		w, now, r := newWindow(l), time.Unix(0, 0), retry.Bounds{Min: time.Second, Max: time.Minute}
		for range 100 {
			switch n := rapid.IntRange(0, 6).Draw(t, "step"); {
			case n < 2:
				if w.free(now) > 0 {
					w.start()
				}
			case n == 2 && w.inflight > 0:
				w.served(now)
			case n == 3 && w.inflight > 0:
				w.failed(now, r, 0.5)
			case n == 4 && w.inflight > 0:
				w.refused(now, w.inflight-1)
			case n == 5:
				w.probe(now)
			default:
				now = now.Add(time.Second)
			}
			if w.inflight > l.Max || w.inflight < 0 || w.free(now) < 0 || w.size > l.Max || w.size < 0 {
				t.Fatalf("%+v", w)
			}
		}
	})
}

func TestNewWindowLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	w := newWindow(Limits{Initial: 4, Max: 6})
	w.start()
	w.setLimits(Limits{Initial: 1, Max: 2})
	if w.free(now) != 1 {
		t.Errorf("%d free under the lower limit", w.free(now))
	}
	w.setLimits(Limits{Initial: 1, Max: 3})
	w.served(now)
	w.start()
	w.served(now)
	if w.size != 3 {
		t.Errorf("window of %d under the higher limit", w.size)
	}
	for range 2 {
		w.start()
		w.failed(now, retry.Bounds{Min: time.Minute, Max: time.Minute}, 0)
	}
	if w.setLimits(Limits{Initial: 5, Max: 9}); !w.closed(now) {
		t.Error("new limits opened a closed window")
	}
}
