package client

import (
	"crypto/x509"
	"reflect"
	"sync/atomic"
	"time"

	"meta1/client/tlspolicy"
)

// Next is a configuration with which SMTPC can go on. Nothing has changed yet.
type Next struct{ c *Client }

// Prepare makes all that a new configuration needs. Deliveries notice nothing. deps are those of New; of them
// Ports, Log, Metrics, Hostname, Process and Tracer stay as they were. Who calls Prepare calls it again only
// after Commit, or forgets the Next. The client may run or not. There is nothing that can fail: what the
// options say was checked when they were read, and files are the business of deps.
func (c *Client) Prepare(cfg Config, deps Deps) *Next {
	h := c.hall
	former := h.now.Load()
	was := &former.deps
	deps.Ports, deps.Log, deps.Metrics, deps.Hostname, deps.Process, deps.Tracer = was.Ports, was.Log, was.Metrics, was.Hostname, was.Process, was.Tracer
	if deps.Dial == nil {
		deps.Dial = was.Dial
	}
	if deps.DialFrom == nil {
		deps.DialFrom = was.DialFrom
	}
	if deps.ReadFile == nil {
		deps.ReadFile = was.ReadFile
	}
	next := h.furnish(cfg.withDefaults(), deps)
	next.failures = former.failures
	for name, cl := range next.classes {
		switch same := former.classes[name]; {
		case same == nil:
		case same.equal(cl):
			next.classes[name] = same // its connections are as good as new ones
		default:
			next.failures = nil // handshakes that failed may succeed now
		}
	}
	if next.failures == nil {
		next.failures = tlspolicy.NewFailures()
	}
	return &Next{next}
}

// Commit makes the configuration that of the deliveries that begin from now on; those that have begun
// keep theirs. Limits hold at once: nobody is cut off because they are lower. Connections without work whose
// configuration is another now are closed. A class that has gone is there for leavingFor more. It cannot fail.
func (n *Next) Commit() {
	c := n.c
	h := c.hall
	h.mu.Lock()
	defer h.mu.Unlock()
	former := h.now.Load()
	c.leave(former, time.Now())
	h.now.Store(c)
	var retired []*class
	for name, cl := range former.classes {
		if c.classes[name] != cl {
			retired = append(retired, cl)
		}
	}
	surplus := h.pool.reconfigure(&c.cfg, retired, c.deps.ReuseConnections)
	if !h.running {
		return // then there are neither connections nor workers
	}
	h.hangUpAll(surplus)
	h.fewer.renew()
	if h.waiting.Load() == 0 {
		h.startWorker() // there may be more of them now
	}
}

// equal reports whether a session of one class is as one of the other would be: their options, their
// TLS, the authorities, the proxy and the accounts are the same.
func (cl *class) equal(other *class) bool {
	if cl.tls != other.tls || !sameRoots(cl.roots, other.roots) {
		return false
	}
	a, b := *cl, *other
	a.tls, b.tls, a.roots, b.roots = nil, nil, nil, nil
	a.retired, b.retired = false, false
	return reflect.DeepEqual(a, b)
}

func sameRoots(a, b *x509.CertPool) bool {
	return a == b || a != nil && b != nil && a.Equal(b)
}

// reconfigure takes limits and timeouts, and returns idle connections that are to be closed:
// those beyond a limit, those of classes that are not used any more, and without reuse all. Connections of
// such a class that work are not kept afterwards.
func (p *pool) reconfigure(cfg *Config, retired []*class, reuse bool) (surplus []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idleMax, p.idleHopMax, p.idleTimeout = cfg.IdleMax, cfg.IdleHopMax, cfg.IdleTimeout
	for _, cl := range retired {
		cl.retired = true
	}
	for c := p.idle.first; c != nil; {
		next := c.next
		if c.class.retired || !reuse {
			p.removeIdleLocked(c)
			surplus = append(surplus, c)
		}
		c = next
	}
	for c := p.idle.first; c != nil; {
		next := c.next
		if p.idle.n > p.idleMax || len(p.hops[c.line].idle) > p.idleHopMax {
			p.removeIdleLocked(c)
			surplus = append(surplus, c)
		}
		c = next
	}
	return surplus
}

// signal wakes all who wait for it, again and again. It must be renewed before it is used.
type signal struct{ c atomic.Pointer[chan struct{}] }

// wait is closed by the next renew.
func (s *signal) wait() <-chan struct{} { return *s.c.Load() }

func (s *signal) renew() {
	fresh := make(chan struct{})
	if was := s.c.Swap(&fresh); was != nil {
		close(*was)
	}
}

// Effective is what the deliveries that begin now go by, for reflect.DeepEqual with that of another
// Client alone: a test holds a reload against a start.
func (h *hall) Effective() any {
	c := h.now.Load()
	type effective struct {
		cfg                  Config
		limits               timeouts
		eight                string
		classes              map[string]class
		idleMax, idleHopMax  int
		idleTimeout          time.Duration
		threads              int32
		reuse, counts, roots bool
		transactions         int
	}
	e := effective{
		cfg: c.cfg, limits: c.limits, eight: c.eight.mode, classes: map[string]class{}, threads: h.threadsMax(),
		reuse: c.deps.ReuseConnections, transactions: c.deps.TransactionsPerSession, counts: c.deps.TLSReports != nil, roots: c.deps.Roots != nil,
	}
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	e.idleMax, e.idleHopMax, e.idleTimeout = h.pool.idleMax, h.pool.idleHopMax, h.pool.idleTimeout
	for name, cl := range c.classes {
		is := *cl
		is.roots = nil // they cannot be compared
		e.classes[name] = is
	}
	return e
}
