// Package sched decides when the queue tries what: retry times and the slow-start
// window of each host. All of it is values in, values out; time and chance are
// passed in.
package sched

import "time"

// Retry bounds the time between two attempts for one recipient (README 3.8,
// retry_delay_min and retry_delay_max).
type Retry struct {
	Min, Max time.Duration
}

// jitterShare of a delay is spread by chance, so that recipients that failed
// together do not all come back together.
const jitterShare = 5

// Delay is the time until the next attempt after attempts failed ones (at least
// 1): Min, doubled with each further attempt up to Max, less up to a fifth by
// chance, but never less than Min. rnd is a random number from [0,1).
func (r Retry) Delay(attempts int, rnd float64) time.Duration {
	d := r.Min
	for i := 1; i < attempts && d < r.Max; i++ {
		d *= 2
	}
	d = min(d, r.Max)
	d -= time.Duration(rnd * float64(d/jitterShare))
	return max(d, r.Min)
}

// Limits of the window of a host (README 3.8 item 16).
type Limits struct {
	Initial int // connections to a host of which nothing is known
	Max     int
}

// Window is the slow-start state of one host (README 3.8.1): how many
// transactions may be under way at once. The zero Window is not usable; call
// NewWindow.
type Window struct {
	limits   Limits
	size     int
	inflight int
	failures int // host failures since the last success
	downs    int // times that the window closed since the last success
	until    time.Time
}

// NewWindow makes the window of a host of which nothing is known.
func NewWindow(l Limits) Window { return Window{limits: l, size: max(l.Initial, 1)} }

// SetLimits gives a window new limits. A closed one stays closed.
func (w *Window) SetLimits(l Limits) {
	w.limits = l
	w.size = min(w.size, max(l.Max, 1))
}

// Free is how many transactions may start at now. It is 0 while the window is
// closed; when that time is over, one transaction may probe.
func (w *Window) Free(now time.Time) int {
	if w.size == 0 {
		if now.Before(w.until) {
			return 0
		}
		return max(1-w.inflight, 0)
	}
	return max(w.size-w.inflight, 0)
}

// Closed reports that nothing may start before Until.
func (w *Window) Closed(now time.Time) bool { return w.size == 0 && now.Before(w.until) }

// Until is when a closed window lets a probe through.
func (w *Window) Until() time.Time { return w.until }

// Probe lets one transaction through a closed window from now on.
func (w *Window) Probe(now time.Time) {
	if w.Closed(now) {
		w.until = now
	}
}

// Idle reports that nothing is under way.
func (w *Window) Idle() bool { return w.inflight == 0 }

// Downs is how often the window closed since the last success.
func (w *Window) Downs() int { return w.downs }

// Inflight is the number of transactions under way.
func (w *Window) Inflight() int { return w.inflight }

// Size is the number of transactions that may be under way at once.
func (w *Window) Size() int { return w.size }

// Max is what the size may grow to.
func (w *Window) Max() int { return max(w.limits.Max, 1) }

// Start counts a transaction that begins.
func (w *Window) Start() { w.inflight++ }

// Served counts a transaction that the host served, whatever it said of the
// message: the window grows by one.
func (w *Window) Served() {
	w.inflight--
	w.failures, w.downs = 0, 0
	w.size = min(w.size+1, max(w.limits.Max, 1))
}

// Aborted counts a transaction that ended without saying anything about the host.
func (w *Window) Aborted() { w.inflight-- }

// Failed counts a transaction that the host did not serve: the window is halved,
// down to zero, which closes it for a time that grows as r says. It reports
// whether this failure closed the window.
func (w *Window) Failed(now time.Time, r Retry, rnd float64) (closed bool) {
	w.inflight--
	w.failures++
	if w.Closed(now) {
		return false // one of several that were still under way
	}
	w.size /= 2
	if w.size > 0 {
		return false
	}
	w.downs++
	w.until = now.Add(r.Delay(w.downs, rnd))
	return true
}
