package queue

import (
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
	"meta1/queue/dsn"
	"meta1/queue/sched"
)

// deliveredEvent: a delivery attempt has ended.
type deliveredEvent struct {
	j   *job
	hop msg.Hop
	h   *host
	a   msg.DeliverA
	err error // the client did not answer

	start   time.Time
	counted bool // as a connection of this minute
	isNew   bool // the host was new to sched.Share
}

func (e *deliveredEvent) apply(l *loop) {
	l.finished(e)
	j, d := e.j, e.j.d
	hostFailed := l.judge(e)
	next := (hostFailed && !e.a.Unknown || e.refused() && len(j.tried) == 0) && l.hasNext(j, e.hop)
	var down *wait
	if hostFailed && !next {
		d.route = nil
		if e.a.Stage < msg.DeliverMail && l.allClosed(d) { // it says nothing of the mail
			down = l.block(d)
		}
	}
	var again []*rcpt
	var ends outcome
	for i, r := range j.rcpts {
		reply := e.reply(i)
		switch {
		case reply.Positive():
			d.entries--
			l.delivered(e, r, reply, &ends)
		case reply.Permanent():
			d.entries--
			ends.failed.add(r, reply, e.a.Stage.String(), e.remote())
		case next:
			j.last, j.lastFrom = reply, e.remote()
			again = append(again, r)
		default:
			d.entries--
			if hostFailed { // the others of the route as well
				r.state.Route, r.waits = nil, down != nil
			}
			l.retry(r, reply, e.remote(), e.notBefore(l, hostFailed), &ends)
		}
	}
	if len(again) > 0 {
		l.tryNext(j, again, e.hop)
	}
	l.conclude(j.t, ends)
	l.wake(e.h)
	l.relax()
	l.tidy(d)
}

// outcome is what became of recipients of one transaction in one step, as far as
// their sender may want to hear of it. They share a DSN.
type outcome struct {
	failed failures
	told   []notice // delivered or delayed
}

// conclude has the sender told.
func (l *loop) conclude(t *transaction, o outcome) {
	l.tell(t, o.told)
	l.bounce(t, o.failed)
}

// refused tells whether temporary failures are those of an SMTP host that refused
// the mail before it got the content. Then one more host of the route is tried (RFC
// 5321 section 5.1, and Postfix's smtp_mx_session_limit of two): the first may be
// the only one with a full disk, or with a broken table of users. A host that failed
// as a whole (no connection, a greeting that is not 2xx, 421, a lost connection) does
// not count: all others are tried, up to hosts_per_attempt_max.
func (e *deliveredEvent) refused() bool {
	if e.err != nil || e.a.HostFailed || e.a.Unknown || e.hop.Protocol != msg.ProtoSMTP || e.a.Stage < msg.DeliverMail {
		return false
	}
	// After the content all recipients share one reply: if one was positive, the
	// others were refused before.
	return e.a.Stage < msg.DeliverDot || slices.ContainsFunc(e.a.Rcpts, smtp.Reply.Positive)
}

// delivered ends a recipient that was delivered, unless its sender wants to hear of
// it and the next hop will not tell (RFC 3461 section 5.2.2).
func (l *loop) delivered(e *deliveredEvent, r *rcpt, reply smtp.Reply, ends *outcome) {
	l.counts.delivered++
	l.served(r)
	l.q.metrics.delivered.Inc()
	l.logEnd("delivered", r, reply)
	kind, ours := dsn.Success(e.hop.Protocol == msg.ProtoLMTP, e.a.DSN)
	if r.attr().Notify == "" || !ours || r.t.env.Mail.From.IsNull() || !dsn.Due(r.attr().Notify, kind) {
		l.end(r)
		return
	}
	n := r.notice(kind, reply)
	n.f.Remote = e.remote()
	ends.told = append(ends.told, n)
}

// remote names the host that gave the replies, "" if the client gave them itself.
func (e *deliveredEvent) remote() string {
	switch {
	case e.a.HostFailed || e.a.Own || e.err != nil || e.a.Stage < msg.DeliverMail:
		return ""
	case e.hop.Socket != "":
		return e.hop.Socket
	case e.hop.Host != "":
		return e.hop.Host
	default:
		return "[" + e.hop.Addr.Addr().String() + "]"
	}
}

// reply is what became of recipient i.
func (e *deliveredEvent) reply(i int) smtp.Reply {
	if e.err != nil || i >= len(e.a.Rcpts) || e.a.Rcpts[i].IsZero() {
		text := "the delivery agent gave no answer"
		if e.err != nil {
			text += ": " + e.err.Error()
		}
		return smtp.NewReply(451, "4.3.0", text)
	}
	return e.a.Rcpts[i]
}

// notBefore keeps recipients of a host that is closed until it is probed.
func (e *deliveredEvent) notBefore(l *loop, hostFailed bool) time.Time {
	if hostFailed && e.h.window.Closed(l.now) {
		return e.h.window.Until()
	}
	return time.Time{}
}

// judge tells the host's window what the attempt says of the host.
func (l *loop) judge(e *deliveredEvent) (failed bool) {
	e.h.rate.ended(e, l.now, l.q.cfg.ReuseConnection && e.err == nil && !e.a.HostFailed && !e.unconnected())
	switch {
	case e.err != nil, e.unconnected():
		e.h.window.Aborted()
		return false
	case !e.a.HostFailed:
		e.h.window.Served()
		l.serves(e.h)
		e.h.reason = ""
		return false
	}
	e.h.serves = false
	e.h.reason = e.hostReply().String()
	if e.h.window.Failed(l.now, l.closedFor(e.h), l.q.hostChance(e)) {
		e.h.name = e.hop.String()
		l.probeAt(e.h, e.h.window.Until())
		l.q.log.Warn("host does not serve: no attempts for a while", "host", e.hop.String(),
			"until", l.q.clock.date(e.h.window.Until()).UTC().Format(time.RFC3339), "reply", e.h.reason)
	}
	return true
}

// unconnected tells whether the client tried no connection: the attempt says nothing of
// the host.
func (e *deliveredEvent) unconnected() bool {
	return e.err == nil && !e.a.HostFailed && e.a.Stage == msg.DeliverConnect
}

// hostReply is a reply that tells what is wrong with the host: one for a recipient
// without requirements, which SMTPC may have answered for itself.
func (e *deliveredEvent) hostReply() smtp.Reply {
	for i, r := range e.j.rcpts {
		if r.conf == nil || r.conf.TLS == nil {
			return e.reply(i)
		}
	}
	return e.reply(0)
}

// serves notes that a host has served.
func (l *loop) serves(h *host) {
	h.serves = true
	l.goOnAll(h)
	l.recovered(h)
}

// closedFor bounds the time for which a host's window closes: octo, if it is given
// (README 3.8.1).
func (l *loop) closedFor(h *host) sched.Retry {
	if h.timeout > 0 {
		return sched.Retry{Min: h.timeout, Max: h.timeout}
	}
	return l.retryPolicy()
}

// hasNext tells whether the route has a host that this job has not tried.
func (l *loop) hasNext(j *job, hop msg.Hop) bool {
	if len(j.tried)+1 >= l.q.cfg.SMTPC.HostsPerRcpt {
		return false
	}
	for _, h := range j.d.hops {
		if h != hop && !contains(j.tried, h) {
			return true
		}
	}
	return false
}

func contains(hops []msg.Hop, h msg.Hop) bool {
	for _, t := range hops {
		if t == h {
			return true
		}
	}
	return false
}

// tryNext puts recipients back for the next host of the route.
func (l *loop) tryNext(j *job, rcpts []*rcpt, hop msg.Hop) {
	f := l.newFlow(j.f.s, j.d)
	f.retry = true
	next := &job{t: j.t, d: j.d, f: f, rcpts: rcpts, tried: append(j.tried[:len(j.tried):len(j.tried)], hop), last: j.last, lastFrom: j.lastFrom, queued: j.queued}
	for _, r := range rcpts {
		r.phase, r.job = phaseWait, next
	}
	l.queue(f, next)
}

// retry defers a recipient after a failed attempt, but not to before notBefore. If it
// has been in the queue for too long, it has failed. remote is the host that gave the
// reply, "" if it is our own.
func (l *loop) retry(r *rcpt, reply smtp.Reply, remote string, notBefore time.Time, ends *outcome) {
	if l.expired(r) {
		ends.failed.addExpired(r, reply, remote)
		return
	}
	l.delayed(r, reply, remote, ends)
	attempts := r.state.Attempts + 1
	next := l.now.Add(l.retryPolicy().Delay(attempts, l.q.rcptChance(r, attempts)))
	if next.Before(notBefore) {
		next = notBefore
	}
	l.counts.deferred++
	l.q.metrics.deferred.Inc()
	l.logEnd("deferred", r, reply)
	l.put(r, next, attempts, reply.String())
}

// postpone defers a recipient that was not tried.
func (l *loop) postpone(r *rcpt, pause time.Duration, reason string) {
	l.postponeUntil(r, l.now.Add(pause), reason)
}

func (l *loop) postponeUntil(r *rcpt, next time.Time, reason string) {
	if l.expired(r) {
		var failed failures
		failed.addExpired(r, smtp.NewReply(451, "4.4.7", reason), "")
		l.bounce(r.t, failed)
		return
	}
	if !next.After(l.now) {
		next = l.now.Add(time.Second)
	}
	l.put(r, next, r.state.Attempts, reason)
}

// delayed has the sender told once that a recipient still waits (README 3.8, item 13).
func (l *loop) delayed(r *rcpt, reply smtp.Reply, remote string, ends *outcome) {
	after := l.q.cfg.DelayDefault
	if after == 0 || r.state.Delayed || l.age(r) < after || r.t.env.Mail.From.IsNull() {
		return
	}
	lmtp := r.dest != nil && len(r.dest.hops) > 0 && r.dest.hops[0].Protocol == msg.ProtoLMTP
	if lmtp && l.q.cfg.DSN.NoLMTPDelay {
		return
	}
	r.state.Delayed = true
	n := r.notice(dsn.Delayed, reply)
	n.keep = true
	n.f.Remote = remote
	n.f.RetryUntil = l.q.clock.day().Add(l.q.cfg.ReturnDefault - l.age(r))
	ends.told = append(ends.told, n)
}

func (l *loop) expired(r *rcpt) bool {
	return l.age(r) >= l.q.cfg.ReturnDefault
}

// put has the deferrer write a recipient to the DEFEDB. It stays in the active
// queue until that is durable.
func (l *loop) put(r *rcpt, next time.Time, attempts int, reason string) {
	st := r.state
	st.TA, st.Index = r.t.env.TA, r.index
	st.NextTry, st.Attempts, st.Reason, st.Held = next, attempts, reason, r.held
	st.Waits = r.waits && !r.held
	st.Stored, st.Waited = l.now, l.age(r)
	if r.dest != nil {
		st.Dest = r.dest.key
	}
	r.phase = phaseEnding
	r.t.pending++
	l.q.deferrer.ops.put(deferOp{
		kind: deferPut, ta: st.TA, t: r.t, body: r.t.body, living: r.t.spillRest(), r: r, state: st, old: r.stored(),
	})
}

// deferredEvent: the deferrer has worked through a batch.
type deferredEvent struct {
	put     []putResult
	spilled []spillResult
	ended   []*rcpt
}

type putResult struct {
	r     *rcpt
	state defedb.State
	err   error
}

type spillResult struct {
	t   *transaction
	err error
}

// stuckPause is how long a recipient waits whose content could not be written.
const stuckPause = 5 * time.Second

func (e *deferredEvent) apply(l *loop) {
	for i := range e.put {
		l.deferred(&e.put[i])
	}
	for _, s := range e.spilled {
		s.t.spilling = false
		if s.err == nil {
			l.spilled(s.t)
		}
		l.settle(s.t)
	}
	for _, r := range e.ended {
		r.t.pending--
		if ref := (rcptRef{r.t.env.TA, r.index}); l.loading {
			l.gone[ref] = false
		} else {
			delete(l.gone, ref)
		}
		l.settle(r.t)
	}
}

// deferred takes a recipient out of the active queue that is now in the DEFEDB.
// If the disk had no room for it, it stays and is written again later.
func (l *loop) deferred(p *putResult) {
	r, t := p.r, p.r.t
	t.pending--
	if p.err != nil {
		st := p.state
		l.after(stuckPause, func() { l.put(r, st.NextTry, st.Attempts, st.Reason) })
		return
	}
	old := r.home
	r.state, r.home = p.state, homeDEFEDB
	t.inDEFEDB = true
	l.spilled(t)
	l.counts.waiting++
	if l.loading {
		l.gone[rcptRef{t.env.TA, r.index}] = false
	}
	if p.state.Waits {
		l.nowWaits(&p.state)
	}
	if l.nextDue.After(p.state.NextTry) {
		l.nextDue = p.state.NextTry
	}
	if l.loading && (l.soonest.IsZero() || l.soonest.After(p.state.NextTry)) {
		l.soonest = p.state.NextTry
	}
	if !l.cursor.Before(p.state.NextTry) { // the clock went back
		l.cursor = defedb.Cursor{}
	}
	l.leave(r)
	if old == homeIBDB {
		l.endIBDB(t, r.index)
	}
	l.settle(t)
}

// spilled notes that the content is in a file now.
func (l *loop) spilled(t *transaction) {
	if t.hasFile {
		return
	}
	t.hasFile = true
	t.body = l.q.stored(t.env.TA, t.size)
	l.release(t)
	if t.left == 0 && !t.inIBDB && !t.inDEFEDB { // it was delivered meanwhile
		l.q.deferrer.ops.put(deferOp{kind: deferUnlink, ta: t.env.TA})
		return
	}
	if t.inline && t.inIBDB {
		t.inline = false
		l.q.journal.ops.put(journalOp{kind: opSpilled, ta: t.env.TA})
	}
}

// relieve turns content into files while the budget for memory is nearly used up.
func (l *loop) relieve() {
	const perTick = 256
	if l.q.memory.Load() <= l.q.cfg.ContentMemory/4*3 {
		return
	}
	n := 0
	for _, t := range l.tas {
		if t.memory == 0 || t.spilling || t.left == 0 || l.now.Sub(t.accepted) < time.Second || t.busy() {
			continue
		}
		t.spilling = true
		l.q.deferrer.ops.put(deferOp{kind: deferSpill, ta: t.env.TA, t: t, body: t.body, living: t.spillRest()})
		if n++; n == perTick {
			return
		}
	}
}

// busy tells whether a delivery or a write of the transaction is under way.
func (t *transaction) busy() bool {
	if t.pending > 0 {
		return true
	}
	for _, r := range t.rcpts {
		if r.phase == phaseInflight || r.phase == phaseEnding {
			return true
		}
	}
	return false
}
