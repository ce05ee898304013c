package admit

import (
	"math"
	"net/netip"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/conf"
)

// unlimited is a limit of incoming connections that is none.
const unlimited = math.MaxInt

// incoming is one kind of limit on the connections of a client: on those within a
// minute, or on open ones. Connections are counted by address; the name only chooses
// the limit (README 3.8.1).
type incoming struct {
	byIP   conf.IPTable
	byName *conf.NameTable
	option int
	cap    int  // that was set while meta1 runs
	exempt bool // the client has no limit but those for its address or name
}

// of gives the limit of a client: what the first of these says: the entry for its
// address or net, the entry for its name or domain, the entry without address, the
// option. A client on this host has only the first two, and so has one that may relay,
// where that exempts it.
func (k *incoming) of(client netip.Addr, name string) int {
	return min(k.configured(client, name), k.cap)
}

func (k *incoming) configured(client netip.Addr, name string) int {
	if n, ok := k.byIP.Of(client); ok {
		return n
	}
	if n, ok := k.byName.Of(name); ok {
		return n
	}
	if k.exempt || client.Unmap().IsLoopback() {
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
	return min(max(n, k.byName.Max()), k.cap), true
}

// kinds are the limits that hold for a client at present.
func (a *Clients) kinds(client netip.Addr, now time.Time) (rate, open incoming) {
	c := a.limits()
	rate = incoming{byIP: c.InRate, byName: &c.InNameRate, option: c.RateMax, exempt: a.relays(client, now), cap: a.cap(msg.ThrottleInRate, client)}
	return rate, incoming{byIP: c.InOpen, byName: &c.InNameOpen, option: c.ConnectionsMax, cap: a.cap(msg.ThrottleInOpen, client)}
}

// cap is the limit that was set while meta1 runs, over what the configuration says.
func (a *Clients) cap(kind msg.ThrottleKind, client netip.Addr) int {
	if n, ok := a.now.Of(kind, client); ok {
		return n
	}
	return unlimited
}

// relayMemory is how long an address counts as one that may relay, from its last
// transaction on. A host that sends less often does not come near the limits.
const relayMemory = time.Hour

// relays reports that the client was allowed to relay not long ago. It is known only
// afterwards: access is checked when the session is admitted already. A relay host has
// hundreds of connections a minute when it has much to send, and to refuse them only
// delays its mail.
func (a *Clients) relays(client netip.Addr, now time.Time) bool {
	c := a.clients[client]
	return c != nil && !c.relayed.IsZero() && now.Sub(c.relayed) < relayMemory
}

// Relays notes that the client of a session may relay.
func (a *Clients) Relays(id smtp.ID, now time.Time) {
	if s := a.sessions[id]; s != nil && s.client != nil {
		s.client.relayed = now
	}
}

// Would returns why a session of a client with that name would be refused now, or zero. It
// counts nothing.
func (a *Clients) Would(client netip.Addr, name string, now time.Time) smtp.Reply {
	if !client.IsValid() {
		return smtp.Reply{}
	}
	rate, open := a.kinds(client, now)
	n, held := 1, 0
	if c := a.clients[client]; c != nil {
		held = c.open + c.unnamed
		if now.Sub(c.since) < 2*rateWindow {
			seen := *c
			if now.Sub(c.since) >= rateWindow {
				seen.since, seen.count, seen.last = c.since.Add(rateWindow), 0, c.count
			}
			n += seen.rate(now)
		}
	}
	return exceeded(n, rate.of(client, name), held, open.of(client, name))
}

// limitsOf are those for a client that has just connected. If ask is set they are only
// what no name can exceed, so that a client over all limits costs no lookup of its
// name. A Unix socket has no limits.
func (a *Clients) limitsOf(client netip.Addr, now time.Time) (rate, open int, ask bool) {
	if !client.IsValid() {
		return unlimited, unlimited, false
	}
	r, o := a.kinds(client, now)
	rate, askRate := r.most(client)
	open, askOpen := o.most(client)
	if !askRate && !askOpen {
		return rate, open, false
	}
	if a.unnamed >= a.limits().CacheSize { // no room to wait for the name
		return r.of(client, ""), o.of(client, ""), false
	}
	return rate, open, true
}
