package client

import (
	"context"

	"meta1/mta/msg"
)

// connections are at most n of those that are open, those at work first.
func (p *pool) connections(n int) []msg.Connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]msg.Connection, 0, min(n, p.busy.n+p.idle.n))
	add := func(of *connList, state string) {
		for c := of.first; c != nil && len(list) < n; c = c.next {
			k := msg.Connection{
				ID: c.id, Peer: c.hop.String(), State: state, Begun: c.opened, Since: c.busySince, Messages: c.shown.Load(),
			}
			if state == "idle" {
				k.Since = c.idleSince
			}
			list = append(list, k)
		}
	}
	add(&p.busy, "busy")
	add(&p.idle, "idle")
	return list
}

// closeConnection closes the connection of an id, and reports whether there is one: one at work at once,
// whose mail is tried again; one without work by QUIT.
func (h *hall) closeConnection(id string) bool {
	p := h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := p.busy.first; k != nil; k = k.next {
		if k.id == id {
			k.Abort()
			return true
		}
	}
	for k := p.idle.first; k != nil; k = k.next {
		if k.id == id {
			p.removeIdleLocked(k)
			h.hangUpAll([]*conn{k})
			return true
		}
	}
	return false
}

// removeIdleLocked takes any connection without work out, and marks it as busy: it is to be closed.
func (p *pool) removeIdleLocked(c *conn) {
	h := p.hops[c.line]
	for i, k := range h.idle {
		if k == c {
			h.idle = append(h.idle[:i:i], h.idle[i+1:]...)
			break
		}
	}
	p.idle.remove(c)
	p.engageLocked(c, context.Background())
	p.tidyLocked(c.line)
}
