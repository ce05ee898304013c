package queue

import (
	"math"
	"net/netip"

	"meta1/mta/msg"
	"meta1/queue/conf"
)

// unlimited is a limit of incoming connections that is none.
const unlimited = math.MaxInt

// unnamedSession is a session of which the client's name will be told by NameSession,
// or was, and led to a refusal.
type unnamedSession struct {
	c       *clientCount
	rate    int // of its client when it came: later ones do not count against it
	refused bool
}

// incoming is one kind of limit on the connections of a client: on those within a
// minute, or on open ones. Connections are counted by address; the name only chooses
// the limit (README 3.8.1).
type incoming struct {
	byIP   conf.IPTable
	byName *conf.NameTable
	option int
}

// of gives the limit of a client: what the first of these says: the entry for its
// address or net, the entry for its name or domain, the entry without address, the
// option. A client on this host has only the first two.
func (k *incoming) of(client netip.Addr, name string) int {
	if n, ok := k.byIP.Of(client); ok {
		return n
	}
	if n, ok := k.byName.Of(name); ok {
		return n
	}
	if client.Unmap().IsLoopback() {
		return unlimited
	}
	return k.byIP.Default(k.option)
}

// most bounds the limit of a client whose name is not known yet; ask says that it
// depends on the name.
func (k *incoming) most(client netip.Addr) (n int, ask bool) {
	n = k.of(client, "")
	if _, ok := k.byIP.Of(client); ok || k.byName.Max() == 0 {
		return n, false
	}
	return max(n, k.byName.Max()), true
}

// kinds are the limits that hold at present.
func (a *admission) kinds() (rate, open incoming) {
	c, options := a.q.conf.Load(), &a.q.cfg.SMTPS
	return incoming{c.InRate, &c.InNameRate, options.RateMax}, incoming{c.InOpen, &c.InNameOpen, options.ConnectionsMax}
}

// limits are those for a client that has just connected. If ask is set they are only
// what no name can exceed, so that a client over all limits costs no lookup of its
// name. A Unix socket has no limits.
func (a *admission) limits(client netip.Addr) (rate, open int, ask bool) {
	if !client.IsValid() {
		return unlimited, unlimited, false
	}
	r, o := a.kinds()
	rate, askRate := r.most(client)
	open, askOpen := o.most(client)
	if !askRate && !askOpen {
		return rate, open, false
	}
	if len(a.unnamed) >= a.q.cfg.SMTPS.CacheSize { // no room to wait for the name
		return r.of(client, ""), o.of(client, ""), false
	}
	return rate, open, true
}

// named decides on a session when the name of its client is known. One that this QMGR
// does not know is let in: it was counted by the one before.
func (a *admission) named(q *msg.AdmitQ) msg.AdmitA {
	u := a.unnamed[q.Session]
	if u == nil || u.refused {
		return msg.AdmitA{}
	}
	u.c.unnamed--
	rate, open := a.kinds()
	if r := exceeded(u.rate, rate.of(q.Client, q.Name), u.c.open, open.of(q.Client, q.Name)); !r.IsZero() {
		u.refused = true // until its end
		return msg.AdmitA{Reply: r}
	}
	u.c.open++
	delete(a.unnamed, q.Session)
	return msg.AdmitA{}
}

// end takes a session that was admitted out of the counts.
func (a *admission) end(q *msg.AdmitQ) {
	if u := a.unnamed[q.Session]; u != nil {
		delete(a.unnamed, q.Session)
		if !u.refused {
			u.c.unnamed--
		}
		return
	}
	if c := a.clients[q.Client]; c != nil && c.open > 0 {
		c.open--
	}
}
