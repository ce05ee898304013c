package sched

import (
	"slices"
	"time"

	"meta1/mta/lists"
	"meta1/mta/msg"
)

// Delivery is one that is in progress. Its fields are set by the scheduler.
type Delivery struct {
	Job   *Job
	Hop   msg.Hop
	Host  *Host
	Start time.Time

	sender  *sender
	counted bool // as one of the connections of the minute
	toNew   bool // the host was new when it began
	state   deliveryState
	moved   time.Time             // the last progress
	elem    lists.Elem[*Delivery] // in Scheduler.moving or hanging
	own     lists.Elem[*Delivery] // in sender.hung
}

// Started begins the delivery of a decision to start. If recipients are left in the job,
// it waits for its next turn.
func (s *Scheduler) Started(dec *Decision) *Delivery {
	q := dec.Job.queue
	if dec.Job.Mail.Waiting() > 0 {
		q.jobs.Back(dec.turn, true)
	} else {
		s.stats.Jobs.add(-1)
	}
	s.goOnOrDrop(q)
	s.setState(dec.delivery, deliveryMoves)
	return dec.delivery
}

// NotStarted gives back what a decision to start has taken. The same decision may be
// the next one.
func (s *Scheduler) NotStarted(now time.Time, dec *Decision) {
	d, q := dec.delivery, dec.Job.queue
	q.jobs.Back(dec.turn, false)
	s.openFirst(q)
	s.giveBack(d)
	d.untried(now)
	d.Host.rate.ended(now, d.Start, d.counted, connUntried, false)
	d.Host.window.aborted()
	s.wake(now, d.Host)
	s.relax(now)
}

// Verdict is what a delivery says of its host.
type Verdict uint8

const (
	// Served: the host served, whatever it said of the mail.
	Served Verdict = iota
	// HostFailed: the host as a whole did not serve.
	HostFailed
	// TooMany: the host refused one connection too many. It is HostFailed if no other
	// delivery to it, under the same limits, is in progress or was served meanwhile; but where
	// there were connections besides, idle or just closed, the host gets some seconds to notice
	// that they are gone.
	TooMany
	// NotTried: no connection was tried, so it says nothing.
	NotTried
	// Unknown: it says nothing for another reason; a connection may have been opened.
	Unknown
	// SlowDown: it failed because the host's provider asks for less mail, which says nothing of the
	// host. Done makes it of HostFailed.
	SlowDown
)

// Result is how a delivery has ended.
type Result struct {
	Verdict Verdict
	Others  int    // with TooMany: connections to the host that were open besides; 0: not known
	Reused  bool   // it used a connection that was open already
	Keeps   bool   // its connection stays open for further deliveries
	Reason  string // with HostFailed: what went wrong
	Reach   Reach
	// SlowDown is the reply by which the host's provider asks for less mail, "" for none. It counts
	// where the host has a provider.
	SlowDown string
	TLS      msg.HostTLS // of the connection, if there was one
}

// Outcome is what follows from a result.
type Outcome struct {
	Verdict Verdict // HostFailed if TooMany was no excuse, SlowDown if it failed for that
	Closed  bool    // this failure closed the host
	HasNext bool    // the job may go on with another host of its destination
	// SlowDown: the host's provider asks for less mail: its other hosts are not tried. Halved: its
	// rate was halved for it.
	SlowDown, Halved bool
	// TriedLast names the family of the host's addresses, "IPv4" or "IPv6", if it follows that it does
	// not work; "" if not.
	TriedLast string
}

// Done ends a delivery.
func (s *Scheduler) Done(now time.Time, d *Delivery, r Result) Outcome {
	h := d.Host
	s.giveBack(d)
	if alone := h.window.inflight < 2 && !h.servedAt.After(d.Start); r.Verdict == TooMany && alone && (r.Others == 0 || !h.window.crowded(now)) {
		r.Verdict = HostFailed
	}
	conn := connOpened
	switch {
	case r.Verdict == NotTried:
		conn = connUntried
		d.untried(now)
	case r.Reused:
		conn = connReused
	}
	h.rate.ended(now, d.Start, d.counted, conn, r.Keeps && s.cfg.ReuseConnection && r.Verdict == Served)
	out := Outcome{HasNext: s.hasNext(d), TriedLast: s.families.note(now, h, r.Reach, r.Reason)}
	if out.SlowDown = r.SlowDown != "" && h.provider != nil; out.SlowDown {
		out.Halved = s.slow(now, h.provider, d.Start, r.SlowDown)
		if r.Verdict == HostFailed {
			r.Verdict = SlowDown
		}
	}
	out.Verdict = r.Verdict
	if r.TLS != (msg.HostTLS{}) {
		h.tls = r.TLS
	}
	switch r.Verdict {
	case Served:
		s.served(now, h)
	case HostFailed:
		h.serves, h.reason = false, r.Reason
		if wasUp := h.window.size > 0; h.window.failed(now, s.closedFor(h), s.chance(h, h.window.downs)) {
			out.Closed = true
			if wasUp {
				s.stats.Down.add(1)
			}
			h.probeAt = h.window.until
		}
	case TooMany:
		others := h.window.inflight - 1
		if r.Others > 0 && r.Others < others {
			others = r.Others
		}
		h.window.refused(now, others)
	default:
		h.window.aborted()
	}
	s.touch(now, h)
	s.wake(now, h)
	s.relax(now)
	return out
}

// hasNext reports whether the destination has a host that was not tried for this job.
func (s *Scheduler) hasNext(d *Delivery) bool {
	tried := d.Job.Tried
	return len(tried)+1 < s.cfg.HostsPerAttempt && slices.ContainsFunc(d.Job.Dest.hops, func(h msg.Hop) bool {
		return h != d.Hop && !slices.Contains(tried, h)
	})
}

// untried takes a delivery that did not begin off what its provider's rate counts.
func (d *Delivery) untried(now time.Time) {
	if p := d.Host.provider; p != nil {
		p.pace.Undo(now)
	}
}

// giveBack gives back the slot of a delivery.
func (s *Scheduler) giveBack(d *Delivery) {
	s.setState(d, deliveryEnded)
	s.slots.used--
	s.stats.InUse.add(-1)
	if p := d.Host.provider; p != nil {
		p.inflight--
	}
	if d.toNew {
		s.slots.toNew--
		s.recount(d.sender, func() { d.sender.toNew-- })
		s.forgetSender(d.sender)
	}
}
