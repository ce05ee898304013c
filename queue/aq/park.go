package aq

import (
	"time"

	"meta1/mta/smtp"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// parkDestination parks all mail in the ready queue for a destination whose hosts are all
// closed.
func (c *Core) parkDestination(d *sched.Destination) {
	p := c.intake.Close(c.now, d)
	c.routes.Forget(d.Key())
	for _, j := range c.sched.TakeAll(c.now, d) {
		c.deferMail(j.Mail.(*mail), p)
	}
}

// parkOne parks a recipient that was not tried.
func (c *Core) parkOne(r *rcpt, p *intake.Park) {
	ends := outcome{m: r.m}
	c.parkIn(r, p, &ends)
	c.conclude(&ends)
}

// parkIn is parkOne in a step. Without a park, the recipient waits for a while.
func (c *Core) parkIn(r *rcpt, p *intake.Park, ends *outcome) {
	if p == nil {
		c.postponeOne(r, State{NextTry: c.now.Add(c.cfg.Sched.Retry.Min), Reason: "mail for too many destinations is parked"}, ends)
		return
	}
	c.postponeOne(r, State{NextTry: c.backstop(r), Reason: c.intake.Reason(p), Parked: true, Dest: p.Name()}, ends)
}

// backstop is when a parked recipient comes back by itself: after the longest retry time, or
// when its sender must be told something.
func (c *Core) backstop(r *rcpt) time.Time {
	const many = 64
	left := c.cfg.Patience.Return - c.age(r)
	if c.cfg.Patience.Delay > c.age(r) && !r.rec.Delayed {
		left = min(left, c.cfg.Patience.Delay-c.age(r))
	}
	return c.now.Add(min(c.cfg.Sched.Retry.Delay(many, c.chance(r, many)), left))
}

// noRoute parks a recipient for whose domain no route is found, until it is looked up again.
func (c *Core) noRoute(r *rcpt, reply smtp.Reply, ends *outcome) {
	p := c.intake.NoRoute(c.now, r.searched(), reply.String(), func(n int) float64 { return c.chance(r, n) })
	c.again(r, failing{reply: reply, park: p}, ends)
}
