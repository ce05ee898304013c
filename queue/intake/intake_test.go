package intake

import (
	"testing"
	"time"

	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/entry"
	"meta1/queue/retry"
	"meta1/queue/sched"
)

// The scripts in package aq play whole stories with parks and scans; here is what they show only
// from afar.

func newIntake(max int) (*Intake, time.Time) {
	now := time.Unix(1000, 0)
	retry := retry.Bounds{Min: time.Minute, Max: time.Hour}
	limits := sched.HostLimits{Window: sched.Limits{Initial: 2, Max: 2}}
	s := sched.New(sched.Config{Slots: 10, HostsMax: 100, HostsPerAttempt: 5, Retry: retry, Limits: func(sched.HostKey) sched.HostLimits { return limits }})
	i := New(Config{Budget: budget.New(max), Sched: s, Retry: retry, ParksMax: 3, ScanMax: 1000, Share: 25, Date: time.Time.String}, now)
	i.schedule.late = entry.Due{} // as after the first scan
	return i, now
}

func nobody(int) *Scan { return nil }

func parkedFor(dest string, n int) *entry.State {
	return &entry.State{Ref: entry.Ref{TA: smtp.ID{Counter: uint64(n)}}, NextTry: time.Unix(5000, 0), Parked: true, Dest: dest}
}

// TestTurnsOfScans: what is due and what is parked are read in turn, an operator's scan goes
// first, and one scan runs at a time.
func TestTurnsOfScans(t *testing.T) {
	i, now := newIntake(1000)
	i.Deferred(now, parkedFor("mx:a.test", 1), "")
	i.Deferred(now, parkedFor("mx:b.test", 2), "")
	mine := &Scan{Kind: ScanSelect}
	if q := i.Next(now, func(int) *Scan { return mine }); q != mine || i.Next(now, nobody) != nil {
		t.Fatalf("%+v, and another beside it", q)
	}
	i.Done(now, mine, time.Time{}, false, false)
	var kinds []ScanKind
	for range 3 {
		q := i.Next(now, nobody)
		if q == nil {
			break
		}
		kinds = append(kinds, q.Kind)
		i.Done(now, q, now, true, false) // more is due
	}
	if len(kinds) != 3 || kinds[0] != ScanDue || kinds[1] != ScanParked || kinds[2] != ScanDue {
		t.Errorf("scans %v", kinds)
	}
}

// TestAFailedScanIsMadeAgain: after a pause, and what it was to bring is not forgotten.
func TestAFailedScanIsMadeAgain(t *testing.T) {
	i, now := newIntake(1000)
	i.schedule.nextDue = entry.Never()
	i.Deferred(now, parkedFor("mx:a.test", 1), "")
	q := i.Next(now, nobody)
	if q == nil || q.Kind != ScanParked {
		t.Fatalf("%+v", q)
	}
	i.Done(now, q, time.Time{}, false, true)
	if q := i.Next(now.Add(scanPause-time.Second), nobody); q != nil {
		t.Errorf("%+v before the end of the pause", q)
	}
	if at := i.Wake(); !at.Equal(now.Add(scanPause)) {
		t.Errorf("wakes at %v", at)
	}
	if q := i.Next(now.Add(scanPause), nobody); q == nil || q.Kind != ScanParked || q.Parks[0].Dest != "mx:a.test" {
		t.Errorf("%+v after the pause", q)
	}
}

// TestChangesDuringAScan: what has changed while a scan ran is stale until it ends; what was
// parked and what became due meanwhile counts from its end on.
func TestChangesDuringAScan(t *testing.T) {
	i, now := newIntake(1000)
	q := i.Next(now, nobody)
	q.Cursor = entry.Due{At: now.Add(time.Hour)}
	st := parkedFor("mx:a.test", 7)
	st.NextTry = now.Add(time.Minute)
	i.Deferred(now, st, "s@x.test")
	if !i.Stale(st.Ref) || len(i.parks) != 0 {
		t.Errorf("stale %v, %d parks", i.Stale(st.Ref), len(i.parks))
	}
	i.Done(now, q, time.Time{}, false, false)
	if i.Stale(st.Ref) || len(i.parks) != 1 || i.schedule.cursor != (entry.Due{}) {
		t.Errorf("stale %v, %d parks, the cursor stands at %v", i.Stale(st.Ref), len(i.parks), i.schedule.cursor)
	}
	if i.Behind("mx:a.test", "s@x.test") == nil || i.Behind("mx:a.test", "t@x.test") != nil {
		t.Error("newer mail of the same sender waits, and nobody else's")
	}
}

// TestParksAreBounded: mail for further destinations is not parked.
func TestParksAreBounded(t *testing.T) {
	i, now := newIntake(1000)
	for n, dest := range []string{"mx:a", "mx:b", "mx:c"} {
		if i.Backlog(dest) == nil {
			t.Errorf("park %d is not made", n)
		}
	}
	if i.Backlog("mx:d") != nil || i.NoRoute(now, "d", "451", func(int) float64 { return 0 }) != nil || i.Backlog("mx:a") == nil {
		t.Error("there are more parks than there may be, or one is lost")
	}
	i.Deferred(now, parkedFor("mx:d", 1), "") // it comes back by its own time
}

// TestRouteProbe: a route that fails is looked up again by one recipient when it is time, later
// after each failure, and all return when it is found.
func TestRouteProbe(t *testing.T) {
	i, now := newIntake(1000)
	zero := func(int) float64 { return 0 }
	p := i.NoRoute(now, "d.test", "451 no answer", zero)
	if i.RouteClosed(now, "d.test") != p || i.RouteFails(now, "d.test") != p {
		t.Fatal("the route is not closed")
	}
	later := now.Add(time.Minute)
	if i.RouteFails(later, "d.test") != nil || i.RouteFails(later, "d.test") != p {
		t.Error("one recipient is to look it up when it is time, and not two")
	}
	i.NoRoute(later, "d.test", "451 no answer", zero)
	if i.RouteFails(later.Add(time.Minute), "d.test") != p || i.RouteFails(later.Add(2*time.Minute), "d.test") != nil {
		t.Error("the second time is not twice as long")
	}
	i.RouteFound(later, "d.test")
	if i.RouteFails(later, "d.test") != nil || p.state != Returning {
		t.Errorf("the park is %v", p.state)
	}
}
