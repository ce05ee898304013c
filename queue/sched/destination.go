package sched

import (
	"slices"
	"time"

	"meta1/mta/lists"
	"meta1/mta/msg"
)

// Destination is mail that goes the same way under the same limits.
type Destination struct {
	key     destKey
	hops    []msg.Hop
	queues  []*readyQueue // in no order
	entries int
	elem    lists.Elem[*Destination]
}

// destKey: limits is the name of the connection_limits for the domain of the recipients,
// "" for none.
type destKey struct{ key, limits string }

// Key returns the name of the destination, as SMAR gave it.
func (d *Destination) Key() string { return d.key.key }

// Limits returns the name of the connection_limits, "" for none.
func (d *Destination) Limits() string { return d.key.limits }

// Hops returns the hosts in the order in which they are tried.
func (d *Destination) Hops() []msg.Hop { return d.hops }

// SetHops sets the hosts in the order in which they are tried. What waits for a host
// that is no longer one of them notices at its turn.
func (d *Destination) SetHops(hops []msg.Hop) { d.hops = hops }

// Entries returns the recipients that were counted by AddEntries.
func (d *Destination) Entries() int { return d.entries }

// Destination finds or makes a destination. One that was made needs SetHops, and is
// forgotten when AddEntries finds it without entries and mail.
func (s *Scheduler) Destination(key, limits string) *Destination {
	k := destKey{key: key, limits: limits}
	d := s.dests[k]
	if d == nil {
		d = &Destination{key: k}
		d.elem.V = d
		s.dests[k] = d
		s.listed.PushBack(&d.elem)
		s.stats.Destinations.add(1)
	}
	return d
}

// Lookup returns a destination, nil if it is not known.
func (s *Scheduler) Lookup(key, limits string) *Destination {
	return s.dests[destKey{key: key, limits: limits}]
}

// AddEntries counts n recipients of a destination more, or fewer: those that are ready
// or being delivered. A destination without entries and mail is forgotten.
func (s *Scheduler) AddEntries(d *Destination, n int) {
	d.entries += n
	s.forgetDestination(d)
}

func (s *Scheduler) forgetDestination(d *Destination) {
	if d.entries == 0 && len(d.queues) == 0 && d.elem.Listed() {
		d.elem.Remove()
		delete(s.dests, d.key)
		s.stats.Destinations.add(-1)
	}
}

// anyOpen reports whether some host of a destination is not closed.
func (s *Scheduler) anyOpen(now time.Time, d *Destination) bool {
	return slices.ContainsFunc(d.hops, func(hop msg.Hop) bool {
		h := s.hosts[s.hostKey(hop, d)]
		return h == nil || !h.window.closed(now)
	})
}

// AllClosed reports whether every host of a destination is closed.
func (s *Scheduler) AllClosed(now time.Time, d *Destination) bool { return !s.anyOpen(now, d) }
