package client

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"meta1/mta/msg"
)

// pool holds every connection: those without work by hop, so that they are used
// again, and those at work, so that they can be aborted. It opens none itself.
//
// Rule: for each hop there are at least as many dials under way as waiters. A dial
// that succeeds, like a transaction that ends, serves the waiter that came first; a dial
// that fails fails that waiter. So nobody waits for something that does not come.
type pool struct {
	idleMax, idleHopMax int
	idleTimeout         time.Duration

	mu      sync.Mutex // guards all below, and the pool's fields of each conn
	hops    map[line]*hopConns
	idle    connList // of all hops, the longest idle first
	busy    connList
	stopped bool // nothing is kept any more
}

// line is what connections have in common of which one may stand for another: they
// go to one hop, from one local address, are held alike, and end after as many
// transactions. Where the pool speaks of a hop it means a line.
type line struct {
	hop msg.Hop
	// source is the local address; the zero Addr leaves it to the system.
	source netip.Addr
	// class is how the session is held; one of Client.classes.
	class *class
	// most is how many transactions one connection may serve; 0 is no bound.
	most int
}

// hopConns is what the pool knows of one hop. It goes away when nothing is left.
type hopConns struct {
	idle    []*conn // the longest idle first, so the last one is used first
	waiters []*waiter
	dialing int
}

// waiter is a delivery that waits for a connection.
type waiter struct {
	ctx   context.Context
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
		idleMax: cfg.IdleMax, idleHopMax: cfg.IdleHopMax, idleTimeout: cfg.IdleTimeout,
		hops: map[line]*hopConns{},
	}
}

// take returns an idle connection to the hop, or nil and a waiter. dial says that
// the caller must start a dial, which ends in dialed. Without reuse idle connections
// are left alone.
func (p *pool) take(ctx context.Context, hop line, reuse bool) (c *conn, w *waiter, dial bool) {
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
		return c, nil, false
	}
	w = &waiter{ctx: ctx, ready: make(chan connected, 1)}
	h.waiters = append(h.waiters, w)
	if dial = h.dialing < len(h.waiters); dial {
		h.dialing++
	}
	return nil, w, dial
}

// engageLocked marks a connection as working for ctx.
func (p *pool) engageLocked(c *conn, ctx context.Context) {
	c.reqCtx = ctx
	p.busy.push(c)
}

// watch registers a connection that is being set up, so that it can be aborted.
// ctx is the request's for whose sake it is made, or that of the module.
func (p *pool) watch(c *conn, ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.engageLocked(c, ctx)
	if p.stopped {
		c.abort()
	}
}

// forget takes a connection out of the pool: its user closes it.
func (p *pool) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy.remove(c)
	c.reqCtx = nil
	p.tidyLocked(c.line)
}

// dialed reports the end of a dial. Exactly one of c and failed is set; c is
// watched. It returns a connection that is to be closed, or nil.
func (p *pool) dialed(hop line, c *conn, failed *dialFailure, now time.Time) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hops[hop]
	h.dialing--
	if c != nil {
		return p.putLocked(h, c, false, now)
	}
	if w := h.pop(); w != nil {
		w.ready <- connected{failed: failed}
	}
	p.tidyLocked(hop)
	return nil
}

// put gives back a connection after a transaction: to the delivery that has waited
// longest, or to the idle ones. It returns a connection for which there is no room
// and which is to be closed, or nil.
func (p *pool) put(c *conn, now time.Time) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hops[c.line]
	if h == nil {
		h = &hopConns{}
		p.hops[c.line] = h
	}
	return p.putLocked(h, c, true, now)
}

func (p *pool) putLocked(h *hopConns, c *conn, reused bool, now time.Time) (surplus *conn) {
	if w := h.pop(); w != nil {
		c.reqCtx = w.ctx
		w.ready <- connected{conn: c, reused: reused}
		return nil
	}
	p.busy.remove(c)
	c.reqCtx = nil
	if p.stopped {
		return c
	}
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

// dropIdleLocked takes the longest idle connection of a hop out of the pool.
func (p *pool) dropIdleLocked(c *conn) {
	h := p.hops[c.line]
	p.idle.remove(c)
	n := copy(h.idle, h.idle[1:])
	h.idle[n] = nil
	h.idle = h.idle[:n]
	p.tidyLocked(c.line)
}

// giveUp takes back a waiter whose request has ended. If it was served meanwhile, the
// caller gets what it was served with.
func (p *pool) giveUp(hop line, w *waiter) (late connected, served bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case late = <-w.ready:
		return late, true
	default:
	}
	h := p.hops[hop]
	for i := range h.waiters {
		if h.waiters[i] == w {
			h.waiters = append(h.waiters[:i], h.waiters[i+1:]...)
			break
		}
	}
	p.tidyLocked(hop)
	return connected{}, false
}

// sweep returns the connections that have been idle for too long, and aborts those
// whose request has ended.
func (p *pool) sweep(now time.Time) (expired []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.idle.first; c != nil && now.Sub(c.idleSince) >= p.idleTimeout; c = p.idle.first {
		p.dropIdleLocked(c)
		expired = append(expired, c)
	}
	for c := p.busy.first; c != nil; c = c.next {
		if c.reqCtx.Err() != nil {
			c.abort()
		}
	}
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
		c.abort()
	}
}

// counts tells how many connections there are, and to how many hops.
func (p *pool) counts() (idle, busy, hops int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle.n, p.busy.n, len(p.hops)
}

// tidyLocked forgets a hop of which nothing is left.
func (p *pool) tidyLocked(hop line) {
	if h := p.hops[hop]; h != nil && len(h.idle) == 0 && len(h.waiters) == 0 && h.dialing == 0 {
		delete(p.hops, hop)
	}
}

// pop takes the waiter that came first.
func (h *hopConns) pop() *waiter {
	if len(h.waiters) == 0 {
		return nil
	}
	w := h.waiters[0]
	n := copy(h.waiters, h.waiters[1:])
	h.waiters[n] = nil
	h.waiters = h.waiters[:n]
	return w
}

// connList is a list through the connections themselves. A conn is in one at most.
type connList struct {
	first, last *conn
	n           int
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
