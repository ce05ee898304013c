package aq

import (
	"fmt"
	"log/slog"

	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// scanned takes in what a scan has brought. Package intake says which are made.
func (c *Core) scanned(ev *Scanned) {
	q := ev.Scan
	if ev.Err != nil {
		c.log(slog.LevelError, "cannot read deferred mail", slog.Any("error", ev.Err))
	}
	c.setAside(ev.Broken)
	switch {
	case q.Kind == intake.ScanSelect:
		c.scannedSelection(ev)
	case ev.Err == nil:
		n := 0
		for _, g := range ev.Groups {
			n += len(g.States)
			c.resume(g)
		}
		if q.Kind == intake.ScanLate && n > 0 {
			c.log(slog.LevelWarn, "recipients would wait longer than retry_delay_max because it was lowered or the clock was set back: they are tried now", slog.Int("rcpts", n))
		}
	}
	c.intake.Done(c.now, q, ev.Next, ev.More, ev.Err != nil)
	idle := c.idle
	c.idle = nil
	for _, m := range idle {
		c.evict(m)
	}
}

// resume takes recipients of one message into the active queue and goes on with them.
func (c *Core) resume(g *Group) {
	m, rcpts := c.adopt(g)
	if len(rcpts) == 0 {
		return
	}
	for _, r := range rcpts {
		r.park = c.intake.Returned(c.now, &r.rec, m.sender)
	}
	if m.content == lost {
		c.giveUp(m, rcpts)
		return
	}
	c.route(m, rcpts)
}

// adopt takes deferred recipients of one message into the active queue, except those that
// have changed since they were read.
func (c *Core) adopt(g *Group) (*message, []*rcpt) {
	m := c.messages[g.Envelope.TA]
	var rcpts []*rcpt
	for _, st := range g.States {
		if c.intake.Stale(st.Ref) || st.Index >= len(g.Envelope.Rcpts) || m != nil && m.active.has(st.Index) {
			continue
		}
		if m == nil {
			m = readMessage(&g.Message)
			m.left = g.Left
			c.messages[g.Envelope.TA] = m
		}
		st.Waited, st.Stored = entry.Age(st.Waited, st.Stored, c.now, c.cfg.Patience.Return), c.now
		r := &rcpt{m: m, index: st.Index, class: sched.Deferred, rec: st}
		r.domain = r.path().LowerDomain()
		m.take(r)
		rcpts = append(rcpts, r)
	}
	c.cfg.Budget.Load(len(rcpts))
	c.counts.Waiting -= len(rcpts)
	return m, rcpts
}

// setAside puts records that cannot be decoded where they hinder nothing.
func (c *Core) setAside(broken []*Broken) {
	if len(broken) == 0 {
		return
	}
	s := c.newSave(nil)
	for _, b := range broken {
		c.counts.SetAside++
		c.log(slog.LevelError, "a record cannot be decoded and is set aside", slog.String("key", fmt.Sprintf("%x", b.Key)), slog.Any("error", b.Err))
		s.Changes = append(s.Changes, Change{Kind: SetAside, Broken: b})
	}
}
