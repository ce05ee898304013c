package aq

import (
	"log/slog"
	"slices"
	"time"

	"meta1/mta/smtp"
	"meta1/queue/entry"
	"meta1/queue/sched"
)

// How recipients enter and leave the active queue. Every move of a recipient is one Save:
// decided here, counted at once (message.left, message.fresh), and durable when Advance says
// so; only then does the recipient leave.

// fullPause is when a recipient is due that found the active queue full.
const fullPause = 10 * time.Second

// enter takes a message whose recipients are all fresh into the active queue. One with more
// recipients than there is room for is deferred as a whole: it comes back as room allows.
func (c *Core) enter(m *message) {
	c.messages[m.env.TA] = m
	if over := c.cfg.Budget.Over(); over > 0 && len(m.rcpts) > 0 {
		c.postpone(m.all(), c.now.Add(fullPause), "the active queue is full")
		return
	}
	c.route(m, m.rcpts)
}

// recovered takes in a message that a start has found.
func (c *Core) recovered(ev *Recovered) {
	m := readMessage(&ev.Message)
	age := entry.Age(0, ev.Envelope.Arrival, c.now, c.cfg.Patience.Return)
	m.takeFresh(slices.Concat(ev.Ended, ev.Deferred), c.now, age)
	m.ended = ev.Ended
	m.left = m.fresh + len(ev.Deferred)
	switch {
	case m.fresh == 0: // no write of ours leaves it so
		c.messages[ev.Envelope.TA] = m
		c.endMessage(c.newSave(m), true)
	case ev.Lost:
		c.messages[ev.Envelope.TA] = m
		c.giveUp(m, m.all())
	default:
		c.enter(m)
	}
}

// giveUp bounces recipients of a message whose content is gone: an error that is told, never
// a silent drop.
func (c *Core) giveUp(m *message, rcpts []*rcpt) {
	c.log(slog.LevelError, "an envelope has no content: its recipients are bounced", slog.String("ss_ta", m.env.TA.String()), slog.Int("rcpts", len(rcpts)))
	var failed []notice
	for _, r := range rcpts {
		failed = append(failed, r.failure(smtp.NewReply(554, "5.3.0", "the content of the mail was lost on disk"), "", ""))
	}
	c.bounce(m, "", failed)
}

// newSave begins a step, of a message unless m is nil.
func (c *Core) newSave(m *message) *Save {
	c.saved++
	s := &Save{ID: c.saved, m: m}
	if m != nil {
		m.busy++
	} else {
		c.rewritten = s.ID
	}
	c.saving = append(c.saving, s)
	c.out.Save = append(c.out.Save, s)
	return s
}

// end ends recipients of a message: they were delivered, given up with the notice that is in
// the same save, or removed.
func (c *Core) end(s *Save, rcpts []*rcpt) {
	m := s.m
	if len(rcpts) == 0 {
		return
	}
	wasFresh := m.fresh > 0
	m.left -= len(rcpts)
	for _, r := range rcpts {
		if r.class == sched.Fresh {
			m.fresh--
		}
	}
	for _, r := range rcpts {
		if m.fresh > 0 { // else the whole message, or its fresh part, ends below
			m.ended = append(m.ended, r.index)
		}
		if r.class == sched.Deferred {
			s.Changes = append(s.Changes, Change{Kind: EndDeferred, Ref: r.ref(), Old: &r.rec, Fresh: m.fresh > 0})
		} else if m.fresh > 0 {
			s.Changes = append(s.Changes, Change{Kind: EndFresh, Ref: r.ref()})
		}
		c.saveLeaves(s, r)
	}
	c.endMessage(s, wasFresh)
}

// endMessage ends the message, or its fresh part, if nothing of it is left.
func (c *Core) endMessage(s *Save, wasFresh bool) {
	m := s.m
	switch {
	case m.left == 0:
		s.Changes = append(s.Changes, Change{Kind: Forget, Ref: Ref{TA: m.env.TA}, Envelope: m.env, Ended: m.ended, Inline: m.content.committed(), Fresh: wasFresh})
		m.ended = nil
	case wasFresh && m.fresh == 0:
		s.Changes = append(s.Changes, Change{Kind: DropAccepted, Ref: Ref{TA: m.env.TA}, Ended: m.ended})
		m.ended = nil
	}
}

// put defers a recipient: next is its new record but for what is known of it here.
func (c *Core) put(s *Save, r *rcpt, next State) {
	m := s.m
	next.Ref, next.Stored, next.Waited = r.ref(), c.now, c.age(r)
	next.Delayed = next.Delayed || r.rec.Delayed
	if next.Dest == "" {
		next.Dest = r.destName()
	}
	ch := Change{Kind: Put, Ref: next.Ref, State: &next}
	wasFresh := m.fresh > 0
	if r.class == sched.Deferred {
		old := r.rec
		ch.Old = &old
	} else {
		m.fresh--
	}
	s.Changes = append(s.Changes, ch)
	r.rec = next
	c.saveLeaves(s, r)
	c.endMessage(s, wasFresh)
}

// saveLeaves has a recipient leave the active queue when a save is durable.
func (c *Core) saveLeaves(s *Save, r *rcpt) {
	c.unready(r)
	r.state = Saving
	s.leave = append(s.leave, r)
}

// unready takes a recipient out of the ready queue, if it is there.
func (c *Core) unready(r *rcpt) {
	if r.dest != nil {
		c.sched.AddEntries(r.dest, -1)
		r.dest = nil
	}
	if r.mail != nil {
		r.mail.lose(r)
	}
}

// done goes on after a save.
func (c *Core) done(s *Save) {
	for _, m := range s.enter {
		c.counts.Accepted++
		c.enter(m)
	}
	for _, r := range s.leave {
		c.leave(r)
	}
	forgotten, put := false, false
	for i := range s.Changes {
		switch ch := &s.Changes[i]; ch.Kind {
		case Forget:
			forgotten = true
		case Put:
			put = true
			sender := ""
			if s.m != nil {
				sender = s.m.sender
			}
			c.deferredNow(ch.State, sender, s.m == nil)
		}
	}
	if s.m == nil {
		return
	}
	m := s.m
	m.busy--
	large := m.size > c.cfg.SpillOver
	switch {
	case forgotten && (large && m.content != inStore || !m.content.committed()): // its content may be a file by now
		c.out.Unlink = append(c.out.Unlink, m.env.TA)
	case put && large && m.content.committed() && m.content != spilled:
		m.content = spilled
		c.out.Spill = append(c.out.Spill, m.env)
	}
	c.evict(m)
}

// leave takes a recipient out of the active queue.
func (c *Core) leave(r *rcpt) {
	r.m.drop(r)
	c.cfg.Budget.Leave(r.class == sched.Fresh)
	if r.park != nil {
		r.park.Left()
		r.park = nil
	}
	c.intake.Changed(r.ref())
}

// deferredNow takes note of a recipient whose record is durable. moved says that it was
// deferred before and not in the active queue. sender is that of its message, "" if it is not
// known.
func (c *Core) deferredNow(st *State, sender string, moved bool) {
	if !moved {
		c.counts.Waiting++
		c.counts.MaxWaiting = max(c.counts.MaxWaiting, c.counts.Waiting)
	}
	c.intake.Deferred(c.now, st, sender)
}

// evict forgets a message in memory that has no recipient in the active queue and nothing in
// progress. During a scan it stays: the scan may have counted its recipients earlier.
func (c *Core) evict(m *message) {
	switch {
	case len(m.rcpts) > 0 || m.busy > 0:
	case c.intake.Scanning():
		c.idle = append(c.idle, m)
	case c.messages[m.env.TA] == m:
		delete(c.messages, m.env.TA)
		c.out.Evict = append(c.out.Evict, m.env.TA)
	}
}

// attrEnded is the field that says in the log that nothing is left to do for a recipient
// (README 10.4). Package fsck reads it.
func attrEnded() slog.Attr { return slog.Int("stat", 0) }

// rcptIDs are the identifiers of a recipient in the log: those of its message and its own. With the first the whole
// story of a message is found by one comparison, also where nobody can search within a value.
func rcptIDs(r *rcpt) [2]slog.Attr {
	return [2]slog.Attr{slog.Any("ss_ta", &r.m.env.TA), slog.String("rcpt_id", r.ref().String())}
}

// logRcpt logs something of a recipient.
func (c *Core) logRcpt(level slog.Level, text string, r *rcpt, attrs ...slog.Attr) {
	ids := rcptIDs(r)
	c.log(level, text, append(append(ids[:], slog.Any("rcpt", r.path())), attrs...)...)
}

// logAttempt is the line of README 10.4 for a recipient. da is the transaction of the client, "" if there was none.
func (c *Core) logAttempt(what, da string, r *rcpt, reply smtp.Reply, ended bool) {
	var xdelay time.Duration
	if !r.start.IsZero() {
		xdelay = c.now.Sub(r.start)
	}
	ids := rcptIDs(r)
	attrs := [8]slog.Attr{
		ids[0], ids[1], slog.Any("rcpt", &r.attr().To), slog.Duration("xdelay", xdelay), slog.Int64("delay", int64(c.age(r)/time.Second)),
		slog.Any("reply", reply),
	}
	n := 6
	if da != "" {
		attrs[n] = slog.String("da_ta", da)
		n++
	}
	if ended {
		attrs[n] = attrEnded()
		n++
	}
	c.log(slog.LevelInfo, what, attrs[:n]...)
}
