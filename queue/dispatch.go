package queue

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/sched"
	"meta1/queue/verp"
)

// hostKey names a host for slow start (README 3.8.1). Two services on one address
// but different ports are different hosts, so that a hanging one does not stop
// the other.
type hostKey struct {
	addr   netip.AddrPort
	socket string
}

func keyOf(h msg.Hop) hostKey { return hostKey{addr: h.Addr, socket: h.Socket} }

// host is an entry of the OCC, the outgoing connection cache.
type host struct {
	window  sched.Window
	waiters list[*dest] // destinations that found the window full
	used    time.Time
	reason  string // why the window closed
}

// dest is a destination: recipients that go the same way.
type dest struct {
	key     string
	hops    []msg.Hop
	jobs    list[*job]
	entries int  // recipients in jobs and under way
	queued  bool // in loop.ready or in the waiters of a host
}

// job is a transaction to be delivered: recipients of one message that go to one
// destination.
type job struct {
	t      *transaction
	d      *dest
	rcpts  []*rcpt
	tried  []msg.Hop
	last   smtp.Reply // of the last hop that failed
	queued time.Time
}

// join queues a recipient for its destination.
func (l *loop) join(r *rcpt, a *msg.RouteA) {
	d := l.dests[a.Dest]
	if d == nil {
		d = &dest{key: a.Dest}
		l.dests[a.Dest] = d
	}
	d.hops = a.Hops
	if l.overShare(d) {
		l.postpone(r, l.q.cfg.RetryMin, "the destination has used its share of the active queue")
		l.tidy(d)
		return
	}
	r.phase, r.dest = phaseWait, d
	d.entries++
	if j := d.jobs.last(); j != nil && j.t == r.t && len(j.tried) == 0 && len(j.rcpts) < l.rcptsMax(d, r.t) {
		j.rcpts = append(j.rcpts, r)
		return
	}
	d.jobs.push(&job{t: r.t, d: d, rcpts: []*rcpt{r}, queued: l.now})
	l.enqueue(d)
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
		delete(l.dests, d.key)
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
// because no host can be tried now.
func (l *loop) startOne(d *dest) bool {
	j := d.jobs.first()
	hop, h, until := l.pick(d, j)
	switch {
	case h == nil:
		l.deferDest(d, until)
		return false
	case h.window.Free(l.now) == 0:
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
		h := l.host(hop)
		if !h.window.Closed(l.now) {
			return hop, h, time.Time{}
		}
		if u := h.window.Until(); until.IsZero() || u.Before(until) {
			until = u
		}
	}
	return msg.Hop{}, nil, until
}

// host finds the OCC entry of a hop.
func (l *loop) host(hop msg.Hop) *host {
	k := keyOf(hop)
	h := l.hosts[k]
	if h == nil {
		if len(l.hosts) >= l.q.cfg.OCCEntries {
			l.forgetHost()
		}
		h = &host{window: sched.NewWindow(sched.Limits{Initial: l.q.cfg.SMTPC.Initial, Max: l.q.cfg.SMTPC.Max})}
		l.hosts[k] = h
	}
	h.used = l.now
	return h
}

// forgetHost drops an idle host. It looks at a few entries, which Go picks by
// chance, and takes the one that was unused for longest.
func (l *loop) forgetHost() {
	const look = 32
	var victim hostKey
	var oldest *host
	n := 0
	for k, h := range l.hosts {
		if n++; n > look && oldest != nil || n > 64*look {
			break
		}
		if h.window.Idle() && h.waiters.len() == 0 && (oldest == nil || h.used.Before(oldest.used)) {
			victim, oldest = k, h
		}
	}
	if oldest != nil {
		delete(l.hosts, victim)
	}
}

// wake lets as many waiting destinations try again as the window has places.
func (l *loop) wake(h *host) {
	for free := h.window.Free(l.now); free > 0; free-- {
		d, ok := h.waiters.pop()
		if !ok {
			return
		}
		l.ready.push(d)
	}
	if h.window.Closed(l.now) { // they will find it closed and look for another
		for d, ok := h.waiters.pop(); ok; d, ok = h.waiters.pop() {
			l.ready.push(d)
		}
	}
}

// start hands a job to the client.
func (l *loop) start(j *job, hop msg.Hop, h *host) {
	h.window.Start()
	l.inflight++
	q := msg.DeliverQ{Hop: hop, TA: j.t.env.TA, Mail: j.t.env.Mail, Body: j.t.body, Rcpts: make([]msg.Rcpt, len(j.rcpts))}
	for i, r := range j.rcpts {
		r.phase, r.start = phaseInflight, l.now
		q.Rcpts[i] = *r.attr()
	}
	if l.verp(j.t) {
		v := &l.q.cfg.VERP
		if from, ok := verp.Sender(q.Mail.From, j.rcpts[0].path(), v.Delimiter1, v.Delimiter2); ok {
			q.Mail.From = from
		}
	}
	l.q.group.Go(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, l.q.cfg.DeliveryTimeout)
		defer cancel()
		a, err := l.q.ports.Deliver.Ask(ctx, q)
		l.q.events.put(&deliveredEvent{j: j, hop: hop, h: h, a: a, err: err})
		return nil
	})
}

// deferDest defers all jobs of a destination none of whose hosts can be tried.
func (l *loop) deferDest(d *dest, until time.Time) {
	for j, ok := d.jobs.pop(); ok; j, ok = d.jobs.pop() {
		reply := j.last
		if reply.IsZero() {
			reply = smtp.NewReply(451, "4.4.1", "no host of "+d.key+" can be tried now: "+l.closedReason(d))
		}
		for _, r := range j.rcpts {
			d.entries--
			if len(j.tried) == 0 {
				l.postponeUntil(r, until, reply.String())
			} else {
				l.retry(r, reply, until)
			}
		}
	}
	l.tidy(d)
}

func (l *loop) closedReason(d *dest) string {
	for _, hop := range d.hops {
		if h := l.hosts[keyOf(hop)]; h != nil && h.reason != "" {
			return h.reason
		}
	}
	return "unknown"
}

// sweep defers recipients that waited longer than scheduler_timeout for a place in
// a window (README 8.3 item 8), and forgets destinations without work.
func (l *loop) sweep() {
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
