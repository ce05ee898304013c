package queue

import (
	"context"
	"errors"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/records"
	"meta1/queue/sched"
)

type (
	listRequest   = msg.Request[msg.ListQ, msg.ListA]
	statusRequest = msg.Request[msg.StatusQ, msg.StatusA]
	hostsRequest  = msg.Request[msg.HostsQ, msg.HostsA]
)

// listMax bounds the entries of one answer.
const listMax = 10_000

// list takes one page of what the active queue holds and has a goroutine merge it with the
// store. The page costs one look at each message of the active queue, however long the whole
// listing is.
func (l *loop) list(r *listRequest) {
	from, err := parseAfter(r.Q.After)
	if err != nil {
		r.Answer(msg.ListA{Err: err.Error()})
		return
	}
	limit := r.Q.Max
	if limit <= 0 || limit > listMax {
		limit = listMax
	}
	active, parks := l.core.Entries(from, limit+1), l.core.Parks()
	l.q.group.Go(func(context.Context) error {
		r.Answer(l.q.page(active, parks, from, limit))
		return nil
	})
}

// page merges the active queue, in order, and the store from a recipient on. What is in both
// is listed once, as the active queue has it.
func (q *Queue) page(active []msg.ListEntry, parks map[string]intake.ParkInfo, from entry.Ref, limit int) (a msg.ListA) {
	a.Entries = make([]msg.ListEntry, 0, limit+1)
	v := q.db.View()
	err := v.List(from, func(d *records.Entry) bool {
		ref := d.Ref
		for len(active) > 0 && refOf(&active[0]).Compare(ref) < 0 {
			a.Entries, active = append(a.Entries, active[0]), active[1:]
		}
		if len(active) == 0 || refOf(&active[0]) != ref {
			e := q.deferredEntry(d)
			if p, ok := parks[d.Dest]; ok && d.Parked {
				e.Reason = p.Reason
				if !p.Next.IsZero() {
					e.NextTry = q.clock.date(p.Next)
				}
			}
			a.Entries = append(a.Entries, e)
		}
		return len(a.Entries) <= limit
	})
	if err := errors.Join(err, v.Close()); err != nil {
		q.log.Error("cannot list the queue", "error", err)
		a.Err = err.Error()
		return a
	}
	a.Entries = append(a.Entries, active...)
	a.More = len(a.Entries) > limit
	a.Entries = a.Entries[:min(len(a.Entries), limit)]
	return a
}

func refOf(e *msg.ListEntry) entry.Ref { return entry.Ref{TA: e.TA, Index: e.Index} }

// deferredEntry is a recipient in the store.
func (q *Queue) deferredEntry(d *records.Entry) msg.ListEntry {
	e := msg.ListEntry{TA: d.TA, Index: d.Index, State: msg.StateDeferred, Dest: d.Dest, Attempts: d.Attempts, Reason: d.Reason, NextTry: q.clock.date(d.NextTry)}
	if env := d.Envelope.Envelope; env != nil {
		e.Arrival, e.Size, e.Sender = env.Arrival, d.Envelope.Size, env.Mail.From
		if d.Index < len(env.Rcpts) {
			e.Rcpt = env.Rcpts[d.Index].To
		}
	}
	switch {
	case d.Aside:
		e.State, e.NextTry, e.Reason = msg.StateAside, time.Time{}, "its record cannot be decoded and is set aside; meta1 fsck tells more"
	case d.Held:
		e.State, e.NextTry = msg.StateHeld, time.Time{}
	}
	return e
}

// parseAfter reads the recipient id behind which a listing goes on and returns the first that
// may follow.
func parseAfter(after string) (entry.Ref, error) {
	if after == "" {
		return entry.Ref{}, nil
	}
	ta, index, err := smtp.ParseRcptID(after)
	return entry.Ref{TA: ta, Index: index + 1}, err
}

// hosts copies what is known of the hosts and has a goroutine put them in order.
func (l *loop) hosts(r *hostsRequest) {
	now := l.q.clock.now()
	all, providers, families := l.core.Hosts(now), l.core.Providers(now), l.core.Families(now)
	l.q.group.Go(func(context.Context) error {
		r.Answer(sched.ListHosts(all, providers, families, r.Q, l.q.clock.date))
		return nil
	})
}

// operate hands what an operator asks for to the core.
func (l *loop) operate(r *operateRequest) {
	l.operation++
	l.operators[l.operation] = r
	l.core.Step(l.q.clock.now(), &aq.Operate{ID: l.operation, Q: r.Q, Day: l.q.clock.day()})
}

// status is the snapshot for meta1 ctl status.
func (l *loop) status() msg.StatusA {
	c, s, g := l.core.Counts(), l.core.Stats(), &l.q.gauges
	deferred := msg.StatusValue{Name: "deferred", Number: g.Before.Load() + int64(c.Waiting)}
	if !g.Counted.Load() {
		deferred.Text = "being counted"
	}
	accepting := "yes"
	if err := l.q.Accepting(); err != nil {
		accepting = "no: " + err.Error()
	}
	total, _, granted, most := l.q.budget.Used()
	return msg.StatusA{Module: "qmgr", Values: []msg.StatusValue{
		{Name: "accepting", Text: accepting},
		{Name: "AQ_entries", Number: int64(total)},
		{Name: "AQ_entries_highest", Number: int64(most)},
		{Name: "AQ_entries_max", Number: int64(l.q.budget.Max())},
		{Name: "open_transactions", Number: int64(granted)},
		deferred,
		{Name: "set_aside", Number: g.Aside.Load() + int64(c.SetAside)},
		{Name: "in_flight", Number: int64(s.InUse.Now)},
		{Name: "in_flight_highest", Number: int64(s.InUse.Max)},
		{Name: "destinations", Number: int64(s.Destinations.Now)},
		{Name: "destinations_highest", Number: int64(s.Destinations.Max)},
		{Name: "OCC_entries", Number: int64(s.Hosts.Now)},
		{Name: "OCC_entries_highest", Number: int64(s.Hosts.Max)},
		{Name: "content_memory", Number: l.q.deps.Memory.Used()},
		{Name: "content_memory_max", Number: l.q.deps.Memory.Max()},
		{Name: "disk_room", Number: l.q.space.Room()},
		{Name: "accepted", Number: int64(c.Accepted)},
		{Name: "delivered", Number: int64(c.Delivered)},
		{Name: "deferrals", Number: int64(c.Deferred)},
		{Name: "bounced", Number: int64(c.Bounced)},
		{Name: "dropped", Number: int64(c.Dropped)},
	}}
}
