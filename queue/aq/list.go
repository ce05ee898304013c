package aq

import (
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// Entries are the first recipients of the active queue from one on, in order, but not more
// than most.
func (c *Core) Entries(from Ref, most int) []msg.ListEntry {
	var entries []msg.ListEntry
	for _, m := range c.nearest(from.TA, most+1) { // the first of them may have nothing from the index on
		for _, r := range m.all() {
			if r.ref().Compare(from) >= 0 {
				entries = append(entries, c.entry(r))
			}
		}
		if len(entries) >= most {
			return entries[:most]
		}
	}
	return entries
}

// nearest are the first messages with recipients in the active queue from one on, in order,
// but not more than most. It costs one look at each message, however many are wanted.
func (c *Core) nearest(ta smtp.ID, most int) (near []*message) {
	sort := func() {
		slices.SortFunc(near, func(a, b *message) int { return entry.CompareTA(a.env.TA, b.env.TA) })
		near = near[:min(len(near), most)]
	}
	var bound smtp.ID // nothing behind it is among the nearest; zero: not known
	for id, m := range c.messages {
		if len(m.rcpts) == 0 || entry.CompareTA(id, ta) < 0 || !bound.IsZero() && entry.CompareTA(id, bound) > 0 {
			continue
		}
		if near = append(near, m); len(near) >= 2*most {
			sort()
			bound = near[most-1].env.TA
		}
	}
	sort()
	return near
}

func (c *Core) entry(r *rcpt) msg.ListEntry {
	e := msg.ListEntry{
		TA: r.m.env.TA, Index: r.index, State: msg.StateActive, Arrival: r.m.env.Arrival, Size: r.m.size,
		Sender: r.m.env.Mail.From, Rcpt: r.path(), Attempts: r.rec.Attempts, Dest: r.destName(),
	}
	switch r.state {
	case Routing:
		e.Reason = "asking for the route"
		if c.down[SMAR] {
			e.Reason = "waiting for SMAR, which does not run"
		}
	case ReadyState:
		e.Reason = c.readyReason(r)
	case Delivering:
		e.State, e.Reason = msg.StateInFlight, "being delivered"
	case Noticing:
		e.Reason = "its sender is being told"
	default:
		e.Reason = "being written down"
	}
	return e
}

// readyReason tells what a recipient in the ready queue waits for.
func (c *Core) readyReason(r *rcpt) string {
	switch {
	case c.down[SMTPC]:
		return "waiting for SMTPC, which does not run"
	case r.mail == nil || r.mail.job == nil:
		return "waiting for its turn"
	}
	return c.sched.WaitReason(c.now, r.mail.job, c.date)
}

// Parks are all parks as they stand now, by destination.
func (c *Core) Parks() map[string]intake.ParkInfo { return c.intake.Parks() }

// Oldest is the first message of the active queue, zero if there is none.
func (c *Core) Oldest() (oldest *msg.Envelope) {
	for _, m := range c.messages {
		if len(m.rcpts) > 0 && (oldest == nil || m.env.Arrival.Before(oldest.Arrival)) {
			oldest = m.env
		}
	}
	return oldest
}

// Counts are the totals since the start.
func (c *Core) Counts() Counts { return c.counts }

// Stats are the figures of the scheduler.
func (c *Core) Stats() sched.Stats { return c.sched.Stats() }

// Hosts is what is known of the hosts.
func (c *Core) Hosts(now time.Time) []sched.HostInfo { return c.sched.Hosts(now) }

// Families are the families of addresses that do not work.
func (c *Core) Families(now time.Time) []msg.FamilyEntry { return c.sched.Families(now) }

// Providers is what is known of the providers, but for what waits.
func (c *Core) Providers(now time.Time) []msg.ProviderEntry { return c.sched.Providers(now) }

// Down reports whether work for a module pauses because it does not run.
func (c *Core) Down(m Module) bool { return c.down[m] }
