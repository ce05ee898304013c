package client

import (
	"context"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// startWorker adds a worker, if there may be one more.
func (c *Client) startWorker() {
	if c.threads.Add(1) > int32(min(c.cfg.ThreadsMax, 1<<30)) {
		c.threads.Add(-1)
		return
	}
	c.waiting.Add(1)
	c.group.Go(c.work)
}

// work serves requests one after the other. There is always a worker that waits,
// unless threads_max are busy; a worker ends when too many wait.
func (c *Client) work(life context.Context) error {
	thread := c.thread.Add(1) - 1
	defer c.threads.Add(-1)
	defer c.waiting.Add(-1)
	for {
		select {
		case r := <-c.requests:
			if c.stopped() {
				return nil // no answer: the end of the port tells the asker that we are gone
			}
			if c.waiting.Add(-1) == 0 {
				c.startWorker()
			}
			c.serve(r, thread)
			if c.waiting.Add(1) > waitingMax {
				return nil
			}
		case <-c.stopping:
			return nil
		case <-life.Done():
			return nil
		}
	}
}

// serve answers one request. A panic ends the delivery, not the module.
func (c *Client) serve(r *request, thread uint32) {
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
	conn   *conn // in our hands, nil if none
	line   line  // where the connection goes
	sent   bool  // the request was answered
	steps  steps
	// withhold has replies for recipients to whom RCPT is sent, but no mail; nil for none.
	withhold []smtp.Reply
}

// run delivers and answers. The connection goes back before the answer, so that a
// delivery that follows from the answer finds it.
func (d *delivery) run() {
	c, q := d.c, &d.r.Q
	start := time.Now()
	d.a.Rcpts = make([]smtp.Reply, len(q.Rcpts))
	if d.r.Ctx.Err() != nil {
		d.notConnected(stoppedEarly(q.Hop)) // nobody waits any more: a delivery would be repeated
	} else if d.demand() {
		d.line = c.lineOf(q)
		if d.connect(true) {
			d.transact()
		}
	}
	now := time.Now()
	d.a.Elapsed = now.Sub(start)
	c.metrics.seconds.Observe(d.a.Elapsed.Seconds())
	if c.metrics.recipients(d.a.Rcpts) {
		c.metrics.bytes.add(int(q.Body.Size()))
	}
	d.log()
	last := d.release(now)
	d.sent = true
	d.r.Answer(d.a)
	if last != nil {
		last.quit(c.limits.quit, last.class.readQuit)
	}
}

// connect gets a connection, or answers for all recipients why there is none.
// reuse allows one that has been idle.
func (d *delivery) connect(reuse bool) bool {
	c := d.c
	cn, w, dial := c.pool.take(d.r.Ctx, d.line, reuse)
	got := connected{conn: cn, reused: true}
	if cn == nil {
		if dial {
			c.startDial(d.line, d.thread)
		}
		got = d.wait(w)
	}
	d.conn = got.conn
	d.a.Reused = got.conn != nil && got.reused
	if got.failed != nil {
		d.notConnected(got.failed)
		return false
	}
	d.a.Session = d.conn.id
	return true
}

// notConnected answers for all recipients why there is no connection.
func (d *delivery) notConnected(f *dialFailure) {
	d.a.Stage, d.a.HostFailed, d.a.Session = f.stage, f.hostFailed, f.session
	d.refuse(f.reply)
}

// stoppedEarly says that the request ended before there was a connection.
func stoppedEarly(hop msg.Hop) *dialFailure {
	return &dialFailure{
		stage: msg.DeliverConnect,
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

// transact runs the transaction, a second time on a fresh connection if the first
// one had been idle and turns out to be closed.
func (d *delivery) transact() {
	stale := d.try()
	if !stale || !d.a.Reused {
		return
	}
	d.c.metrics.stale.add(1)
	d.drop()
	clear(d.a.Rcpts)
	d.a = msg.DeliverA{Rcpts: d.a.Rcpts}
	if d.demand() && d.connect(false) {
		d.try()
	}
}

// try runs the transaction once over the connection.
func (d *delivery) try() (stale bool) {
	c, cn := d.c, d.conn
	t := transaction{
		conn: cn, ctx: d.r.Ctx, q: &d.r.Q, a: &d.a, limits: &c.limits,
		withhold: d.withhold,
		withQuit: !cn.class.separateQuit && !c.mayReuse(cn, 1),
	}
	d.a.Transaction, d.a.DSN = c.newID(d.thread), cn.ext.dsn
	c.metrics.transactions.add(1)
	if d.a.Reused {
		c.metrics.reused.add(1)
	}
	if cn.class.timing {
		t.steps = cn.steps
		cn.steps = steps{}
		t.steps.begin()
	}
	t.run()
	d.steps = t.steps
	return t.stale()
}

// mayReuse reports whether a connection may serve one more transaction after more
// others have been begun.
func (c *Client) mayReuse(cn *conn, more int) bool {
	return c.deps.ReuseConnections && (cn.most <= 0 || cn.transactions+more < cn.most) &&
		time.Since(cn.opened) < connAgeMax && !c.stopped()
}

// stopped reports that the module is to end.
func (c *Client) stopped() bool {
	select {
	case <-c.stopping:
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
	if cn.broken || cn.closing || cn.pending() || !d.c.mayReuse(cn, 0) {
		d.c.pool.forget(cn)
		return cn
	}
	return d.c.pool.put(cn, now)
}

// drop closes the connection at once.
func (d *delivery) drop() {
	if d.conn != nil {
		d.c.pool.forget(d.conn)
		_ = d.conn.nc.Close() // it is of no use any more
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
	d.a.Rcpts = rcpts
	d.a.Unknown = d.a.Stage == msg.DeliverDot
	d.r.Answer(d.a)
}
