package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/queue/aq"
	"meta1/queue/records"
)

// recover reads the messages with fresh recipients, sets aside what of them cannot be
// decoded, and counts the recipients in the budget.
func (q *Queue) recover() (found []*aq.Recovered, err error) {
	v := q.db.View()
	err = v.Recover(func(r *records.Recovered) error {
		e := r.Envelope
		ev := &aq.Recovered{
			Message: aq.Message{Envelope: e.Envelope, Size: e.Size, Inline: e.Inline, Body: q.contents.Stored(e.TA, e.Size, !e.Inline)},
			Ended:   r.Ended, Deferred: r.Aside,
		}
		for i := range r.Deferred {
			ev.Deferred = append(ev.Deferred, r.Deferred[i].Index)
		}
		if !e.Inline {
			if _, err := q.cdb.Stat(e.TA); err != nil && !isGone(err) {
				return err
			} else if err != nil {
				ev.Lost = true
			}
		}
		q.budget.Accept(e.TA, ev.Fresh())
		found = append(found, ev)
		return nil
	})
	if err == nil {
		err = q.setAside(v.Broken())
	}
	return found, errors.Join(err, v.Close())
}

// setAside puts records that cannot be decoded where they hinder nothing. The journal does
// not run yet.
func (q *Queue) setAside(broken []records.Broken) error {
	if len(broken) == 0 {
		return nil
	}
	b := q.db.NewBatch()
	for _, r := range broken {
		q.log.Error("a record cannot be decoded and is set aside", "key", fmt.Sprintf("%x", r.Key), "error", r.Err)
		if err := b.SetAside(r); err != nil {
			b.Discard()
			return err
		}
	}
	return q.db.Commit(b)
}

// isGone reports whether an error of the CDB says that a content cannot be had any more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, cdb.ErrIncomplete)
}

// noStrayMail fails if the store is new although there is a complete content file: the store
// was lost, and its mail must not be taken for orphaned content.
func (q *Queue) noStrayMail() error {
	_, used, err := q.db.Store().Reader().Get(records.Key{Kind: records.KindIDs}.Bytes())
	if err != nil || used {
		return err
	}
	n := 0
	var first string
	err = q.cdb.List(func(f cdb.File) error {
		if _, err := q.cdb.Envelope(f.TA); err != nil {
			return nil // it was never acknowledged, or cannot be sent anyway
		}
		if n++; n == 1 {
			first = q.cdb.Path(f.TA)
		}
		return nil
	}, func(string) {})
	if err == nil && n > 0 {
		err = fmt.Errorf("%w: the store is new, but %d content files hold mail of which it knows nothing, such as %s: run meta1 fsck --rebuild", store.ErrDamaged, n, first)
	}
	return err
}

// count counts the deferred recipients that are there at the start. Of very many this takes a
// while, and nothing waits for it.
func (q *Queue) count(ctx context.Context, v *records.View) error {
	began := time.Now()
	deferred, aside, err := v.Count(ctx)
	err = errors.Join(err, v.Close())
	switch {
	case ctx.Err() != nil:
	case err != nil:
		q.log.Error("cannot count the deferred recipients", "error", err)
	default:
		q.log.Info("deferred recipients are counted", "deferred", deferred, "set_aside", aside, "took", time.Since(began))
		q.gauges.Before.Add(int64(deferred)) // what was held meanwhile is counted already
		q.gauges.Aside.Add(int64(aside))
		q.gauges.Counted.Store(true)
	}
	return nil
}

// parkedBefore tells the core what was parked when the queue was closed.
func (q *Queue) parkedBefore(context.Context) error {
	ev := &aq.Parked{}
	v := q.db.View()
	err := v.ParkedFor(func(dest string) bool {
		ev.Dests = append(ev.Dests, dest)
		return len(ev.Dests) < q.conf().OCCEntries
	})
	if err := errors.Join(err, v.Close()); err != nil {
		q.log.Error("cannot tell for what mail is parked; it comes back by its own times", "error", err)
	}
	q.events.Put(event{ev: ev})
	return nil
}

// knows reports whether the store has a message, be it broken or set aside.
func (q *Queue) knows(ta smtp.ID) (bool, error) { return records.HasMessage(q.db.Store().Reader(), ta) }

// remove unlinks the content files that nobody needs.
func (q *Queue) remove(ctx context.Context) error {
	var spare []smtp.ID
	for {
		done := false
		select {
		case <-q.remover.Ready:
		case <-ctx.Done():
			done = true
		}
		ids := q.remover.Take(spare)
		q.unlinking <- struct{}{} // a backup may need the files still
		for _, ta := range ids {
			if err := q.cdb.Remove(ta); err != nil {
				q.log.Error("cannot remove content", "ss_ta", ta.String(), "error", err)
			}
		}
		<-q.unlinking
		spare = ids
		if done {
			return nil
		}
	}
}
