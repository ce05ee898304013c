package queue

import (
	"context"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
	"meta1/queue/verp"
)

// dest is a destination: recipients that go the same way.
type dest struct {
	key     string
	limits  *ConnectionLimits // for the domain of its recipients; nil for none
	hops    []msg.Hop
	flows   []*flow       // in no order
	route   *defedb.Route // what is stored with its recipients
	entries int           // recipients that wait in flows and under way
}

// destKey is the key of a destination.
type destKey struct {
	key    string
	limits *ConnectionLimits
}

// job is a transaction to be delivered: recipients of one message that go to one
// destination. While it waits, it may have more than one delivery takes.
type job struct {
	t        *transaction
	d        *dest
	f        *flow
	rcpts    []*rcpt // some may have gone while the job waits: those whose job is another
	tried    []msg.Hop
	last     smtp.Reply // of the last hop that failed
	lastFrom string     // the host that gave it, "" if it is our own
	queued   time.Time
}

// join queues a recipient for its destination. asked is when the route was asked for;
// it is zero for one that was stored.
func (l *loop) join(r *rcpt, a *msg.RouteA, asked time.Time) {
	d := l.dest(a.Dest, l.q.limitsOf(r.path().Domain))
	d.hops, r.dest = a.Hops, d
	if !asked.IsZero() {
		l.keepRoute(r, a, asked)
	}
	if l.overShare(d) {
		l.putWaiting(r, l.surplus(d.key))
		l.tidy(d)
		return
	}
	r.phase, r.conf = phaseWait, a.RcptConf
	d.entries++
	f := l.flow(l.sender(r), d)
	j := r.t.jobs[f]
	if j == nil {
		j = &job{t: r.t, d: d, f: f, queued: l.now}
		l.queue(f, j)
	}
	j.rcpts = append(j.rcpts, r)
	r.job = j
}

// queue puts a job into a flow.
func (l *loop) queue(f *flow, j *job) {
	if len(j.t.env.Rcpts) > 1 && !f.retry {
		if j.t.jobs == nil {
			j.t.jobs = map[*flow]*job{}
		}
		j.t.jobs[f] = j
	}
	f.line.Add(j, j.t.env.Arrival)
	if f.line.Len() == 1 {
		l.open(f)
	}
}

// unqueue ends the wait of the job whose turn it is in a flow.
func (l *loop) unqueue(f *flow) {
	if j := f.line.Next(); j != nil {
		delete(j.t.jobs, f)
	}
	f.line.Done(false)
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
	return l.entries > limit/2 && d.entries > l.destMax()
}

// destMax is the share of the active queue that a destination has.
func (l *loop) destMax() int { return l.q.cfg.AQEntriesMax * l.q.cfg.SMTPC.DestinationShare / 100 }

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

// tidy forgets a destination that has nothing to do.
func (l *loop) tidy(d *dest) {
	if d.entries == 0 && len(d.flows) == 0 {
		delete(l.dests, destKey{key: d.key, limits: d.limits})
	}
}

// schedule starts deliveries as long as there are places and open flows.
func (l *loop) schedule() {
	if l.draining {
		return
	}
	for l.share.Used < l.share.Places {
		s := l.nextSender()
		if s == nil {
			if !l.unhold() {
				return
			}
			continue
		}
		if f, ok := s.open.pop(); ok {
			l.turn(f)
		}
		l.line(s)
	}
}

// turn starts a delivery of a flow, if it may, or has it wait where it must. A place
// that a host kept for it and that it does not use goes to another.
func (l *loop) turn(f *flow) {
	kept := f.granted
	if kept != nil {
		f.granted = nil
		kept.granted--
	}
	if used := l.try(f, kept); kept != nil && used != kept {
		l.wake(kept)
	}
}

// try starts a delivery of a flow if a host of its route lets it, and returns the
// host. Otherwise the flow waits for the host, or, because no host can be tried now,
// all mail for the destination is deferred. If only those hosts are closed that the
// job has not tried, it alone is deferred.
func (l *loop) try(f *flow, kept *host) *host {
	j := l.next(f)
	if j == nil {
		l.drop(f)
		l.tidy(f.d)
		return nil
	}
	hop, h, until := l.pick(f.d, j)
	switch {
	case h == nil && l.anyOpen(f.d):
		l.unqueue(f)
		l.deferJob(j, time.Time{}, nil)
		l.again(f)
	case h == nil:
		l.deferDest(f.d, until)
	case h.places(l.now) <= 0 || h != kept && h.waits() || !l.share.Host(h.used(), !h.serves):
		l.park(f, h, h == kept)
		if h.places(l.now) > 0 {
			l.wake(h) // those before it may have gone
		}
	case !h.serves && l.share.Sender(f.s.running) == 0:
		l.holdBack(f, h)
	default:
		l.start(l.take(j), hop, h)
		l.again(f)
		return h
	}
	return nil
}

// again has a flow wait for its next turn, if it has more mail.
func (l *loop) again(f *flow) {
	if f.line.Len() > 0 {
		l.open(f)
	} else {
		l.drop(f)
		l.tidy(f.d)
	}
}

// next is the job of a flow whose turn it is, nil if there is none.
func (l *loop) next(f *flow) *job {
	for f.line.Len() > 0 {
		j := f.line.Next()
		for len(j.rcpts) > 0 && j.rcpts[0].job != j {
			j.rcpts = j.rcpts[1:]
		}
		if len(j.rcpts) > 0 {
			return j
		}
		l.unqueue(f)
	}
	return nil
}

// take takes as many recipients from a waiting job as may share one delivery.
func (l *loop) take(j *job) *job {
	most := l.rcptsMax(j.d, j.t)
	one := &job{t: j.t, d: j.d, f: j.f, tried: j.tried, last: j.last, lastFrom: j.lastFrom, queued: j.queued}
	var apart []*rcpt
	i := 0
	for ; i < len(j.rcpts) && len(one.rcpts) < most && len(apart) < lookBack; i++ {
		switch r := j.rcpts[i]; {
		case r.job != j:
		case len(one.rcpts) > 0 && !together(one.rcpts[0].conf, r.conf):
			apart = append(apart, r)
		default:
			r.job = one
			one.rcpts = append(one.rcpts, r)
		}
	}
	j.rcpts = j.rcpts[i-len(apart):]
	copy(j.rcpts, apart)
	if len(j.rcpts) == 0 {
		l.unqueue(j.f)
	} else {
		j.f.line.Done(true)
	}
	return one
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
	e := &deliveredEvent{j: j, hop: hop, h: h, start: l.now, counted: h.rate.start(l.now), isNew: !h.serves}
	l.share.Used++
	if e.isNew {
		l.share.New++
		l.count(j.f.s, 1)
	}
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
	l.begin(q, e)
}

// deliver asks the client, in a goroutine.
func (l *loop) deliver(q msg.DeliverQ, e *deliveredEvent) {
	l.q.group.Go(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, l.q.cfg.DeliveryTimeout)
		defer cancel()
		e.a, e.err = l.q.ports.Deliver.Ask(ctx, q)
		l.q.events.put(e)
		return nil
	})
}

// finished gives the place of a delivery back.
func (l *loop) finished(e *deliveredEvent) {
	l.share.Used--
	if e.isNew {
		l.share.New--
		l.count(e.j.f.s, -1)
		l.forgetSender(e.j.f.s)
	}
}

// count counts a sender's deliveries to new hosts.
func (l *loop) count(s *sender, n int) {
	s.running += n
	if s.place > 0 {
		l.held.Remove(s)
		l.held.Push(s)
	}
}

// deferDest defers all mail that waits for a destination none of whose hosts can be
// tried.
func (l *loop) deferDest(d *dest, until time.Time) {
	w := l.block(d)
	d.route = nil
	for len(d.flows) > 0 {
		f := d.flows[len(d.flows)-1]
		for j := l.next(f); j != nil; j = l.next(f) {
			l.unqueue(f)
			l.deferJob(j, until, w)
		}
		l.drop(f)
	}
	l.tidy(d)
}

// deferJob defers the recipients of a job that has no host to be tried now: until a
// wait ends, if there is one and they were not tried.
func (l *loop) deferJob(j *job, until time.Time, w *wait) {
	d, reply := j.d, j.last
	if reply.IsZero() {
		reply = smtp.NewReply(451, "4.4.1", "no host of "+d.key+" can be tried now: "+l.closedReason(d))
	}
	var ends outcome
	for _, r := range j.rcpts {
		if r.job != j {
			continue
		}
		d.entries--
		if w != nil {
			r.state.Route = nil // none of its hosts serves
		}
		switch {
		case len(j.tried) > 0 || l.expired(r):
			l.retry(r, reply, j.lastFrom, until, &ends)
		case w != nil:
			l.putWaiting(r, w)
		default:
			l.postponeUntil(r, until, reply.String())
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

// allClosed tells whether every host of a destination is known to be closed.
func (l *loop) allClosed(d *dest) bool {
	for _, hop := range d.hops {
		if h := l.hosts[l.hostKey(hop, d)]; h == nil || !h.window.Closed(l.now) {
			return false
		}
	}
	return true
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
		for _, f := range d.flows {
			f.line.Keep(func(j *job) bool { return !l.timedOut(j, old) })
		}
		l.tidy(d)
	}
}

// timedOut defers the recipients of a job that waits since before old.
func (l *loop) timedOut(j *job, old time.Time) bool {
	if !j.queued.Before(old) {
		return false
	}
	delete(j.t.jobs, j.f)
	for _, r := range j.rcpts {
		if r.job == j {
			j.d.entries--
			l.postpone(r, l.q.cfg.RetryMin, "waited longer than scheduler_timeout for a connection to "+j.d.key)
		}
	}
	return true
}
