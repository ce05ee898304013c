package sched

import (
	"iter"
	"time"

	"meta1/mta/msg"
)

const (
	// familyPause is how long the hosts of a family of addresses that does not work are tried last.
	familyPause = 10 * time.Minute
	// familyTimeouts is how many hosts of a family must not answer, and none may, until it does not
	// work.
	familyTimeouts = 3
)

// Reach is what a delivery says of the family of addresses of its host.
type Reach uint8

const (
	// ReachUnknown: nothing.
	ReachUnknown Reach = iota
	// Reached: the host was there, whatever it said.
	Reached
	// NoAnswer: nobody answered.
	NoAnswer
	// NoNetwork: this machine has no way to such addresses.
	NoNetwork
)

// family is what is known of IPv4 or IPv6: whether mail goes out by it. RFC 8305 has such a memory
// for connections that are made at once; here it saves the wait for one host after the other.
type family struct {
	silent []HostKey // different hosts that did not answer since one did
	until  time.Time // before that its hosts are tried last
	reason string
}

// families are those of IPv4 and IPv6.
type families [2]family

// of returns the family of a hop, nil for a socket, and its name.
func (f *families) of(hop msg.Hop) (of *family, name string) {
	switch ip := hop.Addr.Addr().Unmap(); {
	case ip.Is4():
		return &f[0], "IPv4"
	case ip.Is6():
		return &f[1], "IPv6"
	}
	return nil, ""
}

// last reports whether a hop is tried after those of the other family.
func (f *families) last(now time.Time, hop msg.Hop) bool {
	of, _ := f.of(hop)
	return of != nil && now.Before(of.until)
}

// note notes what a delivery says of the family of its host, and returns its name if it follows that the
// family does not work, "" if not.
func (f *families) note(now time.Time, h *Host, r Reach, reason string) (broken string) {
	of, name := f.of(h.hop)
	if of == nil || r == ReachUnknown {
		return ""
	}
	if r == Reached {
		*of = family{}
		return ""
	}
	k := h.key()
	known := false
	for _, s := range of.silent {
		known = known || s == k
	}
	if !known && len(of.silent) < familyTimeouts {
		of.silent = append(of.silent, k)
	}
	if r == NoAnswer && len(of.silent) < familyTimeouts {
		return ""
	}
	if !now.Before(of.until) {
		broken = name
	}
	of.until, of.reason = now.Add(familyPause), reason
	return broken
}

// inOrder gives the hops of a destination in the order in which they are tried: in that of the route,
// but those of a family that does not work behind the others.
func (s *Scheduler) inOrder(now time.Time, d *Destination) iter.Seq[msg.Hop] {
	return func(yield func(msg.Hop) bool) {
		later := false
		for _, hop := range d.hops {
			if s.families.last(now, hop) {
				later = true
			} else if !yield(hop) {
				return
			}
		}
		for _, hop := range d.hops {
			if later && s.families.last(now, hop) && !yield(hop) {
				return
			}
		}
	}
}

// Families returns the families of addresses that do not work.
func (s *Scheduler) Families(now time.Time) (broken []msg.FamilyEntry) {
	for i, name := range []string{"IPv4", "IPv6"} {
		if f := &s.families[i]; now.Before(f.until) {
			broken = append(broken, msg.FamilyEntry{Family: name, Until: f.until, Reason: f.reason})
		}
	}
	return broken
}
