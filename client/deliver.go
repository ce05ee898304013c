package client

import (
	"context"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// startWorker adds a worker, if there may be one more.
func (h *hall) startWorker() {
	if h.threads.Add(1) > h.threadsMax() {
		h.threads.Add(-1)
		return
	}
	h.waiting.Add(1)
	h.group.Go(h.work)
}

func (h *hall) threadsMax() int32 { return int32(min(h.now.Load().cfg.ThreadsMax, 1<<30)) }

// work serves requests one after the other. There is always a worker that waits,
// unless threads_max are busy; a worker ends when too many wait, or when there are more
// than threads_max since a reload.
func (h *hall) work(life context.Context) error {
	thread := h.thread.Add(1) - 1
	dismissed := false
	defer func() {
		switch left := h.waiting.Add(-1); {
		case !dismissed:
			h.threads.Add(-1)
		case left == 0:
			h.startWorker() // another reload may have raised threads_max meanwhile
		}
	}()
	for {
		fewer := h.fewer.wait()
		if dismissed = h.dismiss(); dismissed {
			return nil
		}
		select {
		case r := <-h.requests:
			if h.stopped() {
				return nil // no answer: the end of the port tells the asker that we are gone
			}
			if h.waiting.Add(-1) == 0 {
				h.startWorker()
			}
			h.serve(r, thread)
			if h.waiting.Add(1) > waitingMax {
				return nil
			}
		case <-fewer:
		case <-h.stopping:
			return nil
		case <-life.Done():
			return nil
		}
	}
}

// dismiss reports whether there are more workers than may be, and counts one less then.
func (h *hall) dismiss() bool {
	for n := h.threads.Load(); n > h.threadsMax(); n = h.threads.Load() {
		if h.threads.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}

// serve answers one request. A panic ends the delivery, not the module.
func (h *hall) serve(r *request, thread uint32) {
	c := h.now.Load()
	d := delivery{c: c, r: r, thread: thread}
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(r.Ctx, v, slog.String("ss_ta", r.Q.TA.String()))
			d.panicked()
		}
	}()
	d.run()
}

// delivery is the work on one request.
type delivery struct {
	c      *Client
	r      *request
	thread uint32
	a      msg.DeliverA
	conn   *conn      // in our hands, nil if none
	line   line       // where the connection goes
	dane   *dane      // what its certificate must match; nil without DANE
	tlsa   *msg.TLSAA // what DNS says of it, usable or not; nil for nothing
	sent   bool       // the request was answered
	// stopped: there is no connection, because we ended the dial.
	stopped  bool
	start    time.Time
	connects time.Duration // spent in connect
	logged   []bool        // recipients whose last line is written; nil for none
	steps    steps
	// withhold has replies for recipients to whom RCPT is sent, but no mail; nil for none.
	withhold []smtp.Reply
}

// run delivers and answers. The connection goes back before the answer, so that a
// delivery that follows from the answer finds it.
func (d *delivery) run() {
	c, q := d.c, &d.r.Q
	d.start = time.Now()
	d.a.Rcpts, d.a.Stages = make([]smtp.Reply, len(q.Rcpts)), make([]msg.DeliverStage, len(q.Rcpts))
	if d.r.Ctx.Err() != nil {
		d.notConnected(stoppedEarly(q.Hop)) // nobody waits any more: a delivery would be repeated
	} else if d.plan() && d.connect(true) {
		d.transact()
	}
	if d.cutShort() {
		if last := d.release(time.Now()); last != nil {
			c.hangUp(last, false)
		}
		return
	}
	now := time.Now()
	d.a.Elapsed, d.a.Connect = now.Sub(d.start), d.connects
	c.metrics.Seconds.Observe(d.a.Elapsed.Seconds())
	if c.metrics.Recipients(d.a.Rcpts) {
		c.metrics.Bytes.Add(int(q.Body.Size()))
	}
	d.log()
	d.trace(now)
	last := d.release(now)
	d.sent = true
	d.r.Answer(d.a)
	if last != nil {
		c.hangUp(last, last.class.readQuit)
	}
}

// cutShort reports whether the end of this module has ended the delivery before the host had
// the message. That says nothing of the mail or of the host, so it gets no answer: the end of
// the port tells the asker that we are gone.
func (d *delivery) cutShort() bool {
	aborted := d.stopped || d.conn != nil && d.conn.Aborted()
	return aborted && d.c.stopped() && d.r.Ctx.Err() == nil && d.a.Stage < msg.DeliverDot && d.accepted() == 0
}

// plan decides over which connections the request may go, or answers for all recipients why
// there are none.
func (d *delivery) plan() bool {
	q := &d.r.Q
	cl := d.c.class(className(q), d.start)
	if cl == nil {
		d.refuse(msg.DeliverMail, smtp.NewReply(451, "4.3.5", "there is no section session_features "+className(q)+" in smtpc"))
		return false
	}
	login, ok := d.findLogin(cl)
	if !ok {
		return false
	}
	policy := policyOf(q, cl)
	if !d.forLogin(&policy, login, cl.auth) || !d.needDANE(&policy) {
		return false
	}
	if !q.Mail.TLSOptional { // RFC 8689 section 4.1
		policy = policy.WithSTS(q.Hop.STS)
	}
	d.line = d.c.lineOf(q, cl, policy, login)
	return !d.knownRefused()
}

// connect gets a connection, or answers for all recipients why there is none.
// reuse allows one that was used before.
func (d *delivery) connect(reuse bool) bool {
	c, begun := d.c, time.Now()
	defer func() { d.connects += time.Since(begun) }()
	cn, w, start := c.pool.take(d.r.Ctx, d.line, reuse)
	got := connected{conn: cn, reused: true}
	if cn == nil {
		if start != nil {
			c.startDial(start, d.line, d.dane, d.thread, d.r.Q.Progress)
		}
		got = d.wait(w)
	}
	d.conn = got.conn
	d.a.Reused = got.conn != nil && got.reused
	if got.failed != nil {
		if got.failed.tls != tlsFine && !got.failed.stopped {
			d.countTLS(&got.failed.seen)
		}
		d.notConnected(got.failed)
		return false
	}
	d.a.Session = d.conn.id
	d.countTLS(&d.conn.seen)
	return true
}

// notConnected answers for all recipients why there is no connection.
func (d *delivery) notConnected(f *dialFailure) {
	d.a.Stage, d.a.HostBusy, d.a.Session = f.stage, f.busy(), f.session
	d.a.HostFailed = f.hostFailed && d.a.HostBusy == 0
	d.a.NoNetwork, d.a.NoAnswer = f.noNetwork, f.noAnswer
	d.stopped, d.a.Own = f.stopped, f.own
	if f.said.Temporary() && d.r.Q.SlowDown.Match(f.said) {
		d.a.SlowDown = f.said
	}
	if f.tls != tlsFine {
		d.a.TLSUnmet, d.a.DANENoMatch = true, f.tls == tlsNoMatch
		why := f.reply.Text()
		d.demand(func(*msg.TLSRequirements) string { return why })
		if f.tls == tlsMissing && requiresTLS(&d.r.Q) {
			d.lacksRequireTLS("5.7.10", why)
		}
	}
	d.refuse(f.stage, f.reply)
}

// stoppedEarly says that the request ended before there was a connection.
func stoppedEarly(hop msg.Hop) *dialFailure {
	return &dialFailure{
		stage: msg.DeliverConnect, stopped: true,
		reply: smtp.NewReply(451, "4.3.2", "delivery was stopped: connect to "+hop.String()),
	}
}

// wait waits for a connection or for the end of the request.
func (d *delivery) wait(w *waiter) connected {
	select {
	case got := <-w.ready:
		return got
	case <-d.r.Ctx.Done():
	case <-d.c.group.Context().Done():
	}
	if late, served := d.c.pool.giveUp(d.line, w); served {
		return late // the transaction will find out that the request has ended
	}
	return connected{failed: stoppedEarly(d.r.Q.Hop)}
}

// transact runs the transaction. What a connection did not take that was used before,
// and a new one may, is tried on a new one: once, and again as long as each one takes
// something. Recipients beyond the limits of the host follow over the same connection if
// it is good for more.
func (d *delivery) transact() {
	for first := true; ; first = false {
		before := d.accepted()
		again, postponed := d.try()
		stay := postponed && d.conn.mayGoOn() && !d.c.stopped()
		if len(again) == 0 || !first && !stay && d.accepted() == before {
			return
		}
		if !stay {
			d.c.metrics.Stale.Add(1)
		}
		for _, i := range again {
			d.a.Rcpts[i] = smtp.Reply{}
		}
		d.a.Elapsed = time.Since(d.start)
		if d.logged == nil {
			d.logged = make([]bool, len(d.a.Rcpts))
		}
		d.log()
		d.a = msg.DeliverA{Rcpts: d.a.Rcpts, Stages: d.a.Stages}
		if stay {
			d.a.Session, d.a.Reused = d.conn.id, true
			continue
		}
		d.leave()
		if !d.connect(false) {
			return
		}
	}
}

// accepted counts the recipients to whom the message was delivered.
func (d *delivery) accepted() (n int) {
	for i := range d.a.Rcpts {
		if d.a.Rcpts[i].Accepted() {
			n++
		}
	}
	return n
}

// try runs the transaction once over the connection, for the recipients whose demands it
// meets. It returns the recipients for whom another transaction is worth a try; postponed
// says that some of them were only too many for this one.
func (d *delivery) try() (again []int, postponed bool) {
	c, cn := d.c, d.conn
	d.a.TLS, d.a.Auth = cn.tls.HopTLS, cn.mechanism
	if !d.demand(cn.lacks) || !d.keepsTLS() {
		return nil, false
	}
	t := transaction{
		conn: cn, ctx: d.r.Ctx, q: &d.r.Q, a: &d.a, limits: &c.limits, log: c.log, payload: payload{eight: &c.eight},
		withhold: d.withhold,
		withQuit: !cn.class.separateQuit && !c.mayReuse(cn, 1),
	}
	d.a.Transaction, d.a.DSN = c.newID(d.thread), cn.ext.DSN
	c.metrics.Transactions.Add(1)
	if d.a.Reused {
		c.metrics.Reused.Add(1)
	}
	if cn.class.timing {
		t.steps = cn.steps
		cn.steps = steps{}
		t.steps.begin()
	}
	t.run()
	c.metrics.Unknown.Add(float64(t.unknown))
	d.steps = t.steps
	if !d.a.SlowDown.IsZero() { // it asks for less, and would be asked for more at once
		return nil, false
	}
	return t.again, t.postponed
}

// mayReuse reports whether a connection may serve one more transaction after more
// others have been begun.
func (c *Client) mayReuse(cn *conn, more int) bool {
	return c.deps.ReuseConnections && c.now.Load().deps.ReuseConnections && cn.leaves(more) &&
		time.Since(cn.opened) < connAgeMax && !c.stopped()
}

// stopped reports that the module is to end.
func (h *hall) stopped() bool {
	select {
	case <-h.stopping:
		return true
	default:
		return false
	}
}

// release gives the connection back to the pool, or returns the one that is to be
// closed.
func (d *delivery) release(now time.Time) (last *conn) {
	cn := d.conn
	if cn == nil {
		return nil
	}
	d.conn = nil
	if cn.Broken || cn.Closing || cn.spent || cn.Pending() || !d.c.mayReuse(cn, 0) {
		d.c.pool.detach(cn)
		return cn
	}
	return d.c.pool.put(cn, now)
}

// leave closes the connection before another one is made: politely, and it waits for the
// reply to QUIT, so that a host that allows few connections does not count it any more.
func (d *delivery) leave() {
	d.c.hangUp(d.conn, true)
	d.conn = nil
}

// drop closes the connection at once.
func (d *delivery) drop() {
	if d.conn != nil {
		d.conn.Drop() // it is of no use any more
		d.c.pool.forget(d.conn)
		d.conn = nil
	}
}

// panicked answers after a panic: what has no reply gets one, and nothing is said
// about recipients that may have been delivered but that they are unknown.
func (d *delivery) panicked() {
	d.drop()
	if d.sent {
		return
	}
	d.sent = true
	rcpts := make([]smtp.Reply, len(d.r.Q.Rcpts))
	for i := range rcpts {
		rcpts[i] = internalError()
		if i < len(d.a.Rcpts) && !d.a.Rcpts[i].IsZero() {
			rcpts[i] = d.a.Rcpts[i]
		}
	}
	d.a.Rcpts, d.a.Stages = rcpts, nil
	d.a.Unknown = d.a.Stage == msg.DeliverDot
	d.r.Answer(d.a)
}
