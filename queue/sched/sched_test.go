package sched

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDelayGrowsWithinItsBounds(t *testing.T) {
	r := Retry{Min: time.Minute, Max: time.Hour}
	for attempts, want := range map[int]time.Duration{
		1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1000: time.Hour,
	} {
		if got := r.Delay(attempts, 0); got != want {
			t.Errorf("delay after %d attempts is %v, want %v", attempts, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		r := Retry{Min: time.Duration(rapid.Int64Range(1, 1e12).Draw(t, "min"))}
		r.Max = r.Min + time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "more"))
		d := r.Delay(rapid.IntRange(0, 100).Draw(t, "attempts"), rapid.Float64Range(0, 0.999).Draw(t, "rnd"))
		if d < r.Min || d > r.Max {
			t.Fatalf("delay %v is outside %v", d, r)
		}
	})
}

func TestWindowClosesAndProbes(t *testing.T) {
	now := time.Unix(1000, 0)
	r := Retry{Min: time.Minute, Max: time.Hour}
	w := NewWindow(Limits{Initial: 4, Max: 6})
	if w.Free(now) != 4 {
		t.Fatalf("initial window %d", w.Free(now))
	}
	fail := func() bool { w.Start(); return w.Failed(now, r, 0) }
	for range 2 {
		if fail() {
			t.Fatalf("the window closed at size %d", w.Size())
		}
	}
	if w.Size() != 1 {
		t.Fatalf("window %d after two failures", w.Size())
	}
	if !fail() || w.Free(now) != 0 || !w.Closed(now) {
		t.Fatal("three failures did not close the window")
	}
	now = now.Add(time.Minute)
	if w.Free(now) != 1 {
		t.Fatal("no probe after the time was over")
	}
	w.Start()
	if w.Free(now) != 0 {
		t.Fatal("two probes at once")
	}
	if !w.Failed(now, r, 0) || w.Until() != now.Add(2*time.Minute) {
		t.Fatalf("second closing until %v", w.Until())
	}
	now = w.Until()
	w.Start()
	w.Served()
	if w.Free(now) != 1 {
		t.Fatalf("window %d after the probe", w.Free(now))
	}
	for range 20 {
		w.Start()
		w.Served()
	}
	if w.Size() != 6 {
		t.Errorf("window grew to %d, limit is 6", w.Size())
	}
}

func TestWindowNeverExceedsItsLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Initial: rapid.IntRange(1, 5).Draw(t, "initial"), Max: rapid.IntRange(5, 9).Draw(t, "max")}
		w, now, r := NewWindow(l), time.Unix(0, 0), Retry{Min: time.Second, Max: time.Minute}
		for range 100 {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				if w.Free(now) > 0 {
					w.Start()
				}
			case 1:
				if w.Inflight() > 0 {
					w.Served()
				}
			case 2:
				if w.Inflight() > 0 {
					w.Failed(now, r, 0.5)
				}
			default:
				now = now.Add(time.Second)
			}
			if w.Inflight() > l.Max || w.Inflight() < 0 || w.Free(now) < 0 {
				t.Fatalf("%+v", w)
			}
		}
	})
}

func TestNewLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	w := NewWindow(Limits{Initial: 4, Max: 6})
	w.Start()
	w.SetLimits(Limits{Initial: 1, Max: 2})
	if w.Free(now) != 1 {
		t.Errorf("%d free under the lower limit", w.Free(now))
	}
	w.SetLimits(Limits{Initial: 1, Max: 3})
	w.Served()
	w.Start()
	w.Served()
	if w.Size() != 3 {
		t.Errorf("window of %d under the higher limit", w.Size())
	}
	for range 2 {
		w.Start()
		w.Failed(now, Retry{Min: time.Minute, Max: time.Minute}, 0)
	}
	if w.SetLimits(Limits{Initial: 5, Max: 9}); !w.Closed(now) {
		t.Error("new limits opened a closed window")
	}
}
