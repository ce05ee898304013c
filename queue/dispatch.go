package queue

import (
	"context"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/verp"
)

// dest is a destination: recipients that go the same way.
type dest struct {
	key     string
	limits  *ConnectionLimits // for the domain of its recipients; nil for none
	hops    []msg.Hop
	jobs    list[*job]
	entries int  // recipients in jobs and under way
	queued  bool // in loop.ready or in the waiters of a host
}

// destKey is the key of a destination.
type destKey struct {
	key    string
	limits *ConnectionLimits
}

// job is a transaction to be delivered: recipients of one message that go to one
// destination.
type job struct {
	t        *transaction
	d        *dest
	rcpts    []*rcpt
	tried    []msg.Hop
	last     smtp.Reply // of the last hop that failed
	lastFrom string     // the host that gave it, "" if it is our own
	queued   time.Time
}

// join queues a recipient for its destination.
func (l *loop) join(r *rcpt, a *msg.RouteA) {
	d := l.dest(a.Dest, l.q.limitsOf(r.path().Domain))
	d.hops = a.Hops
	if l.overShare(d) {
		l.postpone(r, l.q.cfg.RetryMin, "the destination has used its share of the active queue")
		l.tidy(d)
		return
	}
	r.phase, r.dest, r.conf = phaseWait, d, a.RcptConf
	d.entries++
	if j := l.shared(d, r); j != nil {
		j.rcpts = append(j.rcpts, r)
		return
	}
	d.jobs.push(&job{t: r.t, d: d, rcpts: []*rcpt{r}, queued: l.now})
	l.enqueue(d)
}

// dest finds a destination. Recipients to whom other limits apply are one of their own.
func (l *loop) dest(key string, limits *ConnectionLimits) *dest {
	k := destKey{key: key, limits: limits}
	d := l.dests[k]
	if d == nil {
		d = &dest{key: key, limits: limits}
		l.dests[k] = d
	}
	return d
}

// verp tells whether the sender of a transaction names its recipient (README 3.14).
func (l *loop) verp(t *transaction) bool {
	switch l.q.cfg.VERP.When {
	case "always":
		return !t.env.Mail.From.IsNull()
	case "never":
		return false
	default:
		return t.env.Mail.VERP && !t.env.Mail.From.IsNull()
	}
}

// verpSender is a sender that names the recipient, or the sender as it is if there is
// none (verp.Sender says when). Bounces go there whoever makes them, we or another
// host, as with Postfix: a list manager then has one place to look at.
func (l *loop) verpSender(from, rcpt smtp.Path) smtp.Path {
	v := &l.q.cfg.VERP
	if own, ok := verp.Sender(from, rcpt, v.Delimiter1, v.Delimiter2); ok {
		return own
	}
	return from
}

// overShare tells whether a destination takes too much of a filling active queue.
func (l *loop) overShare(d *dest) bool {
	limit := l.q.cfg.AQEntriesMax
	return l.entries > limit/2 && d.entries > limit*l.q.cfg.SMTPC.DestinationShare/100
}

// rcptsMax is how many recipients of a transaction may share a delivery.
func (l *loop) rcptsMax(d *dest, t *transaction) int {
	if l.verp(t) {
		return 1
	}
	if d.hops[0].Protocol == msg.ProtoLMTP {
		return l.q.cfg.SMTPC.LMTPRcpts
	}
	return l.q.cfg.SMTPC.SMTPRcpts
}

func (l *loop) enqueue(d *dest) {
	if !d.queued {
		d.queued = true
		l.ready.push(d)
	}
}

// tidy forgets a destination that has nothing to do.
func (l *loop) tidy(d *dest) {
	if d.entries == 0 && !d.queued {
		delete(l.dests, destKey{key: d.key, limits: d.limits})
	}
}

// schedule starts deliveries: one for each ready destination in turn, so that none
// waits for another's backlog.
func (l *loop) schedule() {
	if l.draining {
		return
	}
	for l.inflight < l.q.cfg.SMTPC.DeliveriesAtOnce {
		d, ok := l.ready.pop()
		if !ok {
			return
		}
		d.queued = false
		if d.jobs.len() == 0 {
			l.tidy(d)
			continue
		}
		if l.startOne(d) && d.jobs.len() > 0 {
			l.enqueue(d)
		}
	}
}

// startOne starts the first job of a destination if a host of its route lets it.
// Otherwise the destination waits for the host, or all its jobs are deferred
// because no host can be tried now. If only those hosts are closed that this job has
// not tried, it alone is deferred.
func (l *loop) startOne(d *dest) bool {
	j := d.jobs.first()
	hop, h, until := l.pick(d, j)
	switch {
	case h == nil && l.anyOpen(d):
		d.jobs.pop()
		l.deferJob(j, time.Time{})
		return true
	case h == nil:
		l.deferDest(d, until)
		return false
	case h.free(l.now) == 0:
		d.queued = true
		h.waiters.push(d)
		return false
	}
	d.jobs.pop()
	l.start(j, hop, h)
	return true
}

// pick chooses the first host of the route that may be tried. A host whose window
// is full is waited for: only hosts that fail are passed over. h is nil if all are
// closed; until is when the first may be tried again.
func (l *loop) pick(d *dest, j *job) (hop msg.Hop, h *host, until time.Time) {
	for _, hop := range d.hops {
		if slices.Contains(j.tried, hop) {
			continue
		}
		h := l.host(hop, d)
		if !h.window.Closed(l.now) {
			return hop, h, time.Time{}
		}
		if u := h.window.Until(); until.IsZero() || u.Before(until) {
			until = u
		}
	}
	return msg.Hop{}, nil, until
}

// start hands a job to the client.
func (l *loop) start(j *job, hop msg.Hop, h *host) {
	h.window.Start()
	counted := h.rate.start(l.now)
	l.inflight++
	q := msg.DeliverQ{Hop: hop, TA: j.t.env.TA, Mail: j.t.env.Mail, Body: j.t.body, Rcpts: make([]msg.Rcpt, len(j.rcpts))}
	for i, r := range j.rcpts {
		r.phase, r.start = phaseInflight, l.now
		q.Rcpts[i] = *r.attr()
	}
	q.Source = l.q.sources(j.t.env)
	q.SessionConf, q.RcptConf = l.q.sessionConf(hop), rcptConfs(j.rcpts)
	if limits := j.d.limits; limits != nil {
		q.TransactionsMax = limits.TransactionsMax
	}
	if l.verp(j.t) {
		q.Mail.From = l.verpSender(q.Mail.From, j.rcpts[0].path())
	}
	start := l.now
	l.q.group.Go(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, l.q.cfg.DeliveryTimeout)
		defer cancel()
		a, err := l.q.ports.Deliver.Ask(ctx, q)
		l.q.events.put(&deliveredEvent{j: j, hop: hop, h: h, a: a, err: err, start: start, counted: counted})
		return nil
	})
}

// deferDest defers all jobs of a destination none of whose hosts can be tried.
func (l *loop) deferDest(d *dest, until time.Time) {
	for j, ok := d.jobs.pop(); ok; j, ok = d.jobs.pop() {
		l.deferJob(j, until)
	}
	l.tidy(d)
}

// deferJob defers the recipients of a job that has no host to be tried now.
func (l *loop) deferJob(j *job, until time.Time) {
	d, reply := j.d, j.last
	if reply.IsZero() {
		reply = smtp.NewReply(451, "4.4.1", "no host of "+d.key+" can be tried now: "+l.closedReason(d))
	}
	var ends outcome
	for _, r := range j.rcpts {
		d.entries--
		if len(j.tried) == 0 && !l.expired(r) {
			l.postponeUntil(r, until, reply.String())
		} else {
			l.retry(r, reply, j.lastFrom, until, &ends)
		}
	}
	l.conclude(j.t, ends)
}

// anyOpen tells whether some host of a destination may be tried.
func (l *loop) anyOpen(d *dest) bool {
	for _, hop := range d.hops {
		if h := l.hosts[l.hostKey(hop, d)]; h != nil && !h.window.Closed(l.now) {
			return true
		}
	}
	return false
}

func (l *loop) closedReason(d *dest) string {
	for _, hop := range d.hops {
		if h := l.hosts[l.hostKey(hop, d)]; h != nil && h.reason != "" {
			return h.reason
		}
	}
	return "unknown"
}

// sweep defers recipients that waited longer than scheduler_timeout for a place in
// a window (README 8.3 item 8), and forgets destinations without work and hosts whose
// time in the OCC is over.
func (l *loop) sweep() {
	l.expireHosts()
	old := l.now.Add(-l.q.cfg.SchedulerTimeout)
	for _, d := range l.dests {
		for j := d.jobs.first(); j != nil && j.queued.Before(old); j = d.jobs.first() {
			d.jobs.pop()
			for _, r := range j.rcpts {
				d.entries--
				l.postpone(r, l.q.cfg.RetryMin, "waited longer than scheduler_timeout for a connection to "+d.key)
			}
		}
		l.tidy(d)
	}
}
