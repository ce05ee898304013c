package pace

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1e9, 0)

// send sends as much as it may for a time, looking every grain or when told, and returns when.
func send(p *Pace, from time.Time, d time.Duration) (sent []time.Time) {
	for now := from; now.Before(from.Add(d)); now = now.Add(grain) {
		for n := p.Free(now); n > 0; n-- {
			p.Start(now)
			sent = append(sent, now)
		}
	}
	return sent
}

// most is the most that was sent within any window.
func most(sent []time.Time, window time.Duration) (n int) {
	first := 0
	for i, at := range sent {
		for !sent[first].After(at.Add(-window)) {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}

// TestRate: no window has more than the rate, and a steady stream has nearly that.
func TestRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Rate: rapid.IntRange(1, 2000).Draw(t, "rate"), Per: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 10 * time.Minute}).Draw(t, "per"), Recovery: time.Hour}
		p := New(l)
		now := start
		var sent []time.Time
		for range rapid.IntRange(1, 3).Draw(t, "bursts") {
			sent = append(sent, send(p, now, 3*l.Per)...)
			now = now.Add(3*l.Per + time.Duration(rapid.IntRange(0, 5000).Draw(t, "pause"))*time.Millisecond)
		}
		if n := most(sent, l.Per); n > l.Rate {
			t.Fatalf("%d messages within %v, not %d", n, l.Per, l.Rate)
		}
		if n, want := float64(len(sent)), float64(l.Rate*3); n < want*0.5 && l.Per > time.Second {
			t.Fatalf("%v messages in three intervals at a rate of %d", n, l.Rate)
		}
	})
}

// TestNext: when the rate is used up, Next says when it is not any more.
func TestNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := New(Limits{Rate: rapid.IntRange(1, 100).Draw(t, "rate"), Per: time.Minute, Recovery: time.Hour})
		now := start
		for range 50 {
			for p.Free(now) > 0 {
				if !p.Next(now).IsZero() {
					t.Fatal("something is free, and Next is in the future")
				}
				p.Start(now)
			}
			next := p.Next(now)
			if p.Slowed(now) { // the rate grows meanwhile, and with it how it is spread
				next = next.Add(10 * time.Millisecond)
			}
			if !next.After(now) || !p.Slowed(now) && p.Free(now.Add(next.Sub(now)/2)) > 0 || p.Free(next) == 0 {
				t.Fatalf("next is %v after now", next.Sub(now))
			}
			if rapid.IntRange(0, 9).Draw(t, "slow") == 0 && p.Slow(now, now, "421 slow") {
				if next = p.Next(now); p.Free(next.Add(10*time.Millisecond)) == 0 {
					t.Fatalf("nothing is free at the time that Next gives, %v after now", next.Sub(now))
				}
			}
			now = next.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "late")) * time.Millisecond)
		}
	})
}

func TestUndo(t *testing.T) {
	p := New(Limits{Rate: 1, Per: time.Minute, Recovery: time.Hour})
	p.Start(start)
	if p.Free(start.Add(time.Second)) != 0 {
		t.Fatal("two messages in a minute")
	}
	p.Undo(start.Add(time.Second))
	if p.Free(start.Add(time.Second)) != 1 {
		t.Error("what did not go out counts")
	}
}

// TestSlow: a burst of replies halves the rate once, later ones again, down to the bound; it comes
// back in a straight line, up to the configured one.
func TestSlow(t *testing.T) {
	p := New(Limits{Rate: 640, Per: time.Minute, Recovery: 30 * time.Minute})
	rate := func(now time.Time, want float64) {
		t.Helper()
		if got := p.Rate(now); math.Abs(got-want) > 0.01*want {
			t.Errorf("rate is %v, want %v", got, want)
		}
	}
	now := start
	if !p.Slow(now, now.Add(-time.Second), "421 4.7.0 slow") {
		t.Error("the first does nothing")
	}
	rate(now, 320)
	if p.Slow(now.Add(2*time.Minute), now, "x") || p.Slow(now.Add(30*time.Second), now.Add(time.Second), "x") {
		t.Error("one that tells nothing new halves the rate")
	}
	if got := p.Until(); got != now.Add(30*time.Minute) || p.Reason(now) != "421 4.7.0 slow" {
		t.Errorf("until %v after, because of %q", got.Sub(now), p.Reason(now))
	}
	rate(now.Add(15*time.Minute), 480)
	if end := now.Add(30 * time.Minute); p.Slowed(end) || p.Reason(end) != "" || !p.Slowed(end.Add(-time.Second)) {
		t.Error("it is not whole again when it should be")
	}
	rate(now.Add(time.Hour), 640)
	for range 20 {
		now = now.Add(time.Minute)
		p.Slow(now, now.Add(-time.Second), "again")
	}
	rate(now, 20)
	p.SetLimits(now, Limits{Rate: 64, Per: time.Minute, Recovery: 30 * time.Minute})
	rate(now, 20)
	rate(now.Add(2*time.Hour), 64)
	p.SetLimits(now, Limits{Rate: 64, Per: time.Minute, Recovery: 30 * time.Minute, Min: 50})
	now = now.Add(3 * time.Hour)
	p.Slow(now, now, "x")
	rate(now, 50)
}

// TestSlowWithoutRate: what was sent counts, and there is no limit again afterwards.
func TestSlowWithoutRate(t *testing.T) {
	p := New(Limits{Per: time.Minute, Recovery: 10 * time.Minute})
	if p.Free(start) != math.MaxInt || !p.Next(start).IsZero() {
		t.Error("there is a limit")
	}
	for i := range 100 {
		p.Start(start.Add(time.Duration(i) * time.Second / 2))
	}
	now := start.Add(50 * time.Second)
	p.Slow(now, now, "421 slow")
	if p.Rate(now) != 50 {
		t.Errorf("rate is %v", p.Rate(now))
	}
	if n := len(send(p, now, time.Minute)); n > 55 || n < 40 {
		t.Errorf("%d went out within a minute", n)
	}
	if p.Rate(now.Add(10*time.Minute)) != 0 {
		t.Errorf("rate is %v in the end", p.Rate(now.Add(10*time.Minute)))
	}
	quiet := New(Limits{Per: time.Minute, Recovery: 10 * time.Minute})
	quiet.Slow(start, start, "421")
	if quiet.Rate(start) < 1 || quiet.Free(start) == 0 {
		t.Errorf("nothing may be sent at a rate of %v", quiet.Rate(start))
	}
}
