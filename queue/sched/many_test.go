package sched

import (
	"runtime"
	"testing"
)

// counted is mail that counts how often it is looked at.
type counted struct{ looks *int }

func (c counted) Waiting() int { *c.looks++; return 1 }

// TestHostWithManyDestinationsCloses: a hundred thousand destinations wait for one host
// when it closes. Each is looked at a few times, and nothing is copied for the others.
func TestHostWithManyDestinationsCloses(t *testing.T) {
	const n = 100_000
	cfg := config()
	cfg.Limits = limits(1, 1)
	m := newModel(cfg)
	looks := 0
	for i := range n {
		m.addDest(1)
		d := m.destination(i)
		m.s.AddEntries(d, 1)
		m.s.Add(m.now, d, "s", Fresh, m.now, counted{&looks})
	}
	var running *Delivery
	parked := 0
	settle := func() {
		for dec := m.s.Ready(m.now); dec != nil; dec = m.s.Ready(m.now) {
			switch dec.Kind {
			case Start:
				running = m.s.Started(dec)
			case AllClosed:
				parked += len(m.s.TakeAll(m.now, dec.Job.Dest))
			}
		}
	}
	settle()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	looks = 0
	m.s.Done(m.now, running, failed())
	settle()
	runtime.ReadMemStats(&after)
	// The one that was delivered has a recipient left, as counted says.
	if parked != n || looks > 4*n {
		t.Errorf("%d of %d were parked, with %d looks", parked, n, looks)
	}
	if per := (after.TotalAlloc - before.TotalAlloc) / n; per > 1000 {
		t.Errorf("%d bytes were allocated for each", per)
	}
}
