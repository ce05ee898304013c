package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/records"
)

// journal is the one writer of the store. It gathers what all sessions and the core want
// written and makes it durable by one sync: group commit. While a sync runs, the next batch
// gathers, so the syncs per message fall as the load rises.
type journal struct {
	q     *Queue
	saves *mailbox[*aq.Save]
	// spilled are messages whose content has become a file, durably.
	spilled *mailbox[smtp.ID]

	lastSync  time.Duration // how long the last commit took
	lastBatch int           // messages in the last commit that had any
}

type commitRequest = msg.Request[msg.CommitQ, msg.CommitA]

// run commits until ctx ends, and then once more what is left.
func (j *journal) run(ctx context.Context, commits <-chan *commitRequest) error {
	var spare []*aq.Save
	for {
		reqs, ok := j.gather(ctx, commits)
		saves := j.saves.take(spare)
		if err := j.commit(reqs, saves, j.spilled.take(nil)); err != nil {
			return err
		}
		spare = saves
		if !ok {
			return nil
		}
	}
}

// opsDelay is how long saves wait, at least, for new mail to share a sync with. It bounds what
// is delivered twice after a kill; a slow disk waits for a few of its syncs' time, and none
// longer than commit_delay_max.
const opsDelay = 2 * time.Millisecond

// gather waits for work. Requests are committed at once; saves alone wait for a moment,
// because nobody waits for them. ok is false when ctx has ended.
func (j *journal) gather(ctx context.Context, commits <-chan *commitRequest) (reqs []*commitRequest, ok bool) {
	select {
	case r := <-commits:
		return j.awaitMore(ctx, append(reqs, r), commits), true
	case <-ctx.Done():
		return j.drain(nil, commits), false
	case <-j.saves.ready:
	case <-j.spilled.ready:
	}
	timer := time.NewTimer(min(max(opsDelay, 4*j.lastSync), j.q.cfg.IBDB.CommitDelay))
	defer timer.Stop()
	select {
	case r := <-commits:
		return j.awaitMore(ctx, append(reqs, r), commits), true
	case <-ctx.Done():
		return j.drain(nil, commits), false
	case <-timer.C:
		return nil, true
	}
}

// commitMax is how much content a commit has, in bytes, before it takes no more: the store has
// it in memory several times.
const commitMax = 4 << 20

// slowSync is the time of a sync from which on it pays to wait for more.
const slowSync = time.Millisecond

// awaitMore gathers what has come, and on a slow disk waits a part of a sync's time for those
// sessions that were answered by the last commit and are about to come again: else one
// message would make all others wait for a sync of its own.
func (j *journal) awaitMore(ctx context.Context, reqs []*commitRequest, commits <-chan *commitRequest) []*commitRequest {
	reqs = j.drain(reqs, commits)
	enough := min(j.lastBatch*3/4, j.q.cfg.IBDB.OpenTAs)
	if j.lastSync < slowSync || len(reqs) >= enough {
		return reqs
	}
	timer := time.NewTimer(min(j.lastSync/4, j.q.cfg.IBDB.CommitDelay))
	defer timer.Stop()
	for len(reqs) < enough && inlineOf(reqs) < commitMax {
		select {
		case r := <-commits:
			reqs = j.drain(append(reqs, r), commits)
		case <-timer.C:
			return reqs
		case <-ctx.Done():
			return reqs
		}
	}
	return reqs
}

func (j *journal) drain(reqs []*commitRequest, commits <-chan *commitRequest) []*commitRequest {
	for size := inlineOf(reqs); len(reqs) < j.q.cfg.IBDB.OpenTAs && size < commitMax; {
		select {
		case r := <-commits:
			reqs = append(reqs, r)
			size += len(r.Q.Inline)
		default:
			return reqs
		}
	}
	return reqs
}

// inlineOf is how much content the requests bring into their commit, in bytes.
func inlineOf(reqs []*commitRequest) (n int) {
	for _, r := range reqs {
		n += len(r.Q.Inline)
	}
	return n
}

// commit writes one batch, tells the core and answers the requests, in this order: a listing
// after the 250 shows the message.
func (j *journal) commit(reqs []*commitRequest, saves []*aq.Save, spilled []smtp.ID) error {
	if len(reqs)+len(saves)+len(spilled) == 0 {
		return nil
	}
	if err := j.q.ids.extend(); err != nil {
		return err
	}
	b := j.q.db.NewBatch()
	taken, err := j.fill(b, reqs, saves)
	gone, err2 := j.fillSpilled(b, spilled)
	if err = errors.Join(err, err2); err != nil {
		b.Discard()
		return fmt.Errorf("filling a batch for the store: %w", err)
	}
	size := int64(b.Len())
	start := time.Now()
	err = j.q.db.Commit(b)
	if err == nil {
		err = j.q.cdb.Err() // a disk that could not write content may have lost more of it
	}
	if err != nil {
		for _, r := range taken {
			r.Answer(msg.CommitA{Reply: smtp.NewReply(451, "4.3.0", "cannot store the message")})
		}
		return err
	}
	j.lastSync = time.Since(start)
	if len(taken) > 0 {
		j.lastBatch = len(taken)
	}
	j.q.metrics.commit(len(taken), j.lastSync)
	j.q.space.Used(size)
	events := make([]event, 0, len(taken)+1)
	now := j.q.clock.day()
	for _, r := range taken {
		j.q.metrics.delays.accepted(r.Q.Envelope, now)
		if r.Q.Hold != "" {
			j.q.held(&r.Q)
			continue
		}
		events = append(events, event{ev: j.q.accepted(&r.Q)})
	}
	if n := len(saves); n > 0 {
		events = append(events, event{saved: saves[n-1].ID})
	}
	j.q.events.put(events...)
	j.q.remover.put(gone...)
	j.q.contents.EndSpills(spilled...)
	for _, r := range taken {
		r.Answer(msg.CommitA{})
	}
	return nil
}

// accepted is the event of a transaction that has become durable.
func (q *Queue) accepted(c *msg.CommitQ) *aq.Accepted {
	e := c.Envelope
	q.budget.Accept(e.TA, len(e.Rcpts))
	if ctx := context.Background(); q.log.Enabled(ctx, slog.LevelDebug) {
		q.log.LogAttrs(ctx, slog.LevelDebug, "accepted", slog.Any("ss_ta", e.TA), slog.Any("mail", e.Mail.From), slog.Int("rcpts", len(e.Rcpts)), slog.Int64("size", c.Size))
	}
	return &aq.Accepted{Message: aq.Message{Envelope: e, Size: c.Size, Body: q.contents.Hold(e.TA, c.Size, c.Inline, c.Memory), Inline: c.Inline != nil}}
}

// held notes a transaction that has become durable and whose recipients are all held. The core
// knows nothing of it until an operator releases it, as if it had been there at the start.
func (q *Queue) held(c *msg.CommitQ) {
	q.budget.Revoke(c.Envelope.TA)
	q.gauges.before.Add(int64(len(c.Envelope.Rcpts)))
	q.log.LogAttrs(context.Background(), slog.LevelInfo, "held", slog.Any("ss_ta", c.Envelope.TA), slog.Any("mail", c.Envelope.Mail.From),
		slog.Int("rcpts", len(c.Envelope.Rcpts)), slog.String("reason", c.Hold))
}

// fill puts everything into the batch. Requests that are refused are answered at once.
func (j *journal) fill(b *records.Batch, reqs []*commitRequest, saves []*aq.Save) (taken []*commitRequest, err error) {
	for _, r := range reqs {
		if reply := j.q.refuses(&r.Q); !reply.IsZero() {
			r.Answer(msg.CommitA{Reply: reply})
			continue
		}
		var err error
		if r.Q.Hold != "" {
			err = b.AcceptHeld(r.Q.Envelope, r.Q.Size, r.Q.Inline, j.q.clock.now(), r.Q.Hold)
		} else {
			err = b.Accept(r.Q.Envelope, r.Q.Size, r.Q.Inline)
		}
		if err != nil {
			return nil, err
		}
		taken = append(taken, r)
	}
	for _, s := range saves {
		for i := range s.Changes {
			if err := write(b, &s.Changes[i]); err != nil {
				return nil, err
			}
		}
	}
	return taken, nil
}

// fillSpilled gives up the store's copy of content that has become a file. Messages that were
// forgotten meanwhile are returned: nobody needs their files. A message that is forgotten in
// this batch, or later, has its file unlinked by the core.
func (j *journal) fillSpilled(b *records.Batch, spilled []smtp.ID) (gone []smtp.ID, err error) {
	for _, ta := range spilled {
		known, err := j.q.knows(ta)
		if err != nil {
			return nil, err
		}
		if !known {
			gone = append(gone, ta)
		} else if err := b.Spilled(ta); err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// refuses is the reply to a transaction that is not accepted, or zero. Its content file, if
// it has one, is nobody's then.
func (q *Queue) refuses(c *msg.CommitQ) smtp.Reply {
	switch ta := c.Envelope.TA; {
	case !q.ids.granted(ta):
		// A former QMGR of this process gave the id. What it knew of the transaction is gone; the
		// search for orphaned content removes its file, if it has one.
		return smtp.NewReply(451, "4.3.0", "the queue was restarted, please try again")
	case q.space.Refuses(int64(len(c.Inline))):
		q.budget.Revoke(ta)
		if c.Inline == nil {
			q.remover.put(ta)
		}
		return q.space.Refusal()
	}
	return smtp.Reply{}
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
