package queue

import (
	"context"
	"slices"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
	"meta1/queue/sched"
)

// Mail for a destination none of whose hosts can be tried does not come back recipient
// by recipient: it waits in the DEFEDB, in the index of its destination. When a host is
// due to be probed, the oldest of these recipients is its probe. If the host serves it,
// the others come in batches, oldest first; if not, they are not touched. The same is
// done for a domain that has no route for a while, and for what a destination has
// beyond its share of the active queue. Each recipient has a next time to try of its
// own as well, in case that the wait is forgotten: it is in memory only, and their
// number is bounded by OCC_entries_max.

const (
	// waitFirst and waitBatch bound the recipients of one wait that are in the active
	// queue at once: at first, and when some were served.
	waitFirst = 20
	waitBatch = 400
	// routeWait begins the name of the wait for the route of a domain.
	routeWait = "route:"
)

// wait is a destination, or the route of a domain, for which deferred mail waits.
type wait struct {
	dest   string
	hosts  []*host // closed; the wait ends when one of them serves
	comes  bool    // it has ended: what waits is brought back
	wanted bool    // in loop.wanted
	probe  bool    // one recipient is wanted
	again  bool    // more came to wait since the index was read from its beginning
	place  defedb.Place
	active int // recipients of it in the active queue
	batch  int // most of them

	// Of a route:
	until  time.Time // when it is asked for again
	fails  int
	reason string
	asking bool // a question is under way
}

// waitFor finds or makes the wait for a destination; nil if there are too many.
func (l *loop) waitFor(dest string) *wait {
	w := l.waits[dest]
	if w == nil && len(l.waits) < l.q.cfg.OCCEntries {
		w = &wait{dest: dest}
		l.waits[dest] = w
	}
	return w
}

// block has mail for a destination wait for those of its hosts that are closed.
func (l *loop) block(d *dest) *wait {
	w := l.waitFor(d.key)
	if w == nil {
		return nil
	}
	w.comes = false
	for _, hop := range d.hops {
		h := l.hosts[l.hostKey(hop, d)]
		if h != nil && h.window.Closed(l.now) && !slices.Contains(w.hosts, h) {
			w.hosts = append(w.hosts, h)
			h.blocks = append(h.blocks, w)
		}
	}
	return w
}

// blockedBy are the waits for a host. Those that have ended otherwise are dropped.
func (l *loop) blockedBy(h *host) []*wait {
	seen := map[*wait]bool{}
	h.blocks = slices.DeleteFunc(h.blocks, func(w *wait) bool {
		over := seen[w] || l.waits[w.dest] != w || !slices.Contains(w.hosts, h)
		seen[w] = true
		return over
	})
	return h.blocks
}

// probeAt has a closed host be probed at the end of its time.
func (l *loop) probeAt(h *host, at time.Time) {
	h.probe = at
	l.at(at, func() {
		if h.probe.Equal(at) {
			l.probe(h)
		}
	})
}

// probe brings one recipient that waits for a host, if no other mail probes it. If the
// probe goes elsewhere, there is another one later.
func (l *loop) probe(h *host) {
	if h.window.Closed(l.now) || h.window.Size() > 0 {
		return
	}
	waits := l.blockedBy(h)
	if len(waits) == 0 {
		return
	}
	if h.idle() {
		w := waits[0]
		h.blocks = append(waits[1:], w) // the next probe is another's
		w.probe = true
		l.want(w)
	}
	l.probeAt(h, l.now.Add(l.q.cfg.RetryMin))
}

// recovered ends the waits for a host that serves.
func (l *loop) recovered(h *host) {
	if len(h.blocks) == 0 {
		return
	}
	for _, w := range l.blockedBy(h) {
		l.comesBack(w)
	}
	h.blocks = nil
}

// forgotten ends the waits for a host that is dropped from the OCC, unless they have
// another one.
func (l *loop) forgotten(h *host) {
	for _, w := range l.blockedBy(h) {
		w.hosts = slices.DeleteFunc(w.hosts, func(o *host) bool { return o == h })
		if len(w.hosts) == 0 {
			l.comesBack(w)
		}
	}
}

// comesBack ends a wait: what waits is brought back in batches.
func (l *loop) comesBack(w *wait) {
	w.hosts, w.until, w.fails = nil, time.Time{}, 0
	if !w.comes {
		w.comes, w.place, w.again, w.batch = true, defedb.Place{}, false, waitFirst
	}
	l.want(w)
}

// surplus is the wait for what a destination has beyond its share.
func (l *loop) surplus(dest string) *wait {
	w := l.waitFor(dest)
	if w != nil && len(w.hosts) == 0 && !w.comes {
		l.comesBack(w)
	}
	return w
}

// want has a load bring what waits.
func (l *loop) want(w *wait) {
	if !w.wanted {
		w.wanted = true
		l.wanted.push(w)
	}
}

// need is how many recipients of a wait are to be brought now.
func (l *loop) need(w *wait) int {
	switch {
	case w.comes && w.active <= w.batch/2:
		return w.batch - w.active
	case !w.comes && w.probe:
		return 1
	}
	return 0
}

// fetch is what a load brings of one wait.
type fetch struct {
	w     *wait
	place defedb.Place
	most  int
	got   int
}

// nextFetches takes waits of which something is to be brought in turn, up to room
// recipients. Those whose destination has enough for now stay wanted.
func (l *loop) nextFetches(room int) (all []*fetch) {
	for range l.wanted.len() {
		if room <= 0 {
			return all
		}
		w, _ := l.wanted.pop()
		w.wanted = false
		if l.waits[w.dest] != w {
			continue
		}
		d := l.dests[destKey{key: w.dest}]
		n := min(l.need(w), room)
		switch {
		case w.comes && (n == 0 || d != nil && d.entries > l.destMax()/2):
			l.want(w)
		case n > 0:
			all = append(all, &fetch{w: w, place: w.place, most: n})
			room -= n
		}
	}
	return all
}

// fetchWaiting brings what waits, in a goroutine. It reports whether there is anything.
func (l *loop) fetchWaiting(room int) bool {
	all := l.nextFetches(room)
	if len(all) == 0 {
		return false
	}
	l.loading = true
	ev := &fetchedEvent{all: all}
	l.q.group.Go(func(context.Context) error {
		ev.groups, ev.err = l.q.readWaiting(all)
		l.q.events.put(ev)
		return nil
	})
	return true
}

func (q *Queue) readWaiting(all []*fetch) ([]*loadedTA, error) {
	var states []defedb.State
	for _, f := range all {
		err := q.defedb.Waiting(f.w.dest, &f.place, func(st defedb.State) bool {
			states = append(states, st)
			f.got++
			return f.got < f.most
		})
		if err != nil {
			return nil, err
		}
	}
	return q.byTA(states)
}

// fetchedEvent: recipients that waited were read from the DEFEDB.
type fetchedEvent struct {
	all    []*fetch
	groups []*loadedTA
	err    error
}

func (e *fetchedEvent) apply(l *loop) {
	l.loading = false
	if e.err != nil {
		l.q.log.Error("cannot read the DEFEDB", "error", e.err)
		l.after(loadPause, func() {
			for _, f := range e.all {
				l.want(f.w)
			}
		})
		l.settleQuiet()
		return
	}
	for _, g := range e.groups {
		l.resume(g)
	}
	for _, f := range e.all {
		l.fetched(f)
	}
	l.settleQuiet()
	l.load() // there may be more
}

// fetched goes on with a wait of which some recipients came.
func (l *loop) fetched(f *fetch) {
	w := f.w
	if l.waits[w.dest] != w {
		return
	}
	switch {
	case !w.comes: // a probe; the next one may be the same
		if w.probe = false; f.got == 0 {
			l.forgetWait(w)
		}
	case f.got == f.most:
		w.place = f.place
		l.want(w)
	case w.again:
		w.again, w.place = false, defedb.Place{}
		l.want(w)
	default:
		l.forgetWait(w)
	}
}

func (l *loop) forgetWait(w *wait) { delete(l.waits, w.dest) }

// fromWait notes that a recipient came out of the index of its destination.
func (l *loop) fromWait(r *rcpt) {
	if w := l.waits[r.state.Dest]; r.state.Waits && w != nil {
		r.wait = w
		w.active++
	}
}

// putWaiting defers a recipient that was not tried until a wait ends; its own next time
// to try is at the end of the longest retry time.
func (l *loop) putWaiting(r *rcpt, w *wait) {
	reason := l.waitText(w)
	if w == nil {
		l.postpone(r, l.q.cfg.RetryMin, reason)
		return
	}
	r.waits = true
	l.postponeUntil(r, l.backstop(r), reason)
}

// backstop is when a recipient that waits comes back by itself: a time without end of
// failures would give that.
func (l *loop) backstop(r *rcpt) time.Time {
	const many = 64
	left := l.q.cfg.ReturnDefault - l.age(r)
	if l.q.cfg.DelayDefault > 0 && !r.state.Delayed && l.q.cfg.DelayDefault > l.age(r) {
		left = min(left, l.q.cfg.DelayDefault-l.age(r))
	}
	return l.now.Add(min(l.retryPolicy().Delay(many, l.q.rcptChance(r, many)), left))
}

// nowWaits notes that a recipient is in the index of its destination. If nobody keeps the
// wait any more, or it has ended meanwhile, the recipient comes back.
func (l *loop) nowWaits(st *defedb.State) {
	w := l.waits[st.Dest]
	if w == nil {
		if w = l.waitFor(st.Dest); w != nil {
			l.comesBack(w)
		}
		return
	}
	w.again = true
	if w.comes {
		l.want(w)
	}
}

// served notes that a recipient that waited was served, after all.
func (l *loop) served(r *rcpt) {
	w := r.wait
	if w == nil || l.waits[w.dest] != w {
		return
	}
	if !w.comes {
		l.comesBack(w)
	}
	w.batch = waitBatch
}

// waitText tells what mail waits for.
func (l *loop) waitText(w *wait) string {
	if w == nil {
		return "too many destinations are waited for"
	}
	if strings.HasPrefix(w.dest, routeWait) && !w.comes {
		return "waits for the probe of the route to " + strings.TrimPrefix(w.dest, routeWait) + " at " + l.clockText(w.until) + ": " + w.reason
	}
	if h := w.first(); h != nil {
		return "waits for the probe of " + h.name + " at " + l.clockText(h.window.Until()) + ": " + h.reason
	}
	return "waits for its turn: there is much mail for " + w.dest
}

// first is the host that is probed first, nil if none is waited for.
func (w *wait) first() (first *host) {
	for _, h := range w.hosts {
		if first == nil || h.window.Until().Before(first.window.Until()) {
			first = h
		}
	}
	return first
}

func (l *loop) clockText(t time.Time) string {
	return l.q.clock.date(t).UTC().Format(time.RFC3339)
}

// waitInfo is what mailq shows of a wait.
type waitInfo struct {
	reason string
	next   time.Time // zero: not known
}

// show puts a wait as it stands now into the entry of a recipient.
func (i waitInfo) show(q *Queue, e *msg.ListEntry) {
	e.Reason = i.reason
	if !i.next.IsZero() {
		e.NextTry = q.clock.date(i.next)
	}
}

// waitInfos are all waits as they stand now.
func (l *loop) waitInfos() map[string]waitInfo {
	all := make(map[string]waitInfo, len(l.waits))
	for dest, w := range l.waits {
		i := waitInfo{reason: l.waitText(w), next: w.until}
		if h := w.first(); h != nil {
			i.next = h.window.Until()
		}
		all[dest] = i
	}
	return all
}

// restore brings back, after a start, what waited when the queue was closed: nothing
// is known of the hosts any more.
func (q *Queue) restore(context.Context) error {
	ev := &restoredEvent{}
	err := q.defedb.WaitedFor(func(dest string) bool {
		ev.dests = append(ev.dests, dest)
		return len(ev.dests) < q.cfg.OCCEntries
	})
	if err != nil {
		q.log.Error("cannot tell what mail waits for; it comes back by its own times", "error", err)
	}
	q.events.put(ev)
	return nil
}

// restoredEvent: it is known for which destinations mail waits since before the start.
type restoredEvent struct{ dests []string }

func (e *restoredEvent) apply(l *loop) {
	for _, dest := range e.dests {
		if w := l.waits[dest]; w == nil {
			l.surplus(dest)
		}
	}
}

// noRoute notes that the route of a domain cannot be found for a while, and defers a
// recipient until it is asked for again.
func (l *loop) noRoute(r *rcpt, reply smtp.Reply, ends *outcome) {
	w := l.waitFor(routeWait + r.path().Domain)
	if w == nil {
		l.retry(r, reply, "", time.Time{}, ends)
		return
	}
	if w.comes || w.asking || w.until.IsZero() { // the others of a batch fail with it
		w.fails++
		w.asking, w.comes, w.reason = false, false, reply.String()
		w.until = l.now.Add(l.routePolicy().Delay(w.fails, l.q.rcptChance(r, w.fails)))
		l.probeRouteAt(w)
	}
	r.dest, r.state.Dest, r.waits = nil, w.dest, true
	l.retry(r, reply, "", time.Time{}, ends)
}

// routePolicy bounds the time between two questions for a route that fails.
func (l *loop) routePolicy() sched.Retry { return l.retryPolicy() }

// probeRouteAt has one recipient be brought back when a route is due to be asked for.
func (l *loop) probeRouteAt(w *wait) {
	at := w.until
	l.at(at, func() {
		if l.waits[w.dest] == w && w.until.Equal(at) && !w.asking {
			w.probe = true
			l.want(w)
		}
	})
}

// routeFails tells whether the route of a recipient is known to fail now. One recipient
// asks when it is time.
func (l *loop) routeFails(r *rcpt) *wait {
	if len(l.waits) == 0 {
		return nil
	}
	w := l.waits[routeWait+r.path().Domain]
	switch {
	case w == nil || w.comes:
		return nil
	case l.now.Before(w.until) || w.asking:
		return w
	}
	w.asking = true
	return nil
}

// routeFound ends the wait for the route of a domain.
func (l *loop) routeFound(domain string) {
	if len(l.waits) == 0 {
		return
	}
	if w := l.waits[routeWait+domain]; w != nil && !w.comes {
		w.asking = false
		l.comesBack(w)
	}
}
