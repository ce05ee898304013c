// Package crowd decides which clients may stay when a server's sessions grow scarce: who
// is let in, who has to make room, and how long an idle client may stay. It is pure:
// sessions and times in, decisions out.
//
// # Stress
//
// While three quarters of all sessions are taken the server is under stress, and stays so
// until fewer than five eighths are. The anchor is Postfix's stress-adaptive behaviour,
// which shortens smtpd_timeout from 300 to 10 seconds when all processes are busy. Here the
// time shrinks step by step: from Limits.Idle, where stress begins, to Limits.IdleStressed,
// where every session is taken.
//
// # Who makes room
//
// A client is idle since it last made progress toward a message; a NOOP is none. In the
// order in which clients have to go:
//
//  1. those of an address that has more than its share of the sessions,
//  2. those that have brought no mail,
//  3. the others,
//
// and of each kind those that have been idle longest. Nobody goes within a moment (graceIdle) of
// its last progress, in a transaction within graceTransaction, nor within graceMail of a
// message that was accepted. Who is sending a message, or waits for us, never goes: such
// sessions have time limits of their own.
//
// While there is stress an address that had to go without having brought mail gets no new
// session for a minute: else the same clients would come again at once and take the room
// that others need.
package crowd

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	// stressFrom and stressTo are the parts of all sessions at which stress begins and is
	// over.
	stressFrom = 0.75
	stressTo   = 0.625
	// graceIdle is enough for a round trip to any client, and what it does between two commands.
	graceIdle = time.Second
	// graceTransaction is Postfix's smtpd_timeout under stress.
	graceTransaction = 10 * time.Second
	// graceMail is as long as clients such as Postfix keep an idle connection at most for
	// their next message.
	graceMail = time.Minute
	// exile is how long an address that had to go gets no new session under stress.
	exile = time.Minute
	// exiledLeast is how many such addresses are known at least; else as many as sessions.
	exiledLeast = 1024
	// batch is the part of all sessions that makes room at once, so that not each new
	// client costs a look at all of them.
	batch = 0.01
	// leavingMax is the part of all sessions that may be on their way out, beside Limits.Max.
	leavingMax = 0.25
)

// Limits of a crowd.
type Limits struct {
	Max          int           // sessions; 0: no limit, then nothing is ever scarce
	Share        float64       // part of Max that one address may hold under stress; 1 and more: no limit
	Idle         time.Duration // how long a client may be idle without stress
	IdleStressed time.Duration // the same while every session is taken
}

// Reason says why a client is not let in, or has to go.
type Reason uint8

// The reasons.
const (
	None   Reason = iota
	Full          // every session is taken, and nobody can make room
	Exiled        // its address had to go a moment ago
	Share         // its address has more than its share
	Room          // a new client needs the session
	Idle          // idle for longer than stress allows
)

// String is the reason in metrics and in the log.
func (r Reason) String() string {
	return [...]string{"", "threads_max", "idle_before", "address_share", "room", "stress_timeout"}[r]
}

// Crowd is all sessions of one server. It has no lock: its owner calls it from one
// goroutine at a time. All times are since one moment of the owner's choice, by a clock
// that does not jump.
type Crowd struct {
	limits   Limits
	guests   map[*Guest]struct{}
	of       map[netip.Addr]int // guests that stay, by address
	leaving  int                // guests that were told to go
	stressed bool
	exiled   map[netip.Addr]time.Duration // until when
	// nobodyUntil: before that time nobody can make room, whoever looks.
	nobodyUntil time.Duration
}

// New makes an empty crowd.
func New(l Limits) *Crowd {
	return &Crowd{limits: l, guests: map[*Guest]struct{}{}, of: map[netip.Addr]int{}, exiled: map[netip.Addr]time.Duration{}}
}

// SetLimits takes other limits. Nobody has to go because they are lower: new guests are not let in
// until enough have left, or make room as under New's limits.
func (c *Crowd) SetLimits(l Limits) {
	c.limits, c.nobodyUntil = l, 0
	if l.Max == 0 {
		c.stressed = false
		clear(c.exiled)
	}
	c.judge()
}

// Len is the number of sessions, those that have to go included.
func (c *Crowd) Len() int { return len(c.guests) }

// staying is the number of sessions that count against Limits.Max.
func (c *Crowd) staying() int { return len(c.guests) - c.leaving }

// Stressed reports whether the server is under stress.
func (c *Crowd) Stressed() bool { return c.stressed }

// IdleTime is how long an idle client that has brought no mail may stay at present.
func (c *Crowd) IdleTime() time.Duration {
	if !c.stressed || c.limits.Idle <= c.limits.IdleStressed {
		return c.limits.Idle
	}
	load := float64(c.staying()) / float64(c.limits.Max)
	load = min(max((load-stressFrom)/(1-stressFrom), 0), 1)
	return time.Duration(float64(c.limits.Idle) * math.Pow(float64(c.limits.IdleStressed)/float64(c.limits.Idle), load))
}

// Arrive lets a guest in, or says why not. The guests that are returned have to go: they are marked
// so, and the server ends their sessions.
func (c *Crowd) Arrive(g *Guest, addr netip.Addr, now time.Duration) (Reason, []*Guest) {
	var leave []*Guest
	if m := c.limits.Max; m > 0 {
		if c.isExiled(addr, now) {
			return Exiled, nil
		}
		if c.crowded(addr) {
			return Share, nil
		}
		if c.staying() >= m {
			leave = c.makeRoom(now)
		}
		if c.staying() >= m {
			return Full, leave
		}
	}
	g.addr = key(addr)
	c.guests[g] = struct{}{}
	c.of[g.addr]++
	c.judge()
	return None, leave
}

// Identify gives a guest the address that is behind a proxy. It stays in the crowd,
// whatever the answer.
func (c *Crowd) Identify(g *Guest, addr netip.Addr, now time.Duration) Reason {
	if _, ok := c.guests[g]; !ok || g.standing().state == Leaving {
		return None // it is counted no more
	}
	c.uncount(g)
	r := None
	switch {
	case c.isExiled(addr, now):
		r = Exiled
	case c.crowded(addr):
		r = Share
	}
	g.addr = key(addr)
	c.of[g.addr]++
	return r
}

// Depart takes a guest out. One that is not in the crowd is none.
func (c *Crowd) Depart(g *Guest) {
	if _, ok := c.guests[g]; !ok {
		return
	}
	delete(c.guests, g)
	if g.standing().state == Leaving {
		c.leaving--
	} else {
		c.uncount(g)
	}
	c.judge()
}

// Sweep finds those who have been idle for longer than stress allows, or whose address has more
// than its share: they have to go. It is to be called every second while there is stress.
func (c *Crowd) Sweep(now time.Duration) []*Guest {
	if !c.stressed {
		return nil
	}
	maps.DeleteFunc(c.exiled, func(_ netip.Addr, until time.Duration) bool { return now >= until })
	limit := c.IdleTime()
	var leave []*Guest
	for g := range c.guests {
		st := g.standing()
		idle := now - st.since
		switch {
		case idle < grace(g, st):
		case c.surplus(g.addr) > 0 && c.dismiss(g, st, Share, now):
			leave = append(leave, g)
		case idle >= limit && c.dismiss(g, st, Idle, now):
			leave = append(leave, g)
		}
	}
	c.judge()
	return leave
}

// makeRoom dismisses the guests that have to go first, a batch at most.
func (c *Crowd) makeRoom(now time.Duration) []*Guest {
	n := min(portion(c.limits.Max, batch), portion(c.limits.Max, leavingMax)-c.leaving)
	if n <= 0 || now < c.nobodyUntil {
		return nil
	}
	type candidate struct {
		g       *Guest
		st      standing
		surplus bool
		mail    bool
	}
	var all []candidate
	next := now + graceIdle // by then, those who have waited for us may have become idle
	for g := range c.guests {
		st := g.standing()
		least := grace(g, st)
		if wait := least - (now - st.since); wait > 0 {
			if least != never {
				next = min(next, now+wait)
			}
			continue
		}
		all = append(all, candidate{g, st, c.surplus(g.addr) > 0, g.broughtMail()})
	}
	slices.SortFunc(all, func(a, b candidate) int {
		switch {
		case a.surplus != b.surplus:
			return first(a.surplus)
		case a.mail != b.mail:
			return first(b.mail)
		}
		return cmp.Compare(a.st.since, b.st.since)
	})
	var leave []*Guest
	for _, k := range all {
		if len(leave) == n {
			break
		}
		if k.surplus && c.surplus(k.g.addr) <= 0 {
			continue // others of its address went; its turn is with the rest, next time
		}
		if c.dismiss(k.g, k.st, Room, now) {
			leave = append(leave, k.g)
		}
	}
	if len(leave) == 0 {
		c.nobodyUntil = next
	}
	return leave
}

// first orders what has a property before what has not.
func first(has bool) int {
	if has {
		return -1
	}
	return 1
}

// never is the grace of those who do not go.
const never = time.Duration(1 << 60)

// grace is how long a guest must have been idle before it can be dismissed.
func grace(g *Guest, st standing) time.Duration {
	least := graceIdle
	switch st.state {
	case Waiting:
	case InTransaction:
		least = graceTransaction
	default:
		return never
	}
	if mail, ok := g.lastMail(); ok {
		// Idle time counts from the last progress, which may be later than the message.
		least = max(least, mail+graceMail-st.since)
	}
	return least
}

// dismiss tells a guest to go, unless its client has made a step meanwhile.
func (c *Crowd) dismiss(g *Guest, st standing, r Reason, now time.Duration) bool {
	if !g.leave(st, r, now) {
		return false
	}
	c.leaving++
	c.uncount(g)
	if !exempt(g.addr) && !g.broughtMail() && len(c.exiled) < max(c.limits.Max, exiledLeast) {
		c.exiled[g.addr] = now + exile
	}
	return true
}

// isExiled reports that an address had to go a moment ago.
func (c *Crowd) isExiled(addr netip.Addr, now time.Duration) bool {
	return c.stressed && now < c.exiled[key(addr)]
}

// crowded reports that an address has its share and gets no more.
func (c *Crowd) crowded(addr netip.Addr) bool {
	return c.stressed && c.surplus(key(addr)) >= 0
}

// surplus is how many sessions an address has beyond its share: 0 if it has just that, less
// if it may have more.
func (c *Crowd) surplus(k netip.Addr) int {
	if exempt(k) || c.limits.Share >= 1 {
		return -1
	}
	return c.of[k] - portion(c.limits.Max, c.limits.Share)
}

func (c *Crowd) uncount(g *Guest) {
	if c.of[g.addr]--; c.of[g.addr] == 0 {
		delete(c.of, g.addr)
	}
}

// judge notes whether there is stress.
func (c *Crowd) judge() {
	m := float64(c.limits.Max)
	switch n := float64(c.staying()); {
	case m == 0:
	case n >= m*stressFrom:
		c.stressed = true
	case n < m*stressTo:
		c.stressed = false
		clear(c.exiled)
	}
}

// portion is a part of a number, at least one.
func portion(n int, part float64) int { return max(int(float64(n)*part), 1) }

// exempt reports the clients that are this host: many of them share one address.
func exempt(addr netip.Addr) bool { return !addr.IsValid() || addr.IsLoopback() }

// key is what counts as one address: of IPv6 the net of 64 bits, which one host has for
// itself.
func key(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || exempt(addr) {
		return addr
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return p.Addr()
}
