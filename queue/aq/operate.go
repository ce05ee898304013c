package aq

import (
	"log/slog"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/intake"
)

// operationChunk is how many recipients one step of an operation takes.
const operationChunk = 1000

// operation is what an operator has asked for. The first is carried out: what it selects in the
// active queue at once, then what it selects in the store, a scan and a save at a time. Other
// scans go on in between, so mail is loaded meanwhile.
type operation struct {
	id    uint64
	q     msg.OperateQ
	day   time.Time
	from  Ref    // the first that was not looked at
	until uint64 // its last save
	last  bool   // nothing is left to be looked at
	a     msg.OperateA
}

// triesNow reports whether an operation makes recipients be tried at once.
func triesNow(op msg.Operation) bool {
	return op == msg.OpFlush || op == msg.OpRequeue || op == msg.OpRelease
}

// operate begins an operation, or queues it.
func (c *Core) operate(ev *Operate) {
	switch ev.Q.Op {
	case msg.OpHold, msg.OpRelease, msg.OpFlush, msg.OpRequeue, msg.OpRemove, msg.OpExpire, msg.OpReroute:
	default:
		c.out.Answer = append(c.out.Answer, Answer{ID: ev.ID, A: msg.OperateA{Err: "unknown operation " + string(ev.Q.Op)}})
		return
	}
	o := &operation{id: ev.ID, q: ev.Q, day: ev.Day, from: Ref{TA: ev.Q.Select.TA}}
	c.operations = append(c.operations, o)
	c.operateActive(o)
}

// withdrawn ends an operation whose operator no longer waits. What is done is done.
func (c *Core) withdrawn(id uint64) {
	c.operations = slices.DeleteFunc(c.operations, func(o *operation) bool {
		if o.id == id {
			c.log(slog.LevelWarn, "an operation ended early: nobody waits for it", slog.String("op", string(o.q.Op)), slog.Int("done", o.a.Done))
		}
		return o.id == id
	})
}

// operateActive does an operation to recipients in the active queue. Those that are being
// delivered or written cannot be changed now. What is to be tried now is on its way already.
func (c *Core) operateActive(o *operation) {
	if triesNow(o.q.Op) {
		return
	}
	for _, m := range c.nearest(smtp.ID{}, len(c.messages)) {
		var chosen []*rcpt
		for _, r := range m.all() {
			switch {
			case !o.q.Select.Matches(m.env, r.index, msg.Standing{Dest: r.destName(), Reason: r.rec.Reason}, o.day):
			case r.state == Routing || r.state == ReadyState:
				chosen = append(chosen, r)
			default:
				o.a.Busy++
			}
		}
		if len(chosen) == 0 {
			continue
		}
		c.operateEach(o.q.Op, m, chosen)
		o.a.Done += len(chosen)
	}
	o.until = c.saved
}

// destName is the destination of a recipient: that of its last route.
func (r *rcpt) destName() string {
	if r.dest != nil {
		return r.dest.Key()
	}
	return r.rec.Dest
}

// operateEach does hold, remove, expire or reroute to recipients of one message in the active queue.
func (c *Core) operateEach(op msg.Operation, m *message, rcpts []*rcpt) {
	ends := outcome{m: m}
	for _, r := range rcpts {
		switch op {
		case msg.OpHold:
			c.put(c.savingOf(&ends), r, r.rec.Hold())
		case msg.OpReroute:
			c.put(c.savingOf(&ends), r, r.rec.Release(c.now))
		case msg.OpRemove:
			c.counts.Dropped++
			c.logRcpt(slog.LevelWarn, "removed by an operator", r, attrEnded())
			ends.ended = append(ends.ended, r)
		case msg.OpExpire:
			ends.failed = append(ends.failed, r.failure(smtp.NewReply(550, "5.4.7", "given up by the postmaster"), "", ""))
		}
	}
	c.conclude(&ends)
}

// operationScan is the next scan of the first operation, nil if none is to be made now.
func (c *Core) operationScan(room int) *intake.Scan {
	for len(c.operations) > 0 {
		o := c.operations[0]
		if !o.last {
			most := operationChunk
			if o.q.Op == msg.OpRemove || o.q.Op == msg.OpExpire { // they pass through the active queue
				most = min(most, room)
			}
			if most == 0 {
				return nil
			}
			return &intake.Scan{Kind: intake.ScanSelect, Max: most, Operation: o.id, Q: o.q, Day: o.day, From: o.from}
		}
		if len(c.saving) > 0 && c.saving[0].ID <= o.until {
			return nil // what was done is not durable
		}
		if triesNow(o.q.Op) || o.q.Op == msg.OpReroute {
			c.intake.ProbeAll(c.now)
		}
		c.log(slog.LevelInfo, "operation", slog.String("op", string(o.q.Op)), slog.Int("done", o.a.Done), slog.Int("busy", o.a.Busy), slog.String("error", o.a.Err))
		c.out.Answer = append(c.out.Answer, Answer{ID: o.id, A: o.a})
		c.operations = c.operations[1:]
	}
	return nil
}

// scannedSelection does an operation to recipients in the store.
func (c *Core) scannedSelection(ev *Scanned) {
	if len(c.operations) == 0 || c.operations[0].id != ev.Scan.Operation {
		return // nobody waits for it any more
	}
	o := c.operations[0]
	defer func() { o.until = c.saved }()
	o.from, o.last = ev.Behind, !ev.More
	if ev.Err != nil {
		o.last, o.a.Err = true, ev.Err.Error()
		return
	}
	if o.q.Op == msg.OpRemove {
		c.removeAside(o, ev)
	}
	var s *Save
	for _, g := range ev.Groups {
		if ev.Scan.Loads() {
			m, rcpts := c.adopt(g)
			if len(rcpts) > 0 {
				c.operateEach(o.q.Op, m, rcpts)
				o.a.Done += len(rcpts)
			}
			continue
		}
		m := c.messages[g.Envelope.TA]
		for i := range g.States {
			st := &g.States[i]
			if c.intake.Stale(st.Ref) || m != nil && m.active.has(st.Index) {
				continue // it was looked at in the active queue
			}
			if s == nil {
				s = c.newSave(nil)
			}
			next := st.Release(c.now)
			switch o.q.Op {
			case msg.OpHold:
				next = st.Hold()
			case msg.OpRequeue:
				next.Attempts = 0
			}
			s.Changes = append(s.Changes, Change{Kind: Put, Ref: st.Ref, State: &next, Old: st})
			o.a.Done++
		}
	}
}

// removeAside gives up the records of one message that were set aside, which an operator
// named. That is the only way in which they go.
func (c *Core) removeAside(o *operation, ev *Scanned) {
	if len(ev.Aside) == 0 {
		return
	}
	ta := o.q.Select.TA
	m := c.messages[ta]
	if m == nil && len(ev.Groups) > 0 && ev.Groups[0].Envelope != nil {
		g := ev.Groups[0]
		m = readMessage(&g.Message)
		m.left = g.Left
		c.messages[ta] = m
	}
	s := c.newSave(m)
	for _, b := range ev.Aside {
		s.Changes = append(s.Changes, Change{Kind: DropAside, Broken: b})
		o.a.Done++
	}
	c.log(slog.LevelWarn, "records that were set aside are removed by an operator", slog.String("ss_ta", ta.String()), slog.Int("records", len(ev.Aside)))
	if m == nil { // its envelope is among them: nothing is left that could be sent
		s.Changes = append(s.Changes, Change{Kind: Forget, Ref: Ref{TA: ta}, Inline: true, Fresh: true})
		return
	}
	fresh := m.fresh > 0
	m.left -= len(ev.Aside)
	c.endMessage(s, fresh)
}
