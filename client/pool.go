package client

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meta1/client/auth"
	"meta1/client/tlspolicy"
	"meta1/mta/msg"
)

// pool holds every connection: those without work by hop, so that they are used
// again, and those at work, so that they can be aborted. It opens none itself.
//
// Rule: for each hop there are at least as many dials under way as waiters. A dial
// that succeeds, like a transaction that ends, serves the waiter that came first; a dial
// that fails fails that waiter. So nobody waits for something that does not come. A waiter
// whose request ends takes the oldest dial along if there are more dials than waiters then,
// so that hosts that hang hold no descriptors for nobody.
type pool struct {
	life context.Context // ends dials; set before the first one

	mu sync.Mutex // guards all below, the pool's fields of each conn, and class.retired

	idleMax, idleHopMax int
	idleTimeout         time.Duration

	hops    map[line]*hopConns
	open    map[msg.Hop]int       // connections, also those that are being closed
	shared  map[string]int        // the same and those that are being made, by provider
	closed  map[msg.Hop]time.Time // when one was closed that had served, for countedMax
	idle    connList              // of all hops, the longest idle first
	busy    connList
	stopped bool // nothing is kept any more
}

// line is what connections have in common of which one may stand for another: they
// go to one hop, from one local address, under one policy of TLS, as one account, are held alike, and end after
// as many transactions. Where the pool speaks of a hop it means a line.
//
// The timeouts are not among it, although a reload may change them: a transaction has those of its own delivery, whoever made the
// connection. Only connecting, greeting, EHLO, TLS and AUTH have those of the delivery that began the dial, and only a dial that
// was under way at the reload has others than who waits for it, who then waits as long as that one does; whose request ends leaves
// it (giveUp). Dialling anew would bring nobody to a host sooner that is slow, and would take a second place there.
type line struct {
	hop msg.Hop
	// source is the local address; the zero Addr leaves it to the system.
	source netip.Addr
	// class is how the session is held; one of Client.classes.
	class *class
	// tls is under what the connection is made.
	tls tlspolicy.Policy
	// login is the account with which we authenticate; zero: we do not.
	login auth.Login
	// most is how many transactions one connection may serve; 0 is no bound.
	most     int
	provider shared
}

// shared is hosts of a provider, which share a limit of connections.
type shared struct {
	name string // "" for none
	most int    // connections, those without work included; 0 is no bound
}

// hopConns is what the pool knows of one hop. It goes away when nothing is left.
type hopConns struct {
	idle    []*conn // the longest idle first, so the last one is used first
	waiters []*waiter
	dials   []*dial // that were not ended, the oldest first
}

// dial is a connection that is being made, up to the reply to EHLO.
type dial struct {
	ctx       context.Context
	end       context.CancelFunc
	connected bool // there is a connection, which may still be refused
	counted   bool // in pool.shared, as one without a connection
	// instead is closed first, so that the provider has no more connections than it allows; nil:
	// none need be.
	instead *conn
}

// waiter is a delivery that waits for a connection.
type waiter struct {
	ctx   context.Context
	fresh bool           // only a new connection will do
	ready chan connected // of one
}

// connected is what a waiter gets: a connection, or why there is none.
type connected struct {
	conn   *conn
	failed *dialFailure
	reused bool
}

func newPool(cfg Config) *pool {
	return &pool{
		life:    context.Background(),
		idleMax: cfg.IdleMax, idleHopMax: cfg.IdleHopMax, idleTimeout: cfg.IdleTimeout,
		hops: map[line]*hopConns{}, open: map[msg.Hop]int{}, shared: map[string]int{}, closed: map[msg.Hop]time.Time{},
	}
}

// take returns an idle connection to the hop, or nil and a waiter. If there is a dial the
// caller must start it; it ends in dialed. Without reuse only a connection on which nothing
// was sent yet will do.
func (p *pool) take(ctx context.Context, hop line, reuse bool) (c *conn, w *waiter, start *dial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hops[hop]
	if h == nil {
		h = &hopConns{}
		p.hops[hop] = h
	}
	if n := len(h.idle); n > 0 && reuse {
		c = h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		p.idle.remove(c)
		p.engageLocked(c, ctx)
		return c, nil, nil
	}
	w = &waiter{ctx: ctx, fresh: !reuse, ready: make(chan connected, 1)}
	h.waiters = append(h.waiters, w)
	if len(h.dials) < len(h.waiters) {
		start = &dial{}
		start.ctx, start.end = context.WithCancel(p.life)
		h.dials = append(h.dials, start)
		if of := hop.provider; of.most > 0 && p.shared[of.name] >= of.most {
			start.instead = p.idleOfLocked(of.name)
		}
		p.countLocked(hop, start, true)
	}
	return nil, w, start
}

// idleOfLocked takes out the connection to a provider that has been idle for longest, nil if none is.
func (p *pool) idleOfLocked(provider string) *conn {
	for c := p.idle.first; c != nil; c = c.next {
		if c.provider.name == provider {
			p.dropIdleLocked(c)
			return c
		}
	}
	return nil
}

// countLocked counts a dial, or does not any more, as long as it has no connection, which counts
// itself.
func (p *pool) countLocked(hop line, d *dial, counts bool) {
	if counts != d.counted {
		d.counted = counts
		p.addLocked(hop, map[bool]int{true: 1, false: -1}[counts])
	}
}

// addLocked counts connections to a provider more, or fewer.
func (p *pool) addLocked(hop line, n int) {
	if name := hop.provider.name; name != "" {
		if p.shared[name] += n; p.shared[name] == 0 {
			delete(p.shared, name)
		}
	}
}

// engageLocked marks a connection as working for ctx.
func (p *pool) engageLocked(c *conn, ctx context.Context) {
	c.reqCtx, c.busySince = ctx, time.Now()
	p.busy.push(c)
}

// watch registers a connection that is being set up, so that it can be aborted when its
// dial is ended.
func (p *pool) watch(c *conn, d *dial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.connected = true
	p.countLocked(c.line, d, false)
	p.addLocked(c.line, 1)
	p.open[c.hop]++
	p.engageLocked(c, d.ctx)
	if p.stopped {
		c.Abort()
	}
}

// redial notes that a dial has closed its connection and makes another.
func (p *pool) redial(hop line, d *dial) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.connected = false
	p.countLocked(hop, d, true)
}

// detach has the end of its request no longer abort a connection: its user says QUIT,
// and the request may have its answer meanwhile.
func (p *pool) detach(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.reqCtx = context.Background()
}

// forget takes a connection out of the pool that its user has closed.
func (p *pool) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy.remove(c)
	c.reqCtx = nil
	p.addLocked(c.line, -1)
	if p.open[c.hop]--; p.open[c.hop] == 0 {
		delete(p.open, c.hop)
	}
	if c.transactions > 0 && !c.Broken && c.Reply.Code != 421 {
		p.closed[c.hop] = time.Now()
	}
	p.tidyLocked(c.line)
}

// others counts the connections that a hop has, whatever their line, when one that is
// not counted any more was refused: those that are open, and one that was closed so shortly
// before that the hop may not have noticed. With dials it counts also those that are being
// made, for a hop may take one and refuse another before we know of the first.
func (p *pool) others(hop msg.Hop, dials bool, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.open[hop]
	for l, h := range p.hops {
		if !dials || l.hop != hop {
			continue
		}
		for _, d := range h.dials {
			if !d.connected {
				n++
			}
		}
	}
	if at, ok := p.closed[hop]; ok && now.Sub(at) < countedMax {
		return max(n, 1)
	}
	return n
}

// vacate returns the idle connections to a hop, whatever their line, which are to be
// closed: the hop takes no more connections, and they take the places of some that are
// needed.
func (p *pool) vacate(hop msg.Hop) (idle []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.idle.first; c != nil; {
		next := c.next
		if c.hop == hop {
			p.dropIdleLocked(c)
			idle = append(idle, c)
		}
		c = next
	}
	return idle
}

// dialed reports the end of a dial. Exactly one of c and failed is set; c is
// watched. It returns a connection that is to be closed, or nil.
func (p *pool) dialed(hop line, d *dial, c *conn, failed *dialFailure, now time.Time) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.end()
	p.countLocked(hop, d, false)
	h := p.hops[hop]
	expected := false // by a waiter
	if h != nil {
		if i := slices.Index(h.dials, d); i >= 0 {
			h.dials, expected = slices.Delete(h.dials, i, i+1), true
		}
	}
	if c != nil {
		return p.putLocked(c, false, now)
	}
	if expected {
		if w := h.pop(false); w != nil {
			w.ready <- connected{failed: failed}
		}
		p.tidyLocked(hop)
	}
	return nil
}

// put gives back a connection after a transaction: to the delivery that has waited
// longest, or to the idle ones. It returns a connection for which there is no room
// and which is to be closed, or nil.
func (p *pool) put(c *conn, now time.Time) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.putLocked(c, true, now)
}

func (p *pool) putLocked(c *conn, reused bool, now time.Time) (surplus *conn) {
	h := p.hops[c.line]
	if h == nil {
		h = &hopConns{}
		p.hops[c.line] = h
	}
	if w := h.pop(reused); w != nil {
		c.reqCtx = w.ctx
		w.ready <- connected{conn: c, reused: reused}
		return nil
	}
	if p.stopped || c.class.retired {
		c.reqCtx = context.Background()
		p.tidyLocked(c.line)
		return c
	}
	p.busy.remove(c)
	c.reqCtx = nil
	c.idleSince = now
	h.idle = append(h.idle, c)
	p.idle.push(c)
	switch {
	case len(h.idle) > p.idleHopMax:
		surplus = h.idle[0]
	case p.idle.n > p.idleMax:
		surplus = p.idle.first
	default:
		return nil
	}
	p.dropIdleLocked(surplus)
	return surplus
}

// dropIdleLocked marks the longest idle connection of a hop as busy: it is to be closed.
func (p *pool) dropIdleLocked(c *conn) {
	h := p.hops[c.line]
	p.idle.remove(c)
	n := copy(h.idle, h.idle[1:])
	h.idle[n] = nil
	h.idle = h.idle[:n]
	p.engageLocked(c, context.Background())
	p.tidyLocked(c.line)
}

// giveUp takes back a waiter whose request has ended, and ends a dial that nobody needs
// any more. If it was served meanwhile, the caller gets what it was served with.
func (p *pool) giveUp(hop line, w *waiter) (late connected, served bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case late = <-w.ready:
		return late, true
	default:
	}
	h := p.hops[hop]
	if i := slices.Index(h.waiters, w); i >= 0 {
		h.waiters = slices.Delete(h.waiters, i, i+1)
	}
	if len(h.dials) > len(h.waiters) {
		h.dials[0].end()
		h.dials = slices.Delete(h.dials, 0, 1)
	}
	p.tidyLocked(hop)
	return connected{}, false
}

// sweep returns the connections that have been idle for too long, aborts those whose
// request has ended, and forgets when connections were closed.
func (p *pool) sweep(now time.Time) (expired []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.idle.first; c != nil && now.Sub(c.idleSince) >= p.idleTimeout; c = p.idle.first {
		p.dropIdleLocked(c)
		expired = append(expired, c)
	}
	for c := p.busy.first; c != nil; c = c.next {
		if c.reqCtx.Err() != nil {
			c.Abort()
		}
	}
	maps.DeleteFunc(p.closed, func(_ msg.Hop, at time.Time) bool { return now.Sub(at) >= countedMax })
	return expired
}

// stop makes the pool keep nothing any more and returns the idle connections.
func (p *pool) stop() (idle []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	for c := p.idle.first; c != nil; c = p.idle.first {
		p.dropIdleLocked(c)
		idle = append(idle, c)
	}
	return idle
}

// abortAll ends all work.
func (p *pool) abortAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.busy.first; c != nil; c = c.next {
		c.Abort()
	}
}

// peak is the most connections that were busy at one time.
func (p *pool) peak() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy.peak
}

// counts tells how many connections there are, and to how many hops.
func (p *pool) counts() (idle, busy, hops int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle.n, p.busy.n, len(p.hops)
}

// tidyLocked forgets a hop of which nothing is left.
func (p *pool) tidyLocked(hop line) {
	if h := p.hops[hop]; h != nil && len(h.idle) == 0 && len(h.waiters) == 0 && len(h.dials) == 0 {
		delete(p.hops, hop)
	}
}

// pop takes the waiter that came first, for a connection that was used before only one
// of those whom it serves.
func (h *hopConns) pop(used bool) *waiter {
	i := slices.IndexFunc(h.waiters, func(w *waiter) bool { return !used || !w.fresh })
	if i < 0 {
		return nil
	}
	w := h.waiters[i]
	h.waiters = slices.Delete(h.waiters, i, i+1)
	return w
}

// connList is a list through the connections themselves. A conn is in one at most.
type connList struct {
	first, last *conn
	n           int
	peak        int // the most that n has been (README 9.4)
}

func (l *connList) push(c *conn) {
	c.prev, c.next = l.last, nil
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
	l.n++
	l.peak = max(l.peak, l.n)
}

func (l *connList) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.prev, c.next = nil, nil
	l.n--
}
