package sched

import (
	"time"

	"meta1/queue/retry"
)

// Limits of the window of a host (README 3.8 item 16).
type Limits struct {
	Initial int // connections to a host of which nothing is known
	Max     int
}

// window is the concurrency window of one host (README 3.8.1): how many deliveries may
// be in progress at once. It starts small, grows by one with each delivery that is
// served and is halved with each failure. At zero it is closed for a while; then one
// delivery, the probe, finds out whether the host serves again.
type window struct {
	limits   Limits
	size     int
	inflight int
	downs    int       // how often it closed since the last success
	until    time.Time // while size is 0: when a probe may start
	// The host refused one connection too many when it had ceiling of them; the window
	// does not grow beyond that before growAt.
	ceiling int
	growAt  time.Time
	// The host refused the only delivery, though SMTPC knows of other connections: it has
	// just closed them, or made room by closing some that were idle. Since crowdedAt no
	// delivery was served, and before pauseEnd none may start.
	crowdedAt, pauseEnd time.Time
}

// ceilingTime is how long a host that refused one connection too many gets no more
// connections than it had then.
const ceilingTime = time.Minute

const (
	// crowdedMax is how long a host may count connections that SMTPC has closed.
	crowdedMax = 5 * time.Second
	// pauseMin is how long it gets to notice, before the next try.
	pauseMin = 100 * time.Millisecond
)

func newWindow(l Limits) window { return window{limits: l, size: max(l.Initial, 1)} }

func (w *window) max() int { return max(w.limits.Max, 1) }

// setLimits gives a window new limits. A closed one stays closed.
func (w *window) setLimits(l Limits) {
	w.limits = l
	w.size = min(w.size, w.max())
}

// free returns how many deliveries may start now.
func (w *window) free(now time.Time) int {
	switch {
	case now.Before(w.pauseEnd):
		return 0
	case w.size > 0:
		return max(w.size-w.inflight, 0)
	case now.Before(w.until):
		return 0
	default:
		return max(1-w.inflight, 0)
	}
}

// closed reports that nothing may start before until.
func (w *window) closed(now time.Time) bool { return w.size == 0 && now.Before(w.until) }

// probe lets a closed window have its probe from now on.
func (w *window) probe(now time.Time) {
	if w.closed(now) {
		w.until = now
	}
}

func (w *window) start() { w.inflight++ }

// aborted ends a delivery that says nothing of the host.
func (w *window) aborted() { w.inflight-- }

// served ends a delivery that the host served.
func (w *window) served(now time.Time) {
	w.inflight--
	w.downs, w.crowdedAt = 0, time.Time{}
	limit := w.max()
	if now.Before(w.growAt) {
		limit = min(limit, w.ceiling)
	}
	w.size = max(min(w.size+1, limit), 1)
}

// refused ends a delivery that was one connection too many beside others.
func (w *window) refused(now time.Time, others int) {
	w.inflight--
	if w.size > 0 {
		w.size = max(min(w.size, others), 1)
		w.ceiling, w.growAt = w.size, now.Add(ceilingTime)
	}
}

// crowded reports whether a refusal of the only delivery is excused by connections that the
// host may still count, and if so begins a pause, which doubles.
func (w *window) crowded(now time.Time) bool {
	if w.crowdedAt.IsZero() {
		w.crowdedAt = now
	}
	waited := now.Sub(w.crowdedAt)
	if waited >= crowdedMax {
		return false
	}
	w.pauseEnd = now.Add(max(waited, pauseMin))
	return true
}

// failed ends a delivery that the host did not serve, and reports whether this closed
// the window. The time for which it closes grows as r says.
func (w *window) failed(now time.Time, r retry.Bounds, rnd float64) bool {
	w.inflight--
	w.crowdedAt = time.Time{}
	if w.closed(now) {
		return false // one of several that were still in progress
	}
	w.size /= 2
	if w.size > 0 {
		return false
	}
	w.downs++
	w.until = now.Add(r.Delay(w.downs, rnd))
	return true
}
