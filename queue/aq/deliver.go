package aq

import (
	"log/slog"
	"time"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/intake"
	"meta1/queue/sched"
	"meta1/queue/verdict"
)

// mail is recipients of one message in the ready queue that go to one destination. It may
// hold more than one delivery takes.
type mail struct {
	m       *message
	d       *sched.Destination
	class   sched.Class
	job     *sched.Job
	rcpts   []*rcpt // some may have gone: those whose mail is another
	waiting int     // those that have not
	last    smtp.Reply
	from    string // the host that gave last, "" if it is our own

	one [1]*rcpt // what rcpts begins with
}

// readyKey tells the mail of one message in the ready queue apart.
type readyKey struct {
	d     *sched.Destination
	class sched.Class
}

// Waiting is the number of recipients that still wait (sched.Mail).
func (w *mail) Waiting() int { return w.waiting }

// lose takes a recipient out.
func (w *mail) lose(r *rcpt) {
	w.waiting--
	r.mail = nil
	w.tidy()
}

// tidy forgets mail of which nobody waits.
func (w *mail) tidy() {
	if k := (readyKey{w.d, w.class}); w.waiting == 0 && w.m.ready[k] == w {
		delete(w.m.ready, k)
	}
}

// attempt is what the core keeps of a delivery.
type attempt struct {
	d     *sched.Delivery
	mail  *mail // from which the recipients come
	rcpts []*rcpt
}

// join puts a recipient with a route into the ready queue, or parks it where its destination
// has a backlog.
func (c *Core) join(r *rcpt, dest string, hops []msg.Hop, conf *msg.Conf) {
	if r.class == sched.Fresh {
		if p := c.intake.Behind(dest, r.m.sender); p != nil {
			r.rec.Dest = dest
			c.parkOne(r, p)
			return
		}
	}
	d := c.sched.Destination(dest, c.cfg.Limits(r.domain))
	d.SetHops(hops)
	if r.park == nil && c.intake.OverShare(d, r.class) { // what returns has been given room
		r.rec.Dest = dest
		c.parkOne(r, c.intake.Backlog(dest))
		return
	}
	r.state, r.conf, r.dest = ReadyState, conf, d
	c.sched.AddEntries(d, 1)
	k := readyKey{d, r.class}
	w := r.m.ready[k]
	if w == nil {
		w = &mail{m: r.m, d: d, class: r.class}
		if len(r.m.env.Rcpts) > 1 {
			if r.m.ready == nil {
				r.m.ready = map[readyKey]*mail{}
			}
			r.m.ready[k] = w
		}
	}
	r.mail = w
	if w.rcpts == nil {
		w.rcpts = w.one[:0]
	}
	w.rcpts = append(w.rcpts, r)
	if w.waiting++; w.waiting == 1 {
		w.job = c.sched.Add(c.now, d, r.m.sender, r.class, r.m.env.Arrival, w)
	}
}

// dispatch starts deliveries as long as there are slots and open windows.
func (c *Core) dispatch() {
	for !c.draining && !c.down[SMTPC] {
		dec := c.sched.Ready(c.now)
		if dec == nil {
			return
		}
		w := dec.Job.Mail.(*mail)
		switch dec.Kind {
		case sched.Start:
			c.start(dec, w)
		case sched.AllClosed:
			c.parkDestination(w.d)
		case sched.NoneLeft:
			c.sched.Take(dec)
			c.deferMail(w, nil)
		}
	}
}

// start hands recipients of a mail to the client.
func (c *Core) start(dec *sched.Decision, w *mail) {
	rcpts := c.take(w)
	if len(rcpts) == 0 {
		c.sched.NotStarted(c.now, dec)
		return
	}
	d := &Delivery{
		Hop: dec.Hop, Envelope: w.m.env, Body: w.m.body, Sender: w.m.env.Mail.From, Rcpts: make([]int, len(rcpts)),
		Dest: w.d.Key(), Limits: w.d.Limits(), Provider: dec.Host.Provider().Name(), Start: c.now, Waited: c.age(rcpts[0]),
		attempt: attempt{mail: w, rcpts: rcpts},
	}
	for i, r := range rcpts {
		r.state, r.start = Delivering, c.now
		d.Rcpts[i] = r.index
		if r.conf != nil {
			if d.Conf == nil {
				d.Conf = make([]*msg.Conf, len(rcpts))
			}
			d.Conf[i] = r.conf
		}
	}
	if c.verp(w.m) {
		d.Sender = c.verpSender(d.Sender, rcpts[0])
	}
	d.attempt.d = c.sched.Started(dec)
	c.running[d.attempt.d] = d
	c.out.Deliver = append(c.out.Deliver, d)
}

// lookBack bounds the recipients of a mail that are passed over in search of those that may
// share a delivery.
const lookBack = 8

// take takes as many recipients from a mail as may share one delivery.
func (c *Core) take(w *mail) (rcpts []*rcpt) {
	most := c.cfg.SMTPRcpts
	switch {
	case c.verp(w.m):
		most = 1
	case w.d.Hops()[0].Protocol == msg.ProtoLMTP:
		most = c.cfg.LMTPRcpts
	}
	var apart []*rcpt
	i := 0
	for ; i < len(w.rcpts) && len(rcpts) < most && len(apart) < lookBack; i++ {
		switch r := w.rcpts[i]; {
		case r.mail != w:
		case len(rcpts) > 0 && !rcpts[0].conf.SharesTransaction(r.conf):
			apart = append(apart, r)
		default:
			r.mail = nil
			rcpts = append(rcpts, r)
		}
	}
	w.rcpts = append(apart, w.rcpts[i:]...)
	w.waiting -= len(rcpts)
	w.tidy()
	return rcpts
}

// verp reports whether the sender of a message's transactions names its recipient (README
// 3.14).
func (c *Core) verp(m *message) bool { return c.cfg.VERP.Applies(m.env.Mail.From, m.env.Mail.VERP) }

// verpSender is a sender that names the recipient, or the sender as it is if there is none
// (package verp says when). Bounces go there whoever makes them, we or another host, as with
// Postfix: a list manager then has one place to look at.
func (c *Core) verpSender(from smtp.Path, r *rcpt) smtp.Path {
	own, ok := c.cfg.VERP.Sender(from, r.path())
	if !ok {
		c.logRcpt(slog.LevelInfo, "VERP left out", r)
		return from
	}
	return own
}

// delivered goes on after a delivery: each recipient has ended, failed, is tried at the next
// host, or is deferred.
func (c *Core) delivered(ev *Delivered) {
	d := ev.Delivery
	delete(c.running, d.attempt.d)
	t := verdict.Attempt{Hop: &d.Hop, Rcpts: len(d.rcpts), Conf: d.Conf, A: &ev.A, Err: ev.Err, Down: ev.Down}
	res := t.Host()
	out := c.sched.Done(c.now, d.attempt.d, res)
	c.intake.HostChanges(c.now)
	w, dest := d.mail, d.mail.d
	hostFailed := out.Verdict == sched.HostFailed
	if out.Closed {
		host := d.attempt.d.Host
		c.log(slog.LevelWarn, "host does not serve: no attempts for a while", slog.String("host", d.Hop.String()),
			slog.String("until", c.date(host.Until())), slog.String("reply", res.Reason))
	}
	if out.TriedLast != "" {
		c.log(slog.LevelWarn, "a family of addresses does not work: its hosts are tried last for a while", slog.String("family", out.TriedLast),
			slog.String("host", d.Hop.String()), slog.String("reply", res.Reason))
	}
	if out.Halved {
		p := d.attempt.d.Host.Provider()
		c.log(slog.LevelWarn, "provider asks for less mail: its rate is halved", slog.String("provider", p.Name()), slog.String("host", d.Hop.String()),
			slog.String("rate", p.Rate(c.now)), slog.String("until", c.date(p.Until())), slog.String("reply", res.SlowDown))
	}
	if ev.Down {
		c.down[SMTPC] = true
	}
	ends := outcome{m: w.m, da: ev.A.Transaction}
	if ev.Down || out.Verdict == sched.TooMany { // no attempt for those who are not delivered yet
		var rcpts []*rcpt
		for i, r := range d.rcpts {
			if reply := t.Reply(i); !ev.Down && reply.Accepted() {
				c.deliveredOne(&t, r, reply, &ends)
			} else {
				rcpts = append(rcpts, r)
			}
		}
		if len(rcpts) > 0 {
			back := c.back(w, rcpts)
			back.job = c.sched.PutBack(d.attempt.d, back)
		}
		c.conclude(&ends)
		return
	}
	next := (hostFailed && !ev.A.Unknown || ev.A.TLSUnmet || ev.A.Own || t.Refused() && len(d.attempt.d.Job.Tried) == 0 && !out.SlowDown) && out.HasNext
	var down *intake.Park
	var notBefore time.Time
	if hostFailed && !next {
		c.routes.Forget(dest.Key())
		host := d.attempt.d.Host
		if host.Closed(c.now) {
			notBefore = host.Until()
		}
		if ev.A.Stage < msg.DeliverMail && c.sched.AllClosed(c.now, dest) { // it says nothing of the mail
			down = c.intake.Close(c.now, dest)
		}
	}
	var again []*rcpt
	for i, r := range d.rcpts {
		reply := t.Reply(i)
		switch {
		case reply.Accepted():
			c.deliveredOne(&t, r, reply, &ends)
		case reply.Permanent() && !(next && ev.A.Own): // what one host lacks another may have
			ends.failed = append(ends.failed, r.failure(reply, ev.A.StageOf(i).Step(), t.Remote()))
		case next:
			w.last, w.from = reply, t.Remote()
			again = append(again, r)
		default:
			c.again(r, failing{reply, t.Remote(), notBefore, down, ev.A.TLSUnmet && ev.A.DANENoMatch}, &ends)
		}
	}
	if len(again) > 0 {
		back := c.back(w, again)
		back.job = c.sched.Again(d.attempt.d, back)
	}
	c.conclude(&ends)
}

// back is what recipients of a delivery are in the ready queue again.
func (c *Core) back(from *mail, rcpts []*rcpt) *mail {
	w := &mail{m: from.m, d: from.d, class: from.class, rcpts: rcpts, waiting: len(rcpts), last: from.last, from: from.from}
	for _, r := range rcpts {
		r.state, r.mail = ReadyState, w
	}
	return w
}

// deliveredOne ends a recipient that was delivered, or has its sender told of it first, who
// asked for that and to whom the next hop will not tell it (RFC 3461 section 5.2.2).
func (c *Core) deliveredOne(t *verdict.Attempt, r *rcpt, reply smtp.Reply, ends *outcome) {
	c.counts.Delivered++
	if r.park != nil {
		c.intake.Served(c.now, r.park)
	}
	c.logAttempt("delivered", ends.da, r, reply, true)
	kind, ours := dsn.Success(t.Hop.Protocol == msg.ProtoLMTP, t.A.DSN)
	if r.attr().Notify == "" || !ours || r.m.env.Mail.From.IsNull() || !dsn.Due(r.attr().Notify, kind) {
		ends.ended = append(ends.ended, r)
		return
	}
	n := r.notice(kind, reply)
	n.f.Remote = t.Remote()
	ends.notices = append(ends.notices, n)
}
