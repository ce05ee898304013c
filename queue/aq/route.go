package aq

import (
	"log/slog"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/expand"
	"meta1/queue/intake"
	"meta1/queue/lookup"
)

// route finds the routes of recipients of one message. A destination that is stored with a
// recipient has one as long as it is known and has not expired; others are looked up.
func (c *Core) route(m *message, rcpts []*rcpt) {
	if len(rcpts) == 1 { // as most messages have
		if r := rcpts[0]; !c.routeKnown(r) {
			c.lookups.Add(r.searched(), m.sender).Add(r)
		}
		return
	}
	parts := map[string]*lookup.Part[*rcpt]{}
	for _, r := range append([]*rcpt(nil), rcpts...) {
		if c.routeKnown(r) {
			continue
		}
		domain := r.searched()
		part := parts[domain]
		if part == nil {
			part = c.lookups.Add(domain, m.sender)
			parts[domain] = part
		}
		part.Add(r)
	}
}

// searched is the name under which routes for a recipient's domain are looked up, and fail. Mail
// that no policy of the recipient's side keeps back may have a route where other mail has none.
func (r *rcpt) searched() string {
	if r.m.env.Mail.TLSOptional {
		return r.domain + msg.DestTLSOptional
	}
	return r.domain
}

// routeKnown goes on with a recipient if no lookup is needed, or would help.
func (c *Core) routeKnown(r *rcpt) bool {
	r.state = Routing
	if c.handsOver() {
		return false
	}
	if dest := r.rec.Dest; dest != "" {
		if d := c.sched.Lookup(dest, c.cfg.Limits(r.domain)); d != nil && r.park == nil && c.intake.OverShare(d, r.class) {
			c.parkOne(r, c.intake.Backlog(dest))
			return true
		}
		if hops := c.routes.Of(c.now, dest); hops != nil && !r.m.env.Mail.TLSOptional { // a policy may have come since
			c.join(r, dest, hops, nil)
			return true
		}
	}
	if p := c.intake.RouteFails(c.now, r.searched()); p != nil {
		r.rec.Dest = p.Name()
		c.parkOne(r, p)
		return true
	}
	return false
}

// handsOver reports whether mail is handed over to another MTA.
func (c *Core) handsOver() bool { return c.cfg.HandsOver != nil && c.cfg.HandsOver() }

// lookUp begins as many lookups as may be in progress.
func (c *Core) lookUp() {
	for !c.down[SMAR] && !c.draining {
		b := c.lookups.Next(func(r *rcpt) bool { return r.state == Routing }) // not withdrawn meanwhile
		if b == nil {
			return
		}
		if p := c.intake.RouteClosed(c.now, b.Domain); p != nil && !c.handsOver() { // it has failed since they were queued
			c.parkAll(b.Rcpts, p)
			c.lookups.Done(b, true)
			continue
		}
		q := &Lookup{Rcpts: make([]Rcpt, len(b.Rcpts)), Asked: c.now, batch: b}
		for i, r := range b.Rcpts {
			q.Rcpts[i] = Rcpt{Ref: r.ref(), Envelope: r.m.env, r: r}
		}
		c.out.Lookup = append(c.out.Lookup, q)
	}
}

// parkAll parks recipients that were not tried.
func (c *Core) parkAll(rcpts []*rcpt, p *intake.Park) {
	var ends outcome
	for _, r := range rcpts {
		c.next(&ends, r.m)
		r.rec.Dest = p.Name()
		c.parkIn(r, p, &ends)
	}
	c.conclude(&ends)
}

// routed takes answers of SMAR.
func (c *Core) routed(ev *Routed) {
	q := ev.Lookup
	rcpts := q.Rcpts[:min(len(ev.Answers), len(q.Rcpts))]
	q.Rcpts = q.Rcpts[len(rcpts):]
	var ends outcome
	for i, x := range rcpts {
		c.next(&ends, x.r.m)
		if x.r.state == Routing {
			c.routedOne(x.r, &ev.Answers[i], q.Asked, &ends)
		}
	}
	c.conclude(&ends)
	if !ev.Done {
		return
	}
	if ev.Down {
		c.down[SMAR] = true
		var m *message
		var again *lookup.Part[*rcpt]
		for _, x := range q.Rcpts {
			if x.r.m != m {
				m, again = x.r.m, c.lookups.Add(q.batch.Domain, x.r.m.sender)
			}
			again.Add(x.r)
		}
	}
	c.lookups.Done(q.batch, ev.Hung || ev.Down)
}

// routedOne goes on with a recipient whose lookup was answered.
func (c *Core) routedOne(r *rcpt, a *msg.RouteA, asked time.Time, ends *outcome) {
	domainFails := c.domainFails(r, a)
	if !domainFails {
		c.intake.RouteFound(c.now, r.searched())
	}
	switch {
	case len(a.Hops) > 0:
		if a.RcptConf == nil {
			c.routes.Keep(c.now, a, asked, c.ahead)
		}
		c.join(r, a.Dest, a.Hops, a.RcptConf)
	case len(a.Expand) > 0:
		c.expand(r, a)
	case a.Reply.Permanent():
		ends.failed = append(ends.failed, r.failure(a.Reply, "address resolution", ""))
	case domainFails:
		c.noRoute(r, a.Reply, ends)
	default:
		c.again(r, failing{reply: a.Reply}, ends)
	}
}

// domainFails reports whether an answer says that no route can be found now for all of a
// recipient's domain. What fails by an alias or a map is the recipient's alone.
func (c *Core) domainFails(r *rcpt, a *msg.RouteA) bool {
	return len(a.Hops) == 0 && len(a.Expand) == 0 && !a.Reply.Permanent() && strings.EqualFold(a.Dest, "mx:"+r.domain)
}

// expand has a recipient replaced by those that its alias stands for: by a message with the
// same content for each sender, that is for each list with an owner of its own.
func (c *Core) expand(r *rcpt, a *msg.RouteA) {
	m := r.m
	to, lists := 0, true
	for i := range a.Expand {
		lists = lists && !a.Expand[i].Owner.IsNull()
		to += len(a.Expand[i].Rcpts)
	}
	c.expanded(r, to, lists)
	mk := &Make{Of: m.env.TA, Body: m.body, m: m, rcpts: []*rcpt{r}, waited: c.age(r)}
	rules := expand.Rules{VERP: c.cfg.VERP, Rewrite: c.cfg.Rewrite, Rewritten: func(from, by smtp.Path, ok bool) {
		if !ok {
			c.logRcpt(slog.LevelInfo, "SRS left out: the address would be too long", r, slog.Any("sender", from))
			return
		}
		c.logRcpt(slog.LevelInfo, "sender rewritten", r, slog.Any("sender", from), slog.Any("by", by))
	}}
	for i := range a.Expand {
		for _, env := range rules.Envelopes(m.env, r.attr(), &a.Expand[i], to) {
			mk.Envelopes = append(mk.Envelopes, env)
			mk.Seal = append(mk.Seal, a.Expand[i].Forwarded)
		}
	}
	c.make(mk)
}
