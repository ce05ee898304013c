package fsck

import (
	"encoding/hex"
	"fmt"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// writer gathers the changes of a repair, and makes them durable in an order in which
// nothing is ever nowhere: lost+found, then the store in one batch, then content files.
type writer struct {
	db    *records.DB
	cdb   *cdb.Store
	lost  *lostFound
	now   time.Time
	b     *records.Batch
	moves []smtp.ID

	rebuilt int // recipients that were made due
}

func newWriter(db *records.DB, c *cdb.Store, l *lostFound, now time.Time) *writer {
	return &writer{db: db, cdb: c, lost: l, now: now, b: db.NewBatch()}
}

func (w *writer) set(k, v []byte) error { return w.b.Set(k, v) }

func (w *writer) remove(keys ...[]byte) error {
	for _, k := range keys {
		if err := w.b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) setAside(r records.Broken) error { return w.b.SetAside(r) }

// envelope stores the envelope of a message.
func (w *writer) envelope(e records.Envelope) error {
	return w.set(messageKey(records.KindEnvelope, e.TA), records.AppendEnvelope(nil, &e))
}

// due makes recipients that are due now.
func (w *writer) due(ta smtp.ID, rcpts []int, why string) error {
	for _, i := range rcpts {
		st := records.State{Ref: records.Ref{TA: ta, Index: i}, NextTry: w.now, Stored: w.now, Reason: "meta1 fsck: " + why}
		if err := w.b.Put(&st, nil); err != nil {
			return err
		}
	}
	return nil
}

// keep puts a copy of a record that is about to change into lost+found.
func (w *writer) keep(k, v []byte) error {
	name := "record-" + hex.EncodeToString(k[:min(len(k), 60)])
	return w.lost.keep(name, v, fmt.Sprintf("record with the key %.60x", k))
}

// moveContent moves a content file to lost+found when the batch was committed.
func (w *writer) moveContent(ta smtp.ID, what string) (string, error) {
	path, err := w.lost.announce(ta.String(), "content file: "+what)
	if err != nil {
		return "", err
	}
	w.moves = append(w.moves, ta)
	return "it is in " + path, nil
}

// apply makes the changes that repair what was found, durably, and returns the findings
// of which something was repaired.
func (w *writer) apply(list []found) (repaired []found, err error) {
	for _, f := range list {
		if f.fix == nil {
			continue
		}
		if f.Done, err = f.fix(w); err != nil {
			return nil, err
		}
		repaired = append(repaired, f)
	}
	return repaired, w.commit()
}

// commit makes everything durable that was gathered, and begins anew.
func (w *writer) commit() error {
	b, moves := w.b, w.moves
	w.b, w.moves = w.db.NewBatch(), nil
	if err := w.lost.sync(); err != nil {
		b.Discard()
		return err
	}
	if err := w.db.Commit(b); err != nil {
		return err
	}
	for _, ta := range moves {
		if err := w.lost.move(w.cdb.Path(ta), ta.String()); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) discard() { w.b.Discard() }
