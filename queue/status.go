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

// list copies what the active queue holds and has a goroutine merge it with the
// DEFEDB.
func (l *loop) list(r *listRequest) {
	l.now = l.q.clock.now()
	active := make([]msg.ListEntry, 0, l.entries)
	for _, t := range l.tas {
		for _, rc := range t.rcpts {
			active = append(active, rc.entry(l))
		}
	}
	l.q.group.Go(func(context.Context) error {
		a, err := l.q.listAll(active, r.Q)
		if err != nil {
			l.q.log.Error("cannot list the queue", "error", err)
		}
		r.Answer(a)
		return nil
	})
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
		e.Reason = "waiting for a connection"
		if len(r.dest.hops) > 0 {
			if h := l.hosts[l.hostKey(r.dest.hops[0], r.dest)]; h != nil {
				e.Reason = "waiting for a connection: " + strconv.Itoa(h.window.Inflight()) + " of " + strconv.Itoa(h.window.Size()) + " in use"
			}
		}
	case phaseInflight:
		e.State, e.Reason = msg.StateInFlight, "being delivered"
	default:
		e.Reason = "being written down"
	}
	return e
}

// listAll merges the active queue and the DEFEDB behind q.After.
func (q *Queue) listAll(active []msg.ListEntry, query msg.ListQ) (msg.ListA, error) {
	limit := query.Max
	if limit <= 0 || limit > listMax {
		limit = listMax
	}
	ta, index, err := parseAfter(query.After)
	if err != nil {
		return msg.ListA{}, err
	}
	all := slices.DeleteFunc(active, func(e msg.ListEntry) bool { return compareRcpt(e.TA, e.Index, ta, index) < 0 })
	inAQ := make(map[rcptRef]struct{}, len(all))
	for i := range all {
		inAQ[rcptRef{all[i].TA, all[i].Index}] = struct{}{}
	}
	envs := envCache{q: q}
	deferred := 0
	err = q.defedb.All(ta, index, func(st defedb.State) bool {
		if _, ok := inAQ[rcptRef{st.TA, st.Index}]; ok {
			return true
		}
		if e, ok := envs.entry(&st); ok {
			all = append(all, e)
		}
		deferred++
		return deferred <= limit
	})
	slices.SortFunc(all, func(a, b msg.ListEntry) int { return compareRcpt(a.TA, a.Index, b.TA, b.Index) })
	more := len(all) > limit
	return msg.ListA{Entries: all[:min(len(all), limit)], More: more}, err
}

type rcptRef struct {
	ta    smtp.ID
	index int
}

// envCache remembers the envelope that was read last: recipients come in order.
type envCache struct {
	q    *Queue
	ta   smtp.ID
	env  *msg.Envelope
	size int64
}

func (c *envCache) entry(st *defedb.State) (msg.ListEntry, bool) {
	if c.env == nil || c.ta != st.TA {
		env, size, ok, err := c.q.defedb.TA(st.TA)
		if err != nil || !ok {
			return msg.ListEntry{}, false
		}
		c.ta, c.env, c.size = st.TA, env, size
	}
	if st.Index >= len(c.env.Rcpts) {
		return msg.ListEntry{}, false
	}
	e := msg.ListEntry{
		TA: st.TA, Index: st.Index, State: msg.StateDeferred, Arrival: c.env.Arrival, Size: c.size,
		Sender: c.env.Mail.From, Rcpt: c.env.Rcpts[st.Index].To, Dest: st.Dest,
		NextTry: c.q.clock.date(st.NextTry), Attempts: st.Attempts, Reason: st.Reason,
	}
	if st.Held {
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

func compareRcpt(a smtp.ID, i int, b smtp.ID, j int) int {
	return cmp.Or(cmp.Compare(a.Counter, b.Counter), cmp.Compare(a.Process, b.Process), cmp.Compare(i, j))
}

// status is the snapshot for meta1 ctl status.
func (l *loop) status() msg.StatusA {
	n := func(v int) string { return strconv.Itoa(v) }
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	accepting := "yes"
	if err := l.q.Accepting(); err != nil {
		accepting = "no: " + err.Error()
	}
	return msg.StatusA{Module: "qmgr", Values: []msg.StatusValue{
		{Name: "accepting", Value: accepting},
		{Name: "AQ_entries", Value: n(l.entries)},
		{Name: "AQ_entries_max", Value: n(l.q.cfg.AQEntriesMax)},
		{Name: "deferred", Value: n(l.counts.waiting)},
		{Name: "in_flight", Value: n(l.inflight)},
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
