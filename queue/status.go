package queue

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/defedb"
)

type (
	listRequest   = msg.Request[msg.ListQ, msg.ListA]
	statusRequest = msg.Request[msg.StatusQ, msg.StatusA]
)

// listMax bounds the entries of one answer.
const listMax = 10_000

// list takes one page of what the active queue holds and has a goroutine merge it with
// the DEFEDB. The page costs one look at each transaction of the active queue, however
// long the whole listing is.
func (l *loop) list(r *listRequest) {
	l.now = l.q.clock.now()
	ta, index, err := parseAfter(r.Q.After)
	if err != nil {
		r.Answer(msg.ListA{Err: err.Error()})
		return
	}
	limit := r.Q.Max
	if limit <= 0 || limit > listMax {
		limit = listMax
	}
	active, waits := l.activeFrom(ta, index, limit+1), l.waitInfos()
	l.q.group.Go(func(context.Context) error {
		r.Answer(l.q.page(active, waits, ta, index, limit))
		return nil
	})
}

// activeFrom are the first recipients of the active queue from one on, in order, but
// not more than most.
func (l *loop) activeFrom(ta smtp.ID, index, most int) []msg.ListEntry {
	var entries []msg.ListEntry
	for _, t := range l.nearest(ta, most+1) { // the first of them may have nothing behind index
		from := len(entries)
		for _, r := range t.rcpts {
			if t.env.TA != ta || r.index >= index {
				entries = append(entries, r.entry(l))
			}
		}
		slices.SortFunc(entries[from:], func(a, b msg.ListEntry) int { return cmp.Compare(a.Index, b.Index) })
		if len(entries) >= most {
			return entries[:most]
		}
	}
	return entries
}

// nearest are the first transactions with recipients in the active queue from one on,
// in order, but not more than most.
func (l *loop) nearest(ta smtp.ID, most int) (near []*transaction) {
	sort := func() {
		slices.SortFunc(near, func(a, b *transaction) int { return compareTA(a.env.TA, b.env.TA) })
		near = near[:min(len(near), most)]
	}
	var bound smtp.ID // nothing behind it is among the nearest; zero: not known
	for id, t := range l.tas {
		if len(t.rcpts) == 0 || compareTA(id, ta) < 0 || !bound.IsZero() && compareTA(id, bound) > 0 {
			continue
		}
		if near = append(near, t); len(near) >= 2*most {
			sort()
			bound = near[most-1].env.TA
		}
	}
	sort()
	return near
}

func (r *rcpt) entry(l *loop) msg.ListEntry {
	e := msg.ListEntry{
		TA: r.t.env.TA, Index: r.index, State: msg.StateActive, Arrival: r.t.env.Arrival, Size: r.t.size,
		Sender: r.t.env.Mail.From, Rcpt: r.path(), Attempts: r.state.Attempts, Dest: r.state.Dest,
	}
	if r.dest != nil {
		e.Dest = r.dest.key
	}
	switch r.phase {
	case phaseRoute:
		e.Reason = "asking for the route"
	case phaseWait:
		e.Reason = l.waitReason(r)
	case phaseInflight:
		e.State, e.Reason = msg.StateInFlight, "being delivered"
	default:
		e.Reason = "being written down"
	}
	return e
}

// waitReason tells what a recipient with a route waits for.
func (l *loop) waitReason(r *rcpt) string {
	if r.job == nil {
		return "waiting for its turn"
	}
	f, n := r.job.f, strconv.Itoa
	switch {
	case f.at != nil && f.at.h.place > 0:
		return "waiting for one of deliveries_max: " + n(l.share.Used) + " run, the others are kept for other hosts"
	case f.at != nil && f.at.h.window.Free(l.now) > 0:
		return "waiting for a connection: the rate of connections is used up"
	case f.at != nil:
		return "waiting for a connection: " + n(f.at.h.window.Inflight()) + " of " + n(f.at.h.window.Size()) + " in use"
	case l.share.Used < l.share.Places && f.s.held.len() > 0:
		return "waiting for one of deliveries_max: the sender's other mail waits for hosts that have not served yet"
	default:
		return "waiting for its turn: " + n(l.share.Used) + " deliveries run"
	}
}

// page merges the active queue, in order, and the DEFEDB from a recipient on. What is
// in both is listed once, as the active queue has it.
func (q *Queue) page(active []msg.ListEntry, waits map[string]waitInfo, ta smtp.ID, index, limit int) (a msg.ListA) {
	a.Entries = make([]msg.ListEntry, 0, limit+1)
	err := q.defedb.Entries(ta, index, func(d defedb.Entry) bool {
		for len(active) > 0 && compareRcpt(active[0].TA, active[0].Index, d.TA, d.Index) < 0 {
			a.Entries, active = append(a.Entries, active[0]), active[1:]
		}
		both := len(active) > 0 && active[0].TA == d.TA && active[0].Index == d.Index
		if e, ok := q.deferredEntry(&d); ok && !both {
			if w, ok := waits[d.Dest]; ok && d.Waits {
				w.show(q, &e)
			}
			a.Entries = append(a.Entries, e)
		}
		return len(a.Entries) <= limit
	})
	if err != nil {
		q.log.Error("cannot list the queue", "error", err)
		a.Err = err.Error()
		return a
	}
	a.Entries = append(a.Entries, active...)
	a.More = len(a.Entries) > limit
	a.Entries = a.Entries[:min(len(a.Entries), limit)]
	return a
}

// deferredEntry is a recipient in the DEFEDB. ok is false if it has no envelope.
func (q *Queue) deferredEntry(d *defedb.Entry) (e msg.ListEntry, ok bool) {
	env := d.Envelope
	if env == nil || d.Index >= len(env.Rcpts) {
		return msg.ListEntry{}, false
	}
	e = msg.ListEntry{
		TA: d.TA, Index: d.Index, State: msg.StateDeferred, Arrival: env.Arrival, Size: d.Size,
		Sender: env.Mail.From, Rcpt: env.Rcpts[d.Index].To, Dest: d.Dest,
		NextTry: q.clock.date(d.NextTry), Attempts: d.Attempts, Reason: d.Reason,
	}
	if d.Held {
		e.State, e.NextTry = msg.StateHeld, time.Time{}
	}
	return e, true
}

// parseAfter reads the recipient id behind which a listing goes on and returns the
// first that may follow.
func parseAfter(after string) (smtp.ID, int, error) {
	if after == "" {
		return smtp.ID{}, 0, nil
	}
	ta, index, err := smtp.ParseRcptID(after)
	return ta, index + 1, err
}

func compareTA(a, b smtp.ID) int {
	return cmp.Or(cmp.Compare(a.Counter, b.Counter), cmp.Compare(a.Process, b.Process))
}

func compareRcpt(a smtp.ID, i int, b smtp.ID, j int) int {
	return cmp.Or(compareTA(a, b), cmp.Compare(i, j))
}

// status is the snapshot for meta1 ctl status.
func (l *loop) status() msg.StatusA {
	n := func(v int) string { return strconv.Itoa(v) }
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	deferred := n(l.counts.waiting)
	if !l.counts.counted {
		deferred = "being counted"
	}
	accepting := "yes"
	if err := l.q.Accepting(); err != nil {
		accepting = "no: " + err.Error()
	}
	return msg.StatusA{Module: "qmgr", Values: []msg.StatusValue{
		{Name: "accepting", Value: accepting},
		{Name: "AQ_entries", Value: n(l.entries)},
		{Name: "AQ_entries_max", Value: n(l.q.cfg.AQEntriesMax)},
		{Name: "deferred", Value: deferred},
		{Name: "in_flight", Value: n(l.share.Used)},
		{Name: "destinations", Value: n(len(l.dests))},
		{Name: "OCC_entries", Value: n(len(l.hosts))},
		{Name: "content_memory", Value: strconv.FormatInt(l.q.memory.Load(), 10)},
		{Name: "disk_room", Value: strconv.FormatInt(l.q.space.room.Load(), 10)},
		{Name: "accepted", Value: u(l.counts.accepted)},
		{Name: "delivered", Value: u(l.counts.delivered)},
		{Name: "deferrals", Value: u(l.counts.deferred)},
		{Name: "bounced", Value: u(l.counts.bounced)},
		{Name: "dropped", Value: u(l.counts.dropped)},
	}}
}
