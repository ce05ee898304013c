package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
)

type operateRequest = msg.Request[msg.OperateQ, msg.OperateA]

// operateChunk is how many recipients one step of an operation takes.
const operateChunk = 1000

// operation is what an operator asked for, while it goes through the DEFEDB. No
// recipients are loaded meanwhile, so what is not in the active queue stays as it
// is but for the operation.
type operation struct {
	q    *Queue
	r    *operateRequest
	now  time.Time        // by the queue's clock
	day  time.Time        // by the machine's, as arrival times are
	inAQ map[smtp.ID]bits // recipients that are the loop's
	a    msg.OperateA
}

// operate begins an operation, or keeps it for later while the DEFEDB is being
// read.
func (l *loop) operate(r *operateRequest) {
	l.now = l.q.clock.now()
	if l.loading {
		l.after(0, func() { l.operate(r) })
		return
	}
	o := &operation{q: l.q, r: r, now: l.now, day: l.q.clock.day(), inAQ: make(map[smtp.ID]bits, len(l.tas))}
	switch r.Q.Op {
	case msg.OpHold, msg.OpRelease, msg.OpFlush, msg.OpRequeue, msg.OpRemove, msg.OpExpire:
	default:
		r.Answer(msg.OperateA{Err: "unknown operation " + string(r.Q.Op)})
		return
	}
	l.loading = true
	l.operateActive(o)
	l.q.group.Go(func(ctx context.Context) error {
		if err := o.run(ctx); err != nil {
			o.a.Err = err.Error()
		}
		l.q.events.put(&operatedEvent{o: o})
		return nil
	})
}

// operateActive does the operation to recipients in the active queue. What is being
// delivered or written cannot be changed now.
func (l *loop) operateActive(o *operation) {
	var chosen [][]*rcpt // by transaction
	for ta, t := range l.tas {
		if len(t.rcpts) == 0 {
			continue
		}
		o.inAQ[ta] = slices.Clone(t.active)
		var some []*rcpt
		for _, r := range t.rcpts {
			dest := r.state.Dest
			if r.dest != nil {
				dest = r.dest.key
			}
			if !o.r.Q.Select.Matches(t.env, r.index, dest, false, o.day) {
				continue
			}
			if r.phase != phaseWait {
				o.a.Busy++
				continue
			}
			some = append(some, r)
		}
		chosen = append(chosen, some)
	}
	if o.triesNow() {
		return // they are on their way already
	}
	for _, some := range chosen {
		for _, r := range some {
			l.withdraw(r)
		}
		l.operateEach(o.r.Q.Op, some)
		o.a.Done += len(some)
	}
}

// withdraw takes a waiting recipient out of its job.
func (l *loop) withdraw(r *rcpt) {
	r.dest.entries--
	r.job = nil
}

// operateEach does the operation to recipients of one transaction that are in the
// active queue and that nothing is under way for.
func (l *loop) operateEach(op msg.Operation, rcpts []*rcpt) {
	var failed failures
	for _, r := range rcpts {
		switch op {
		case msg.OpHold:
			l.hold(r)
		case msg.OpRemove:
			l.counts.dropped++
			l.q.log.Warn("removed by an operator", "rcpt_id", r.id(), "rcpt", r.path().String())
			l.end(r)
		case msg.OpExpire:
			failed.add(r, smtp.NewReply(550, "5.4.7", "given up by the postmaster"), "", "")
		}
	}
	if len(failed) > 0 {
		l.bounce(failed[0].r.t, failed)
	}
}

// hold keeps a recipient in the DEFEDB until it is released.
func (l *loop) hold(r *rcpt) {
	r.held = true
	l.put(r, defedb.Never(), r.state.Attempts, "held by the postmaster")
}

// run goes through the DEFEDB.
func (o *operation) run(ctx context.Context) error {
	ta, index := o.r.Q.Select.TA, 0
	for {
		chunk, err := o.choose(ta, index)
		if err != nil || len(chunk) == 0 {
			return err
		}
		last := chunk[len(chunk)-1]
		ta, index = last.TA, last.Index+1
		if err := o.do(ctx, chunk); err != nil {
			return err
		}
		o.a.Done += len(chunk)
	}
}

// choose finds the next recipients from a place on that match.
func (o *operation) choose(ta smtp.ID, index int) (chunk []defedb.State, err error) {
	only := o.r.Q.Select.TA
	err = o.q.defedb.Entries(ta, index, func(d defedb.Entry) bool {
		if !only.IsZero() && d.TA != only {
			return false
		}
		if o.wants(&d) {
			chunk = append(chunk, d.State)
		}
		return len(chunk) < o.step()
	})
	return chunk, err
}

// wants tells whether the operation is to be done to a recipient of the DEFEDB.
func (o *operation) wants(d *defedb.Entry) bool {
	if d.Envelope == nil || d.Index >= len(d.Envelope.Rcpts) {
		return false
	}
	if active, ok := o.inAQ[d.TA]; ok && active.has(d.Index) {
		return false
	}
	switch o.r.Q.Op {
	case msg.OpHold:
		if d.Held {
			return false
		}
	case msg.OpRelease:
		if !d.Held {
			return false
		}
	case msg.OpFlush, msg.OpRequeue:
		if d.Held { // only a release lets it go
			return false
		}
	}
	return o.r.Q.Select.Matches(d.Envelope, d.Index, d.Dest, d.Held, o.day)
}

// do does the operation to a chunk: by a new next time to try, or in the active
// queue if the recipients are to end.
func (o *operation) do(ctx context.Context, chunk []defedb.State) error {
	if o.r.Q.Op == msg.OpRemove || o.r.Q.Op == msg.OpExpire {
		return o.endAll(ctx, chunk)
	}
	b := o.q.defedb.NewBatch()
	for i := range chunk {
		st := chunk[i]
		old := st.NextTry
		switch o.r.Q.Op {
		case msg.OpHold:
			st.Held, st.Waits, st.NextTry, st.Reason = true, false, defedb.Never(), "held by the postmaster; before: "+st.Reason
		case msg.OpRequeue:
			st.Attempts, st.NextTry = 0, o.now
		default:
			st.Held, st.NextTry = false, o.now
		}
		if err := b.Put(&st, old); err != nil {
			b.Discard()
			return err
		}
	}
	return o.q.defedb.Commit(b)
}

// endAll has the loop end a chunk and waits until it has taken them.
func (o *operation) endAll(ctx context.Context, chunk []defedb.State) error {
	groups, err := o.q.byTA(chunk)
	if err != nil {
		return err
	}
	if err := o.room(ctx); err != nil {
		return err
	}
	ev := &endAllEvent{op: o.r.Q.Op, groups: groups, taken: make(chan struct{})}
	o.q.events.put(ev)
	select {
	case <-ev.taken:
		return nil
	case <-ctx.Done():
		return errors.New("the queue is being closed")
	}
}

// step is how many recipients the operation takes at once. Those that are to end need
// room in the active queue.
func (o *operation) step() int {
	if o.r.Q.Op == msg.OpRemove || o.r.Q.Op == msg.OpExpire {
		return min(operateChunk, o.q.cfg.AQEntriesMax/4)
	}
	return operateChunk
}

// room waits until the active queue is not full.
func (o *operation) room(ctx context.Context) error {
	for o.q.fill() >= 100 {
		select {
		case <-time.After(throttleTick):
		case <-ctx.Done():
			return errors.New("the queue is being closed")
		}
	}
	return nil
}

// endAllEvent: recipients from the DEFEDB are to end.
type endAllEvent struct {
	op     msg.Operation
	groups []*loadedTA
	taken  chan struct{}
}

func (e *endAllEvent) apply(l *loop) {
	for _, g := range e.groups {
		_, rcpts := l.adopt(g)
		l.operateEach(e.op, rcpts)
	}
	close(e.taken)
}

// triesNow tells whether the operation is to make recipients be tried at once.
func (o *operation) triesNow() bool {
	switch o.r.Q.Op {
	case msg.OpFlush, msg.OpRequeue, msg.OpRelease:
		return true
	}
	return false
}

// probeHosts lets each closed host be probed at once: an operator who flushes knows
// that something has changed.
func (l *loop) probeHosts() {
	for _, h := range l.hosts {
		h.window.Probe(l.now)
		l.wake(h)
	}
	for _, w := range l.waits { // for routes
		if !w.until.IsZero() {
			w.until = l.now
		}
	}
}

// operatedEvent: an operation has gone through the DEFEDB.
type operatedEvent struct{ o *operation }

func (e *operatedEvent) apply(l *loop) {
	l.loading = false
	l.cursor, l.nextDue = defedb.Cursor{}, time.Time{} // next times have changed
	if e.o.triesNow() {
		l.probeHosts()
	}
	l.settleQuiet()
	l.q.log.Info("operation", "op", string(e.o.r.Q.Op), "done", e.o.a.Done, "busy", e.o.a.Busy, "error", e.o.a.Err)
	e.o.r.Answer(e.o.a)
}
