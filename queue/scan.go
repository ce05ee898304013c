package queue

import (
	"errors"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/records"
)

// scan reads deferred mail for the core.
func (q *Queue) scan(s *intake.Scan) *aq.Scanned {
	ev := &aq.Scanned{Scan: s}
	v := q.db.View()
	g := grouper{q: q, v: v, ev: ev, max: s.Max, counts: s.Loads()}
	switch s.Kind {
	case intake.ScanDue, intake.ScanLate:
		g.due(s)
	case intake.ScanParked:
		g.parked(s)
	case intake.ScanSelect:
		g.selected(s)
	}
	for _, b := range v.Broken() {
		ev.Broken = append(ev.Broken, &b)
	}
	ev.Err = errors.Join(g.err, v.Close())
	return ev
}

// grouper puts recipients of one message together.
type grouper struct {
	q   *Queue
	v   *records.View
	ev  *aq.Scanned
	max int
	// counts: the recipients go to the active queue, which must know what is left of a message.
	counts bool
	n      int
	known  map[smtp.ID]*aq.Group
	err    error
}

// add takes a recipient and reports whether there is room for another.
func (g *grouper) add(l *records.Loaded) bool {
	group := g.group(l.Envelope)
	if group == nil {
		return false
	}
	group.States = append(group.States, l.State)
	g.n++
	return g.n < g.max
}

// group finds or makes the group of a message; nil after an error.
func (g *grouper) group(e records.Envelope) *aq.Group {
	if group := g.known[e.TA]; group != nil {
		return group
	}
	group := &aq.Group{Message: aq.Message{Envelope: e.Envelope, Size: e.Size, Inline: e.Inline, Body: g.q.contents.Stored(e.TA, e.Size, !e.Inline)}}
	if g.counts {
		if group.Left, g.err = g.v.Left(e.TA); g.err != nil {
			return nil
		}
	}
	group.Lost = !e.Inline && g.q.isLost(e.TA)
	if g.known == nil {
		g.known = map[smtp.ID]*aq.Group{}
	}
	g.known[e.TA] = group
	g.ev.Groups = append(g.ev.Groups, group)
	return group
}

// due reads recipients in the order of their due times.
func (g *grouper) due(s *intake.Scan) {
	if err := g.v.Due(s.Until, &s.Cursor, g.add); err != nil || g.err != nil {
		g.err = errors.Join(err, g.err)
		return
	}
	g.ev.More = g.n == g.max
	if s.Kind == intake.ScanDue {
		next, ok, err := g.v.NextDue(s.Cursor)
		g.err = err
		if ok {
			g.ev.Next = next
		}
	}
}

// parked reads recipients that are parked.
func (g *grouper) parked(s *intake.Scan) {
	for _, f := range s.Parks {
		err := g.v.Parked(f.Dest, f.From, func(l *records.Loaded) bool {
			f.Got++
			f.From = entry.Ref{TA: l.TA, Index: l.Index + 1}
			return g.add(l) && f.Got < f.Max
		})
		if g.err = errors.Join(g.err, err); g.err != nil {
			return
		}
	}
}

// selectMax is how many recipients a scan for an operator looks at: one of a long queue is many scans, so
// that mail is loaded in between, and the store need not keep for long what was deleted meanwhile.
const selectMax = 20_000

// selected reads recipients that an operator has chosen.
func (g *grouper) selected(s *intake.Scan) {
	sel := &s.Q.Select
	full, looked := false, 0
	err := g.v.Entries(s.From, func(e *records.Entry) bool {
		if !sel.TA.IsZero() && e.TA != sel.TA {
			return false
		}
		if full || looked == selectMax {
			g.ev.More, g.ev.Behind = true, e.Ref
			return false
		}
		looked++
		if e.Aside || e.Envelope.Envelope == nil {
			return true
		}
		if s.Wants(&e.State) && sel.Matches(e.Envelope.Envelope, e.Index, msg.Standing{Dest: e.Dest, Reason: e.Reason, Held: e.Held}, s.Day) {
			full = !g.add(&e.Loaded)
		}
		return g.err == nil
	})
	g.err = errors.Join(g.err, err)
	if g.err == nil && !sel.TA.IsZero() {
		g.err = g.aside(sel.TA)
	}
}

// aside reads the records of one message that were set aside, and the message if its
// envelope is not among them.
func (g *grouper) aside(ta smtp.ID) error {
	err := g.v.AsideOf(ta, func(key []byte) {
		g.ev.Aside = append(g.ev.Aside, &entry.Broken{Key: key})
	})
	if err != nil || len(g.ev.Aside) == 0 {
		return err
	}
	e, ok, err := g.v.Envelope(ta)
	if ok && err == nil {
		g.group(e)
		err = g.err
	}
	return err
}

// isLost reports whether the content file of a message is gone, or was not written whole.
func (q *Queue) isLost(ta smtp.ID) bool {
	_, err := q.cdb.Stat(ta)
	return isGone(err)
}
