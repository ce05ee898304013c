package queue

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/ibdb"
)

// journal is the one writer of the IBDB. It gathers what all sessions and the loop
// want written and makes it durable by one sync: group commit. While a sync runs,
// the next batch gathers, so the syncs per message fall as the load rises.
type journal struct {
	q   *Queue
	ops *mailbox[journalOp]

	lastSync  time.Duration // how long the last commit with messages took
	lastBatch int           // and how many messages it had
}

type opKind uint8

const (
	opAccept  opKind = iota // t is new, made by the queue itself
	opEnd                   // recipient index has ended here
	opForget                // all recipients have ended here
	opSpilled               // the content has become a file
)

// journalOp is a change of the IBDB. Ops that are put together are committed
// together.
type journalOp struct {
	kind   opKind
	ta     smtp.ID
	t      *transaction // opAccept
	inline []byte       // opAccept: content, or nil if it is a file
	index  int          // opEnd
	hadIt  bool         // opForget: the content is in the IBDB
	ended  []int        // opForget
	unlink bool         // then remove the content file
	done   event        // then tell the loop; nil for nothing
}

type commitRequest = msg.Request[msg.CommitQ, msg.CommitA]

// run commits until ctx ends, and then once more what is left.
func (j *journal) run(ctx context.Context, commits <-chan *commitRequest) error {
	var spare []journalOp
	for {
		reqs, ok := j.gather(ctx, commits)
		ops := j.ops.take(spare)
		if err := j.commit(reqs, ops); err != nil {
			return err
		}
		spare = ops
		if !ok {
			return nil
		}
	}
}

// gather waits for work. Requests are committed at once; ops alone wait for a
// while, because nobody waits for them. ok is false when ctx has ended.
func (j *journal) gather(ctx context.Context, commits <-chan *commitRequest) (reqs []*commitRequest, ok bool) {
	select {
	case r := <-commits:
		return j.company(ctx, append(reqs, r), commits), true
	case <-ctx.Done():
		return j.drain(nil, commits), false
	case <-j.ops.ready:
	}
	timer := time.NewTimer(j.q.cfg.IBDB.CommitDelay)
	defer timer.Stop()
	select {
	case r := <-commits:
		return j.company(ctx, append(reqs, r), commits), true
	case <-ctx.Done():
		return j.drain(nil, commits), false
	case <-timer.C:
		return nil, true
	}
}

// slowSync is the time of a sync from which on it pays to wait for company.
const slowSync = time.Millisecond

// company gathers what has come, and on a slow disk waits a part of a sync's time
// for those sessions that were answered by the last commit and are about to come
// again: else one message would make all others wait for a sync of its own.
func (j *journal) company(ctx context.Context, reqs []*commitRequest, commits <-chan *commitRequest) []*commitRequest {
	reqs = j.drain(reqs, commits)
	enough := min(j.lastBatch*3/4, j.q.cfg.IBDB.OpenTAs)
	if j.lastSync < slowSync || len(reqs) >= enough {
		return reqs
	}
	timer := time.NewTimer(min(j.lastSync/4, j.q.cfg.IBDB.CommitDelay))
	defer timer.Stop()
	for len(reqs) < enough {
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
	for len(reqs) < j.q.cfg.IBDB.OpenTAs {
		select {
		case r := <-commits:
			reqs = append(reqs, r)
		default:
			return reqs
		}
	}
	return reqs
}

// commit writes one batch, answers the requests and tells the loop.
func (j *journal) commit(reqs []*commitRequest, ops []journalOp) error {
	if len(reqs)+len(ops) == 0 {
		return nil
	}
	if err := j.q.ids.extend(); err != nil {
		return err
	}
	b := j.q.ibdb.NewBatch()
	taken, accepted, err := j.fill(b, reqs, ops)
	if err != nil {
		b.Discard()
		return fmt.Errorf("filling a batch for the IBDB: %w", err)
	}
	size := int64(b.Len())
	start := time.Now()
	if err := j.q.ibdb.Commit(b); err != nil {
		failAll(taken, smtp.NewReply(451, "4.3.0", "cannot store the message"))
		return err
	}
	took := time.Since(start)
	if len(accepted) > 0 {
		j.lastSync, j.lastBatch = took, len(accepted)
	}
	j.q.metrics.commit(len(accepted), took)
	j.q.space.used(size)
	// The loop hears of a message before the client does, so that a listing after
	// the 250 shows it.
	j.publish(accepted, ops)
	for _, r := range taken {
		r.Answer(msg.CommitA{})
	}
	return nil
}

// fill puts everything into the batch. Requests for which there is no room are
// answered at once.
func (j *journal) fill(b *ibdb.Batch, reqs []*commitRequest, ops []journalOp) (taken []*commitRequest, accepted []*transaction, err error) {
	now := j.q.clock.now()
	for _, r := range reqs {
		if j.q.space.refuses(int64(len(r.Q.Inline))) {
			j.refuse(r)
			continue
		}
		if err := b.Accept(r.Q.Envelope, r.Q.Inline); err != nil {
			return nil, nil, err
		}
		taken = append(taken, r)
		accepted = append(accepted, j.q.accept(r.Q.Envelope, r.Q.Inline, r.Q.Size, now, 0))
	}
	for i := range ops {
		if err := ops[i].fill(b); err != nil {
			return nil, nil, err
		}
	}
	return taken, accepted, nil
}

func (op *journalOp) fill(b *ibdb.Batch) error {
	switch op.kind {
	case opAccept:
		return b.Accept(op.t.env, op.inline)
	case opEnd:
		return b.End(op.ta, op.index)
	case opForget:
		return b.Forget(op.ta, op.hadIt, op.ended)
	default:
		return b.Spilled(op.ta)
	}
}

// publish tells the loop what has become durable.
func (j *journal) publish(accepted []*transaction, ops []journalOp) {
	var unlink []deferOp
	for i := range ops {
		op := &ops[i]
		if op.kind == opAccept {
			accepted = append(accepted, op.t)
		}
		if op.done != nil {
			defer j.q.events.put(op.done) // after the acceptance of what it made
		}
		if op.unlink {
			unlink = append(unlink, deferOp{kind: deferUnlink, ta: op.ta})
		}
	}
	j.q.deferrer.ops.put(unlink...)
	if len(accepted) > 0 {
		j.q.events.put(&acceptedEvent{ts: accepted})
	}
}

// refuse turns a transaction away for which there is no room. Its content file, if
// it has one, is nobody's.
func (j *journal) refuse(r *commitRequest) {
	if r.Q.Inline == nil {
		j.q.deferrer.ops.put(deferOp{kind: deferUnlink, ta: r.Q.Envelope.TA})
	}
	r.Answer(msg.CommitA{Reply: j.q.space.refusal()})
}

// failAll answers requests that could not be committed.
func failAll(reqs []*commitRequest, reply smtp.Reply) {
	for _, r := range reqs {
		r.Answer(msg.CommitA{Reply: reply})
	}
}

// accept makes the transaction of an envelope that is being committed. Small
// content stays in memory for the first delivery.
func (q *Queue) accept(e *msg.Envelope, inline []byte, size int64, now time.Time, waited time.Duration) *transaction {
	var body msg.Body
	if inline != nil {
		body = memBody(inline)
		q.memory.Add(int64(len(inline)))
	} else {
		body = q.stored(e.TA, size)
	}
	t := newTransaction(e, size, body, nil, now, waited)
	if inline != nil {
		t.inline, t.memory = true, int64(len(inline))
	} else {
		t.hasFile, t.spill.file = true, true
	}
	return t
}

// stored is content on disk.
func (q *Queue) stored(ta smtp.ID, size int64) msg.Body {
	return &storedBody{ta: ta, size: size, cdb: q.cdb, ibdb: q.ibdb}
}

// logAccepted is one line for each message that the queue took over.
func (q *Queue) logAccepted(ctx context.Context, t *transaction) {
	if q.log.Enabled(ctx, slog.LevelDebug) {
		q.log.LogAttrs(ctx, slog.LevelDebug, "accepted", slog.Any("ss_ta", t.env.TA),
			slog.Any("mail", t.env.Mail.From), slog.Int("rcpts", len(t.env.Rcpts)), slog.Int64("size", t.size))
	}
}
