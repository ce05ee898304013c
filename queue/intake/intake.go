// Package intake decides which deferred mail comes into the active queue, and when: what is due
// (schedule), and what is parked for a destination that was closed and serves again (Park). It is
// pure, as package aq is, which says what becomes of each recipient; here only names of
// destinations and of recipients are known. Scan is what it asks the store for.
package intake

import (
	"time"

	"meta1/mta/lists"
	"meta1/queue/budget"
	"meta1/queue/entry"
	"meta1/queue/retry"
	"meta1/queue/sched"
)

// Config is what the decisions depend on.
type Config struct {
	Budget   *budget.Budget
	Sched    *sched.Scheduler
	Retry    retry.Bounds
	ParksMax int // destinations for which mail is parked
	ScanMax  int // recipients of one scan
	Share    int // of the active queue that one destination may take, in percent
	// Date is a moment of the queue's clock as the machine's clock shows it.
	Date func(time.Time) string
}

// Intake is the deferred mail that may come in. It is not safe for concurrent use.
type Intake struct {
	cfg      Config
	parks    map[string]*Park
	byHost   map[*sched.Host][]*Park
	wanted   lists.FIFO[*Park] // of which something is to be loaded
	probes   lists.Heap[probe]
	schedule schedule
	running  *Scan

	// While a scan runs:
	stale  map[entry.Ref]struct{} // recipients that have changed: what it brings of them is old
	parked []parkedRef            // recipients that were parked
}

// New makes an intake that knows of no parked mail.
func New(cfg Config, now time.Time) *Intake {
	return &Intake{
		cfg: cfg, parks: map[string]*Park{}, byHost: map[*sched.Host][]*Park{}, stale: map[entry.Ref]struct{}{},
		probes:   lists.NewHeap(func(a, b probe) bool { return a.at.Before(b.at) }, nil),
		schedule: schedule{late: entry.Due{At: now.Add(cfg.Retry.Max)}},
	}
}

// Configure gives another Config, of the same Budget and Sched. No route that fails waits longer than it may
// by the new Retry. What is due later than the new Retry.Max is looked for, as after a start: it comes in
// now, as far as there is room. Parks stay, even if they are more than ParksMax.
func (i *Intake) Configure(now time.Time, cfg Config) {
	lower := cfg.Retry.Max < i.cfg.Retry.Max
	i.cfg = cfg
	if !lower {
		return
	}
	i.schedule.findLate(now.Add(cfg.Retry.Max))
	for _, p := range i.parks {
		latest := now.Add(cfg.Retry.Delay(p.fails, retry.Chance(p.name, uint64(p.fails))))
		if p.isRoute() && p.state == Closed && p.until.After(latest) {
			p.until = latest
			i.probes.Push(probe{p.until, p})
		}
	}
}

// Tick lets time pass.
func (i *Intake) Tick(now time.Time) {
	for i.probes.Len() > 0 && !i.probes.First().at.After(now) {
		p, _ := i.probes.Pop()
		i.probeRoute(p)
	}
	i.HostChanges(now)
}

// Wake is when Tick or Next has something to do, if nothing happens before.
func (i *Intake) Wake() (at time.Time) {
	if at = i.probes.First().at; i.running == nil {
		if due := i.schedule.next(); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// OverShare reports whether a destination takes too much of an active queue that is more than
// half full.
func (i *Intake) OverShare(d *sched.Destination, class sched.Class) bool {
	total, _, _, _ := i.cfg.Budget.Used()
	return total > i.cfg.Budget.Max()/2 && d.Entries() > i.share(class)
}

// share is what a destination may have of an active queue that is more than half full. Of
// deferred mail it is less, for the quarter that is deferred mail's own must not be one
// destination's.
func (i *Intake) share(class sched.Class) int {
	share := i.cfg.Budget.Max() * i.cfg.Share / 100
	if class == sched.Deferred {
		share = min(share, i.cfg.Budget.Max()/8)
	}
	return max(share, 1)
}

// room is how many parked recipients may be loaded for a destination, so that it keeps to its
// share.
func (i *Intake) room(dest string) int {
	share := i.share(sched.Fresh)
	if total, _, _, _ := i.cfg.Budget.Used(); total > i.cfg.Budget.Max()/2 {
		share = i.share(sched.Deferred)
	}
	if d := i.cfg.Sched.Lookup(dest, ""); d != nil {
		share -= d.Entries()
	}
	return share
}

// Changed takes note of a recipient whose record has changed, or that has left the active queue.
func (i *Intake) Changed(ref entry.Ref) {
	if i.running != nil {
		i.stale[ref] = struct{}{}
	}
}

// Stale reports whether what the scan that runs brings of a recipient is old.
func (i *Intake) Stale(ref entry.Ref) bool {
	_, stale := i.stale[ref]
	return stale
}

// Deferred takes note of a record that is durable. sender is that of the message, "" if it is not
// known.
func (i *Intake) Deferred(now time.Time, st *entry.State, sender string) {
	i.Changed(st.Ref)
	i.schedule.deferred(st.NextTry, i.running != nil)
	switch {
	case !st.Parked:
	case i.running != nil: // the scan may be in the index just now
		i.parked = append(i.parked, parkedRef{st.Ref, st.Dest, sender})
	default:
		i.park(now, parkedRef{st.Ref, st.Dest, sender})
	}
}
