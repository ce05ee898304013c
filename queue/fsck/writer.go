package fsck

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
)

// writer gathers the changes of a repair, and makes them durable in an order in which
// no recipient and no record is ever nowhere: lost+found, DEFEDB, IBDB, content files.
type writer struct {
	ibdb   *ibdb.DB
	defedb *defedb.DB
	cdb    *cdb.Store
	attic  *attic
	now    time.Time

	ib      *ibdb.Batch
	db      *defedb.Batch
	n       int // changes in the batches
	moves   []smtp.ID
	rebuilt int // recipients that were made anew
}

func newWriter(i *ibdb.DB, d *defedb.DB, c *cdb.Store, a *attic, now time.Time) *writer {
	w := &writer{ibdb: i, defedb: d, cdb: c, attic: a, now: now}
	w.begin()
	return w
}

func (w *writer) begin() {
	w.ib, w.db, w.n, w.moves = w.ibdb.NewBatch(), w.defedb.NewBatch(), 0, nil
}

func (w *writer) setIBDB(k, v []byte) error {
	w.n++
	return w.ib.Set(k, v)
}

func (w *writer) dropIBDB(k []byte) error {
	w.n++
	return w.ib.Delete(k)
}

func (w *writer) setDEFEDB(k, v []byte) error {
	w.n++
	return w.db.Set(k, v)
}

func (w *writer) dropDEFEDB(keys ...[]byte) (err error) {
	for _, k := range keys {
		w.n++
		err = errors.Join(err, w.db.Delete(k))
	}
	return err
}

// putTA stores the envelope of a transaction in the DEFEDB.
func (w *writer) putTA(e *msg.Envelope, size int64) error {
	w.n++
	return w.db.PutTA(e, size)
}

// due makes a recipient that is due now.
func (w *writer) due(ta smtp.ID, index int, why string) error {
	w.n++
	return w.db.Put(&defedb.State{TA: ta, Index: index, NextTry: w.now, Stored: w.now, Reason: "meta1 fsck: " + why}, time.Time{})
}

// asideIBDB moves a record of the IBDB to lost+found.
func (w *writer) asideIBDB(k, v []byte) (string, error) {
	name, err := w.attic.keep("ibdb-"+recordName(k), v, fmt.Sprintf("record of the IBDB, key %x", clip(k)))
	if err != nil {
		return "", err
	}
	return "it is in " + name, w.dropIBDB(k)
}

// asideDEFEDB moves a record of the DEFEDB to lost+found, and with a state that can be
// read its entries in the indexes.
func (w *writer) asideDEFEDB(k, v []byte) (string, error) {
	name, err := w.attic.keep("defedb-"+recordName(k), v, fmt.Sprintf("record of the DEFEDB, key %x", clip(k)))
	if err != nil {
		return "", err
	}
	keys := [][]byte{k}
	if st, err := defedb.DecodeRcpt(k, v); err == nil && defedb.KnownKey(k) && k[0] == byte(defedb.KindRcpt) {
		keys = append(keys, st.Indexes()...)
	}
	return "it is in " + name, w.dropDEFEDB(keys...)
}

// recordName makes a file name of a key.
func recordName(k []byte) string { return hex.EncodeToString(k[:min(len(k), 60)]) }

// asideContent moves a content file to lost+found.
func (w *writer) asideContent(ta smtp.ID, letter string) (string, error) {
	if letter == "" {
		letter = "nothing is known of sender and recipients"
	}
	name, err := w.attic.announce(ta.String(), "content file: "+letter)
	if err != nil {
		return "", err
	}
	w.moves = append(w.moves, ta)
	return "it is in " + name, nil
}

// commit makes everything durable that was gathered, and begins anew.
func (w *writer) commit() error {
	defer w.begin()
	if err := w.attic.sync(); err != nil {
		w.discard()
		return err
	}
	if w.n == 0 {
		w.discard()
	} else {
		if err := w.defedb.Commit(w.db); err != nil {
			w.ib.Discard()
			return err
		}
		if err := w.ibdb.Commit(w.ib); err != nil {
			return err
		}
	}
	for _, ta := range w.moves {
		if err := w.attic.move(w.cdb.Path(ta), ta.String()); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) discard() {
	w.ib.Discard()
	w.db.Discard()
}
