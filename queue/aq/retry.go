package aq

import (
	"slices"
	"time"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// outcome is what becomes of recipients of one message in one step. Those that end or are
// deferred share a save, those whose sender hears of them a notice.
type outcome struct {
	m       *message
	da      string // of which transaction of the client (da_ta), "" for none
	save    *Save
	ended   []*rcpt
	failed  []notice // for good
	notices []notice // delivered or delayed
}

// saving is the save of the step.
func (c *Core) savingOf(o *outcome) *Save {
	if o.save == nil {
		o.save = c.newSave(o.m)
	}
	return o.save
}

// next concludes the step of one message where that of another begins.
func (c *Core) next(o *outcome, m *message) {
	if o.m != m {
		c.conclude(o)
		*o = outcome{m: m}
	}
}

// conclude finishes a step.
func (c *Core) conclude(o *outcome) {
	switch {
	case len(o.ended) == 0:
	case o.m.making != nil: // the message may end with them, and what is being made reads its content
		for _, r := range o.ended {
			c.unready(r)
			r.state = Noticing
		}
		o.m.ending = append(o.m.ending, o.ended...)
	default:
		c.end(c.savingOf(o), o.ended)
	}
	c.sendNotices(o.m, o.notices)
	c.bounce(o.m, o.da, o.failed)
}

// failing is a failed attempt for a recipient.
type failing struct {
	reply     smtp.Reply
	remote    string // the host that gave the reply, "" if it is our own
	notBefore time.Time
	park      *intake.Park // where it is parked, nil for nowhere
	dane      bool         // no TLSA record matched
}

// again defers a recipient after a failed attempt. If it has been in the queue for too long, it
// has failed.
func (c *Core) again(r *rcpt, f failing, ends *outcome) {
	patience := c.cfg.Patience
	if f.dane {
		patience = c.cfg.DANEPatience
	}
	if c.age(r) >= patience.Return {
		ends.failed = append(ends.failed, r.expiry(f.reply, f.remote))
		return
	}
	var next State
	if f.park != nil {
		next.Parked, next.Dest = true, f.park.Name()
	}
	next.Delayed = c.delayed(r, f.reply, f.remote, patience, ends)
	next.Attempts = r.rec.Attempts + 1
	next.NextTry = c.now.Add(c.cfg.Sched.Retry.Delay(next.Attempts, c.chance(r, next.Attempts)))
	if next.NextTry.Before(f.notBefore) {
		next.NextTry = f.notBefore
	}
	next.Reason = f.reply.String()
	c.counts.Deferred++
	c.logAttempt("deferred", ends.da, r, f.reply, false)
	c.put(c.savingOf(ends), r, next)
}

// postpone defers recipients of one message that were not tried, until next.
func (c *Core) postpone(rcpts []*rcpt, next time.Time, reason string) {
	if len(rcpts) == 0 {
		return
	}
	ends := outcome{m: rcpts[0].m}
	for _, r := range rcpts {
		c.postponeOne(r, State{NextTry: next, Reason: reason}, &ends)
	}
	c.conclude(&ends)
}

// postponeOne defers a recipient that was not tried. One whose time is over has failed.
func (c *Core) postponeOne(r *rcpt, next State, ends *outcome) {
	if c.expired(r) {
		ends.failed = append(ends.failed, r.expiry(smtp.NewReply(451, "4.4.7", next.Reason), ""))
		return
	}
	if !next.NextTry.After(c.now) {
		next.NextTry = c.now.Add(time.Second)
	}
	next.Attempts = r.rec.Attempts
	c.put(c.savingOf(ends), r, next)
}

func (c *Core) expired(r *rcpt) bool { return c.age(r) >= c.cfg.Patience.Return }

// delayed has the sender told once that a recipient still waits (README 3.8, item 13).
func (c *Core) delayed(r *rcpt, reply smtp.Reply, remote string, p Patience, ends *outcome) bool {
	after := p.Delay
	if after == 0 || r.rec.Delayed || c.age(r) < after || r.m.env.Mail.From.IsNull() {
		return r.rec.Delayed
	}
	if c.cfg.Notice.NoLMTPDelay && r.dest != nil && r.dest.Hops()[0].Protocol == msg.ProtoLMTP {
		return false
	}
	n := r.notice(dsn.Delayed, reply)
	n.keep = true
	n.f.Remote = remote
	n.f.RetryUntil = c.now.Add(p.Return - c.age(r))
	ends.notices = append(ends.notices, n)
	return true
}

// deferMail defers what is left of a mail that has no host to be tried now: it is parked if p
// is set, unless it was tried.
func (c *Core) deferMail(w *mail, p *intake.Park) {
	reply, from := w.last, w.from
	if reply.IsZero() {
		reply = smtp.NewReply(451, "4.4.1", "no host of "+w.d.Key()+" can be tried now: "+c.closedReason(w.d))
	}
	ends := outcome{m: w.m}
	for _, r := range append([]*rcpt(nil), w.rcpts...) {
		switch {
		case r.mail != w:
		case len(w.job.Tried) > 0 || c.expired(r):
			c.again(r, failing{reply: reply, remote: from, park: p}, &ends)
		case p != nil:
			c.parkIn(r, p, &ends)
		default:
			c.postponeOne(r, State{NextTry: c.now.Add(c.cfg.Sched.Retry.Min), Reason: reply.String()}, &ends)
		}
	}
	c.conclude(&ends)
}

// timedOut defers recipients that waited longer than scheduler_timeout for a connection
// (README 8.3 item 8).
func (c *Core) timedOut(j *sched.Job) {
	w := j.Mail.(*mail)
	rcpts := slices.DeleteFunc(slices.Clone(w.rcpts), func(r *rcpt) bool { return r.mail != w })
	c.postpone(rcpts, c.now.Add(c.cfg.Sched.Retry.Min), "waited longer than scheduler_timeout for a connection to "+w.d.Key())
}

// makePause is when a recipient is due whose notice or expansion could not be made.
const makePause = time.Minute

// closedReason is why a destination's hosts are closed.
func (c *Core) closedReason(d *sched.Destination) string {
	for _, h := range c.sched.HostsOf(d) {
		if h.Reason() != "" {
			return h.Reason()
		}
	}
	return "unknown"
}
