// Package admit counts the connections of clients, and says which may have one more
// (README 3.8.1). It is pure: time is passed in.
package admit

import (
	"net/netip"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/conf"
)

// rateWindow is the time in which connections are counted.
const rateWindow = time.Minute

// Clients are the clients that have sessions, or had some lately. It is not safe for concurrent
// use.
type Clients struct {
	limits   func() Limits
	budget   *budget.Budget
	now      *msg.Throttles
	clients  map[netip.Addr]*clientCount
	sessions map[smtp.ID]*session // those that this instance of the queue has admitted
	unnamed  int                  // of these, sessionUnnamed
	swept    time.Time            // when clients was last searched for what can go
}

// clientCount is what is known of one client address.
type clientCount struct {
	open    int
	unnamed int       // sessions of which the name is not known yet, beside those
	since   time.Time // beginning of the window
	count   int       // connections in it
	last    int       // connections in the window before
	relayed time.Time // when it was last allowed to relay because of its address or name
}

// session is a session that was admitted.
type session struct {
	client *clientCount // nil: it is not counted
	state  sessionState
	rate   int     // of its client when it came: later ones do not count against it
	grant  smtp.ID // of its last transaction, if the queue has not got that yet
}

// sessionState says how a session is counted.
type sessionState uint8

const (
	sessionFree    sessionState = iota // not at all: it has no limits, or was refused by its name
	sessionUnnamed                     // in clientCount.unnamed, until the client's name is known
	sessionOpen                        // in clientCount.open
)

// Limits are the options and entries of the configuration map that bound the connections of clients.
type Limits struct {
	*conf.SMTPSConfig
	*conf.Rules
}

// New makes a table without clients. limits are asked for with each session; budget grants the
// transactions. now are the limits that were set while meta1 runs.
func New(limits func() Limits, b *budget.Budget, now *msg.Throttles) *Clients {
	return &Clients{limits: limits, budget: b, now: now, clients: map[netip.Addr]*clientCount{}, sessions: map[smtp.ID]*session{}}
}

// Connect admits a session, or returns why not. It is known until End, so that only what this
// instance has counted is taken out of the counts again. ask says that Named decides when the
// name of the client is known.
func (a *Clients) Connect(id smtp.ID, client netip.Addr, now time.Time) (ask bool, refusal smtp.Reply) {
	rate, open, ask := a.limitsOf(client, now)
	s := &session{}
	if rate != unlimited || open != unlimited || ask {
		s.client = a.count(client, now)
	}
	if s.client == nil { // without limits, or the table is full of open clients
		a.sessions[id] = s
		return false, smtp.Reply{}
	}
	c := s.client
	c.count++ // a refused one counts too
	s.rate = c.rate(now)
	if r := exceeded(s.rate, rate, c.open+c.unnamed, open); !r.IsZero() {
		return false, r
	}
	a.sessions[id] = s
	if ask {
		c.unnamed++
		a.unnamed++
		s.state = sessionUnnamed
	} else {
		c.open++
		s.state = sessionOpen
	}
	return ask, smtp.Reply{}
}

// Named decides on a session when the name of its client is known, and returns why it is
// refused, or zero. One that this instance does not know is let in: a former one has counted it.
func (a *Clients) Named(id smtp.ID, client netip.Addr, name string, now time.Time) smtp.Reply {
	s := a.sessions[id]
	if s == nil || s.state != sessionUnnamed {
		return smtp.Reply{}
	}
	s.client.unnamed--
	a.unnamed--
	s.state = sessionFree
	rate, open := a.kinds(client, now)
	if r := exceeded(s.rate, rate.of(client, name), s.client.open, open.of(client, name)); !r.IsZero() {
		return r
	}
	s.client.open++
	s.state = sessionOpen
	return smtp.Reply{}
}

// Grant grants a transaction of a session, or reports that there is no room for it in the
// active queue. A session has one grant at a time: that of its last transaction ends.
func (a *Clients) Grant(id, ta smtp.ID, now time.Time) bool {
	s := a.sessions[id]
	if s != nil {
		a.budget.Revoke(s.grant)
	}
	if !a.budget.Grant(ta, now) {
		return false
	}
	if s != nil {
		s.grant = ta
	}
	return true
}

// End takes a session out of the counts, and ends its grant. One of a former instance is in
// none.
func (a *Clients) End(id smtp.ID) {
	s := a.sessions[id]
	if s == nil {
		return
	}
	delete(a.sessions, id)
	a.budget.Revoke(s.grant)
	switch s.state {
	case sessionUnnamed:
		s.client.unnamed--
		a.unnamed--
	case sessionOpen:
		s.client.open--
	}
}

// exceeded is the refusal of a session that is the n-th within a minute and finds
// open others, or zero.
func exceeded(n, rateMax, open, openMax int) smtp.Reply {
	switch {
	case n > rateMax:
		return smtp.NewReply(421, "4.7.0", "too many connections within a minute from your address")
	case open >= openMax:
		return smtp.NewReply(421, "4.7.0", "too many open connections from your address")
	}
	return smtp.Reply{}
}

// count finds the counters of an address, or nil if there is no room for more.
func (a *Clients) count(client netip.Addr, now time.Time) *clientCount {
	c := a.clients[client]
	if c == nil {
		most := a.limits().CacheSize
		if len(a.clients) >= most {
			a.forget(now)
		}
		if len(a.clients) >= most {
			return nil
		}
		c = &clientCount{since: now}
		a.clients[client] = c
	}
	switch age := now.Sub(c.since); {
	case age >= 2*rateWindow:
		c.since, c.count, c.last = now, 0, 0
	case age >= rateWindow:
		c.since, c.count, c.last = c.since.Add(rateWindow), 0, c.count
	}
	return c
}

// rate is the number of connections within the last minute: those of the present
// window and the part of the last one that still counts.
func (c *clientCount) rate(now time.Time) int {
	part := float64(rateWindow-now.Sub(c.since)) / float64(rateWindow)
	return c.count + int(float64(c.last)*max(part, 0))
}

// forget drops the counters of clients that are gone. It looks at most once a second, so that a
// full table does not cost a search for each connection.
func (a *Clients) forget(now time.Time) {
	if now.Sub(a.swept) < time.Second {
		return
	}
	a.swept = now
	for ip, c := range a.clients {
		if c.open == 0 && c.unnamed == 0 && now.Sub(c.since) >= rateWindow {
			delete(a.clients, ip)
		}
	}
}
