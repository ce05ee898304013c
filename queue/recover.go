package queue

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
)

// recovery is what a start finds in the IBDB.
type recovery struct {
	ts   []*transaction
	late bool // some are due too late: the clock was set back while the queue was down
	// moved are recipients that the DEFEDB has, and of which the IBDB does not know.
	moved []rcptRef
	// known are the transactions in it; their content files are no litter.
	known map[smtp.ID]struct{}
}

// recover reads all transactions of the IBDB. Recipients that the DEFEDB has were
// moved there before the crash; what has neither ended nor moved is tried again.
func (q *Queue) recover(now time.Time) (*recovery, error) {
	rec := &recovery{known: map[smtp.ID]struct{}{}}
	err := q.ibdb.Recover(func(r ibdb.Recovered) error {
		t, err := q.recoverOne(r, now)
		if err != nil {
			return err
		}
		for _, i := range t.ended[len(r.Ended):] {
			rec.moved = append(rec.moved, rcptRef{r.Envelope.TA, i})
		}
		rec.ts = append(rec.ts, t)
		rec.known[r.Envelope.TA] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := q.completeMoves(rec.moved); err != nil {
		return nil, err
	}
	far := q.tooLate()
	_, rec.late, err = q.defedb.NextDue(&far)
	return rec, err
}

func (q *Queue) recoverOne(r ibdb.Recovered, now time.Time) (*transaction, error) {
	ta := r.Envelope.TA
	moved, err := q.defedb.Rcpts(ta)
	if err != nil {
		return nil, err
	}
	gone := append([]int(nil), r.Ended...)
	for _, st := range moved {
		if st.Index < len(r.Envelope.Rcpts) {
			gone = append(gone, st.Index)
		}
	}
	t := newTransaction(r.Envelope, r.Size, q.stored(ta, r.Size), gone, now, q.cfg.waited(0, r.Envelope.Arrival, now))
	t.ended = r.Ended
	for _, i := range gone[len(r.Ended):] {
		if _, known := slices.BinarySearch(r.Ended, i); !known {
			t.ended = append(t.ended, i)
		}
	}
	t.left += len(moved)
	t.inDEFEDB = len(moved) > 0
	t.inline = r.Inline
	t.spill.ta = t.inDEFEDB
	if r.Inline && !t.inDEFEDB {
		// A file beside the record may be a rest of a spill that was not completed.
		return t, q.cdb.Remove(ta)
	}
	size, err := q.cdb.Stat(ta)
	if err != nil && !isGone(err) {
		return nil, err
	}
	t.hasFile, t.spill.file, t.lost = err == nil, err == nil, err != nil && !r.Inline
	if !r.Inline {
		t.size, t.body = size, q.stored(ta, size)
	}
	return t, nil
}

// completeMoves records in the IBDB the end of recipients that a crash left in both
// databases. It must be durable before the DEFEDB forgets them: else the next start
// would take them for recipients that were never tried.
func (q *Queue) completeMoves(moved []rcptRef) error {
	if len(moved) == 0 {
		return nil
	}
	b := q.ibdb.NewBatch()
	for _, m := range moved {
		if err := b.End(m.ta, m.index); err != nil {
			b.Discard()
			return err
		}
	}
	return q.ibdb.Commit(b)
}

// rcptRef names a recipient.
type rcptRef struct {
	ta    smtp.ID
	index int
}

// isLost tells whether a transaction's content file is gone.
func (q *Queue) isLost(ta smtp.ID) bool {
	_, err := q.cdb.Stat(ta)
	return isGone(err)
}

// isGone tells whether an error of the CDB says that a content cannot be had any more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, cdb.ErrIncomplete)
}

// recoveredEvent: what a start found enters the active queue.
type recoveredEvent struct {
	ts   []*transaction
	late bool
}

func (e *recoveredEvent) apply(l *loop) {
	if e.late {
		l.hasten()
	}
	for _, t := range e.ts {
		if t.lost {
			l.q.log.Error("an envelope has no content: its recipients are bounced", "ss_ta", t.env.TA.String())
			l.tas[t.env.TA] = t
			l.entries += len(t.rcpts)
			if t.left == 0 {
				l.finish(t)
				continue
			}
			l.giveUp(t, append([]*rcpt(nil), t.rcpts...))
			continue
		}
		if len(t.rcpts) == 0 && t.left > 0 { // all have moved to the DEFEDB
			l.forgetMoved(t)
			continue
		}
		l.enter(t)
	}
}

// forgetMoved completes a move to the DEFEDB that a crash interrupted.
func (l *loop) forgetMoved(t *transaction) {
	l.tas[t.env.TA] = t
	t.ibdbLeft = 1
	l.endIBDB(t, 0)
	l.settle(t)
}

// count counts the recipients that were deferred when the queue was opened. Of very
// many this takes a while, and nothing waits for it.
func (q *Queue) count(ctx context.Context, c *defedb.Counter) error {
	began := time.Now()
	n, err := c.Count(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		q.log.Error("cannot count the deferred recipients", "error", err)
	default:
		q.log.Info("deferred recipients are counted", "deferred", n, "took", time.Since(began))
		q.events.put(&countedEvent{n: n})
	}
	return nil
}

// countedEvent: so many recipients were deferred when the queue was opened.
type countedEvent struct{ n int }

func (e *countedEvent) apply(l *loop) {
	l.counts.waiting += e.n
	l.counts.counted = true
}

const (
	// litterStep files are looked at in one go, and then nothing for litterPause, so
	// that the search through a large spool leaves disk and processor to the mail.
	litterStep  = 100
	litterPause = 20 * time.Millisecond
)

// litter removes content files that no envelope names: rests of transactions that
// were never acknowledged. first is the first id of this run; later ones belong to
// it. Files younger than the grace time are looked at again.
func (q *Queue) litter(ctx context.Context, known map[smtp.ID]struct{}, first uint64) error {
	start := q.clock.now()
	for pause := time.Duration(0); ; pause = max(q.cfg.OrphanGrace/2, time.Second) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		s := litterSearch{q: q, ctx: ctx, known: known, first: first, announce: pause == 0, ran: q.clock.now().Sub(start)}
		left, err := s.run()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			q.log.Error("cannot look for content without an envelope", "error", err)
			return nil
		case left == 0 || q.clock.now().Sub(start) > q.cfg.OrphanGrace*3:
			return nil
		}
	}
}

// litterSearch is one search through all content files.
type litterSearch struct {
	q        *Queue
	ctx      context.Context
	known    map[smtp.ID]struct{}
	first    uint64
	announce bool          // tell what is found; a later search does not tell it again
	ran      time.Duration // for how long the queue runs: files are at least so old, whatever the clock says

	seen int
	left int // files that are still too young
	err  error
}

// run searches and returns how many files are still too young.
func (s *litterSearch) run() (left int, err error) {
	err = s.q.cdb.List(s.file, func(path string) {
		if s.announce {
			s.q.log.Warn("a stranger in the content directory is left alone", "path", path)
		}
	})
	return s.left, errors.Join(err, s.err)
}

// file looks at one content file, and pauses behind some.
func (s *litterSearch) file(f cdb.File) {
	if s.ctx.Err() != nil || s.err != nil {
		return
	}
	if _, ok := s.known[f.TA]; !ok && f.TA.Counter < s.first {
		s.look(f)
	}
	if s.seen++; s.seen%litterStep == 0 {
		select {
		case <-s.ctx.Done():
		case <-time.After(litterPause):
		}
	}
}

// look tells litter from content of the DEFEDB.
func (s *litterSearch) look(f cdb.File) {
	has, err := s.q.defedb.HasRcpts(f.TA)
	switch {
	case err != nil:
		s.err = err
	case !has:
		s.orphan(f)
	}
}

// orphan removes a file that no envelope names when the grace time is over.
func (s *litterSearch) orphan(f cdb.File) {
	if max(s.q.clock.day().Sub(f.Changed), s.ran) < s.q.cfg.OrphanGrace {
		s.left++
		if s.announce {
			s.q.log.Warn("content without an envelope, will be removed after the grace time", "ss_ta", f.TA.String(), "size", f.Size)
		}
		return
	}
	s.q.log.Warn("content without an envelope is removed", "ss_ta", f.TA.String(), "size", f.Size)
	// A crash may have left a record of the transaction without a recipient.
	s.q.deferrer.ops.put(deferOp{kind: deferForget, ta: f.TA, unlink: true})
}
