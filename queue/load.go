package queue

import (
	"context"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
)

// loadPause is the time until the next try after the DEFEDB could not be read.
const loadPause = 10 * time.Second

// load brings due recipients from the DEFEDB, in a goroutine, while the active
// queue has room for them, and in turn with them those whose wait has ended.
func (l *loop) load() {
	limit := l.q.cfg.AQEntriesMax
	if l.loading || l.draining || l.entries*100 >= limit*loadBelow {
		return
	}
	room := min(loadMax, l.q.cfg.DEFEDB.HashEntries, limit-l.entries)
	due := !l.now.Before(l.nextDue)
	if (l.dueLast || !due) && l.fetchWaiting(room) {
		l.dueLast = false
		return
	}
	if !due {
		return
	}
	l.loading, l.dueLast = true, true
	ev := &loadedEvent{cursor: l.cursor, now: l.now}
	l.q.group.Go(func(context.Context) error {
		ev.err = l.q.readDue(ev, room)
		l.q.events.put(ev)
		return nil
	})
}

// loadedEvent: due recipients were read from the DEFEDB.
type loadedEvent struct {
	now    time.Time
	cursor defedb.Cursor // behind the last that was read
	groups []*loadedTA
	next   time.Time // when the following one is due; far away if there is none
	err    error
}

// loadedTA is one transaction of a load.
type loadedTA struct {
	ta     smtp.ID
	env    *msg.Envelope
	size   int64
	left   int  // recipients of it in the DEFEDB
	lost   bool // its content is gone
	states []defedb.State
}

// never is a time that no recipient is due at.
func never(now time.Time) time.Time { return now.Add(24 * 365 * time.Hour) }

// readDue fills ev with up to room recipients.
func (q *Queue) readDue(ev *loadedEvent, room int) error {
	var states []defedb.State
	err := q.defedb.Due(ev.now, &ev.cursor, func(st defedb.State) bool {
		states = append(states, st)
		return len(states) < room
	})
	if err != nil {
		return err
	}
	if ev.groups, err = q.byTA(states); err != nil {
		return err
	}
	next, ok, err := q.defedb.NextDue(&ev.cursor)
	if err != nil {
		return err
	}
	if ev.next = next; !ok {
		ev.next = never(ev.now)
	}
	return nil
}

// byTA puts recipients of one transaction together and reads their envelopes.
func (q *Queue) byTA(states []defedb.State) (groups []*loadedTA, err error) {
	known := map[smtp.ID]*loadedTA{}
	for _, st := range states {
		g := known[st.TA]
		if g == nil {
			g = &loadedTA{ta: st.TA}
			known[st.TA] = g
			groups = append(groups, g)
			if err := q.readTA(g); err != nil {
				return nil, err
			}
		}
		g.states = append(g.states, st)
	}
	return groups, nil
}

func (q *Queue) readTA(g *loadedTA) error {
	env, size, ok, err := q.defedb.TA(g.ta)
	if err != nil || !ok {
		return err
	}
	all, err := q.defedb.Rcpts(g.ta)
	if err != nil {
		return err
	}
	g.env, g.size, g.left, g.lost = env, size, len(all), q.isLost(g.ta)
	return nil
}

func (e *loadedEvent) apply(l *loop) {
	l.loading = false
	if e.err != nil {
		l.q.log.Error("cannot read the DEFEDB", "error", e.err)
		l.nextDue = l.now.Add(loadPause)
	} else {
		l.cursor, l.nextDue = e.cursor, e.next
		if !l.soonest.IsZero() && l.soonest.Before(l.nextDue) {
			l.nextDue = l.soonest
		}
		for _, g := range e.groups {
			l.resume(g)
		}
	}
	l.settleQuiet()
	l.load() // there may be more
}

// settleQuiet forgets what had to stay while recipients were loaded.
func (l *loop) settleQuiet() {
	for ref, pending := range l.gone {
		if !pending {
			delete(l.gone, ref)
		}
	}
	l.soonest = time.Time{}
	quiet := l.quiet
	l.quiet = nil
	for _, t := range quiet {
		if l.tas[t.env.TA] == t {
			l.settle(t)
		}
	}
}

// resume takes due recipients of one transaction into the active queue and goes on
// with them.
func (l *loop) resume(g *loadedTA) {
	t, rcpts := l.adopt(g)
	for _, r := range rcpts {
		l.fromWait(r)
	}
	switch {
	case len(rcpts) == 0:
	case t.lost:
		l.giveUp(t, rcpts)
	default:
		l.route(t, rcpts)
	}
}

// adopt takes recipients of one transaction from the DEFEDB into the active queue.
func (l *loop) adopt(g *loadedTA) (*transaction, []*rcpt) {
	g.states = slices.DeleteFunc(g.states, func(st defedb.State) bool {
		_, gone := l.gone[rcptRef{g.ta, st.Index}]
		return gone
	})
	t := l.tas[g.ta]
	if t == nil {
		if len(g.states) == 0 {
			return nil, nil
		}
		if g.env == nil {
			l.q.log.Error("the DEFEDB has recipients of a transaction that it does not have", "ss_ta", g.ta.String(), "rcpts", len(g.states))
			return nil, nil
		}
		t = &transaction{
			env: g.env, size: g.size, body: l.q.stored(g.ta, g.size), left: g.left,
			active: newBits(len(g.env.Rcpts)), inDEFEDB: true, hasFile: true, lost: g.lost,
			spill: spillState{file: true, ta: true}, accepted: l.now,
		}
		l.tas[g.ta] = t
	}
	var rcpts []*rcpt
	for _, st := range g.states {
		if st.Index >= len(t.env.Rcpts) || t.has(st.Index) {
			continue
		}
		st.Waited, st.Stored = l.q.cfg.waited(st.Waited, st.Stored, l.now), l.now
		r := &rcpt{t: t, index: st.Index, home: homeDEFEDB, state: st}
		t.take(r)
		rcpts = append(rcpts, r)
	}
	l.entries += len(rcpts)
	l.counts.waiting -= len(rcpts)
	return t, rcpts
}

// giveUp bounces recipients of a transaction whose content is gone: an error that
// is told, never a silent drop.
func (l *loop) giveUp(t *transaction, rcpts []*rcpt) {
	var failed failures
	for _, r := range rcpts {
		failed.add(r, smtp.NewReply(554, "5.3.0", "the content of the mail was lost on disk"), "", "")
	}
	l.bounce(t, failed)
}

// tooLate is the place in the DEFEDB behind which no recipient should wait for its
// next attempt when the queue is opened. There are some if the clock was set back, or
// retry_delay_max was reduced, while the queue did not run.
func (q *Queue) tooLate() defedb.Cursor { return defedb.CursorAt(q.clock.begin.Add(q.cfg.RetryMax)) }

// hasten makes recipients due that would wait longer than retry_delay_max, in a
// goroutine. None are loaded meanwhile.
func (l *loop) hasten() {
	l.loading = true
	l.q.group.Go(func(ctx context.Context) error {
		ev := &hastenedEvent{}
		ev.n, ev.err = l.q.hastenAll(ctx, l.q.tooLate())
		l.q.events.put(ev)
		return nil
	})
}

func (q *Queue) hastenAll(ctx context.Context, from defedb.Cursor) (n int, err error) {
	for ctx.Err() == nil {
		var chunk []defedb.State
		err := q.defedb.Due(defedb.Never().Add(-1), &from, func(st defedb.State) bool {
			chunk = append(chunk, st)
			return len(chunk) < operateChunk
		})
		if err != nil || len(chunk) == 0 {
			return n, err
		}
		b := q.defedb.NewBatch()
		for i := range chunk {
			old := chunk[i].NextTry
			chunk[i].NextTry = q.clock.begin
			if err := b.Put(&chunk[i], old); err != nil {
				b.Discard()
				return n, err
			}
		}
		if err := q.defedb.Commit(b); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return n, nil
}

// hastenedEvent: hasten has gone through the DEFEDB.
type hastenedEvent struct {
	n   int
	err error
}

func (e *hastenedEvent) apply(l *loop) {
	l.loading = false
	l.cursor, l.nextDue = defedb.Cursor{}, time.Time{}
	l.settleQuiet()
	if e.err != nil {
		l.q.log.Error("cannot change the DEFEDB", "error", e.err)
	}
	l.q.log.Warn("recipients had to wait longer than retry_delay_max, maybe because the clock was set back: they are tried now", "rcpts", e.n)
}
