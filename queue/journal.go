package queue

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/journal"
	"meta1/queue/records"
)

// newJournal joins the journal to the queue.
func (q *Queue) newJournal() *journal.Journal[*aq.Save] {
	return journal.New(journal.Config[*aq.Save]{
		DB: q.db, TransactionsMax: func() int { return q.conf().IBDB.OpenTAs }, Delay: func() time.Duration { return q.conf().IBDB.CommitDelay },
		Prepare: q.ids.Extend, Refuses: q.refuses, Write: writeSave, Knows: q.knows,
		Check: q.cdb.Err, // a disk that could not write content may have lost more of it
		Done:  q.committed, Now: q.clock.now,
	})
}

// committed tells the core what has become durable.
func (q *Queue) committed(d *journal.Done[*aq.Save]) {
	q.metrics.Commit(len(d.Mail), d.Took)
	q.space.Used(d.Size)
	events := make([]event, 0, len(d.Mail)+1)
	now := q.clock.day()
	for _, r := range d.Mail {
		q.metrics.Delays.Accepted(r.Q.Envelope, now)
		if r.Q.Hold != "" {
			q.held(&r.Q)
			continue
		}
		events = append(events, event{ev: q.accepted(&r.Q)})
	}
	if n := len(d.Saves); n > 0 {
		events = append(events, event{saved: d.Saves[n-1].ID})
	}
	q.events.Put(events...)
	q.remover.Put(d.Gone...)
	q.contents.EndSpills(d.Spilled...)
}

// patient reports whether nothing goes on in the queue when these steps are durable: they are
// nothing but ends of deliveries.
func patient(saves []*aq.Save) bool {
	for _, s := range saves {
		for i := range s.Changes {
			switch s.Changes[i].Kind {
			case aq.EndFresh, aq.EndDeferred, aq.DropAccepted, aq.Forget:
			default:
				return false
			}
		}
	}
	return true
}

// accepted is the event of a transaction that has become durable.
func (q *Queue) accepted(c *msg.CommitQ) *aq.Accepted {
	e := c.Envelope
	q.budget.Accept(e.TA, len(e.Rcpts))
	if ctx := context.Background(); q.log.Enabled(ctx, slog.LevelDebug) {
		q.log.LogAttrs(ctx, slog.LevelDebug, "accepted", slog.Any("ss_ta", e.TA), slog.Any("mail", e.Mail.From), slog.Int("rcpts", len(e.Rcpts)), slog.Int64("size", c.Size))
	}
	return &aq.Accepted{Message: aq.Message{Envelope: e, Size: c.Size, Body: q.contents.Hold(e.TA, c.Size, c.Inline, c.Shape, c.Memory), Inline: c.Inline != nil}}
}

// held notes a transaction that has become durable and whose recipients are all held. The core
// knows nothing of it until an operator releases it, as if it had been there at the start.
func (q *Queue) held(c *msg.CommitQ) {
	q.budget.Revoke(c.Envelope.TA)
	q.gauges.Before.Add(int64(len(c.Envelope.Rcpts)))
	q.log.LogAttrs(context.Background(), slog.LevelInfo, "held", slog.Any("ss_ta", c.Envelope.TA), slog.Any("mail", c.Envelope.Mail.From),
		slog.Int("rcpts", len(c.Envelope.Rcpts)), slog.String("reason", c.Hold))
}

// refuses is the reply to a transaction that is not accepted, or zero. Its content file, if
// it has one, is nobody's then.
func (q *Queue) refuses(c *msg.CommitQ) smtp.Reply {
	switch ta := c.Envelope.TA; {
	case !q.ids.Granted(ta):
		// A former QMGR of this process gave the id. What it knew of the transaction is gone; the
		// search for orphaned content removes its file, if it has one.
		return smtp.NewReply(451, "4.3.0", "the queue was restarted, please try again")
	case q.space.Refuses(int64(len(c.Inline))):
		q.budget.Revoke(ta)
		if c.Inline == nil {
			q.remover.Put(ta)
		}
		return q.space.Refusal()
	}
	return smtp.Reply{}
}

// writeSave puts a step of the core into a batch.
func writeSave(b *records.Batch, s *aq.Save) error {
	for i := range s.Changes {
		if err := write(b, &s.Changes[i]); err != nil {
			return err
		}
	}
	return nil
}

// write puts one change of the core into a batch.
func write(b *records.Batch, ch *aq.Change) error {
	switch ch.Kind {
	case aq.Accept:
		return b.Accept(ch.New.Envelope, ch.New.Size, ch.New.Content)
	case aq.EndFresh:
		return b.EndFresh(ch.Ref)
	case aq.EndDeferred:
		return b.EndDeferred(ch.Old, ch.Fresh)
	case aq.Put:
		return b.Put(ch.State, ch.Old)
	case aq.DropAccepted:
		return b.DropAccepted(ch.Ref.TA, ch.Ended)
	case aq.Forget:
		return b.Forget(ch.Ref.TA, records.Message{Inline: ch.Inline, Fresh: ch.Fresh, Ended: ch.Ended})
	case aq.SetAside:
		return b.SetAside(*ch.Broken)
	case aq.DropAside:
		return b.DropAside(ch.Broken.Key)
	}
	return fmt.Errorf("unknown change %d", ch.Kind)
}
