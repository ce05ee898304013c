// Package ibdb is the incoming backup database: every accepted envelope until its
// last recipient has ended or has moved to the DEFEDB, and small content along
// with it (README 7.1; DESIGN "Content").
//
// Keys, where TA is the nine bytes of the transaction's id:
//
//	c TA        content, if it is kept here
//	d TA INDEX  the recipient has ended here: delivered, bounced or moved to the DEFEDB
//	e TA        envelope
//	m ids       upper bound of the ids that were ever handed out
//
// c and e of a TA are written once, together, in one synced batch; they are
// removed together when all recipients have ended, or c alone when the content was
// spilled to the CDB. Because an id is never used twice, single deletes are safe,
// and a message that is delivered at once never reaches a table on disk.
package ibdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// Version of the keys and values.
const Version = 2

const (
	prefixContent  = 'c'
	prefixEnded    = 'd'
	prefixEnvelope = 'e'

	taLen = 9
)

var idsKey = []byte("m ids")

// DB is an open IBDB. Its methods may be called from any goroutine.
type DB struct {
	s *store.Store

	reading sync.RWMutex // held while Content reads; guards closed
	closed  bool
}

var errClosed = errors.New("the IBDB is closed")

// Open opens or creates the IBDB in dir. See store.Open for the errors.
func Open(fsys vfs.FS, dir string, o store.Options) (*DB, error) {
	o.Name, o.Version = "IBDB", Version
	s, err := store.Open(fsys, dir, o)
	if err != nil {
		return nil, err
	}
	return &DB{s: s}, nil
}

// Close closes the database. Batches that were committed without sync become durable.
// Content may still be called, by a delivery that goes on; other methods may not.
func (db *DB) Close() error {
	db.reading.Lock()
	defer db.reading.Unlock()
	db.closed = true
	return db.s.Close()
}

// Spool is the name of the spool that the database belongs to, nil if it is new.
func (db *DB) Spool() ([]byte, error) { return db.s.Spool() }

// SetSpool gives the database to a spool, durably.
func (db *DB) SetSpool(name []byte) error { return db.s.SetSpool(name) }

// Refill makes the store's reserve again if there is room.
func (db *DB) Refill() { db.s.Refill() }

// Metrics are Pebble's.
func (db *DB) Metrics() *pebble.Metrics { return db.s.Metrics() }

// Batch collects changes that become durable together. It is not safe for
// concurrent use, and is spent after Commit.
type Batch struct {
	b   *pebble.Batch
	key [1 + taLen + 4]byte
	val []byte
}

// NewBatch makes an empty batch.
func (db *DB) NewBatch() *Batch { return &Batch{b: db.s.NewBatch()} }

// Accept adds an envelope, and its content unless inline is nil.
func (b *Batch) Accept(e *msg.Envelope, inline []byte) error {
	b.val = msg.AppendEnvelope(b.val[:0], e)
	if err := b.b.Set(b.taKey(prefixEnvelope, e.TA), b.val, nil); err != nil || inline == nil {
		return err
	}
	return b.b.Set(b.taKey(prefixContent, e.TA), inline, nil)
}

// End records that a recipient has ended here while others have not.
func (b *Batch) End(ta smtp.ID, index int) error {
	return b.b.Set(b.endKey(ta, index), nil, nil)
}

// Spilled removes the content of a transaction, whose file must be durable.
func (b *Batch) Spilled(ta smtp.ID) error {
	return b.b.SingleDelete(b.taKey(prefixContent, ta), nil)
}

// Forget removes a transaction all of whose recipients have ended here. inline
// says that its content is still kept here, ended which of its recipients have a
// record of their end.
func (b *Batch) Forget(ta smtp.ID, inline bool, ended []int) error {
	if inline {
		if err := b.Spilled(ta); err != nil {
			return err
		}
	}
	for _, i := range ended {
		if err := b.b.Delete(b.endKey(ta, i), nil); err != nil {
			return err
		}
	}
	return b.b.SingleDelete(b.taKey(prefixEnvelope, ta), nil)
}

// Len is the size of the batch in bytes.
func (b *Batch) Len() int { return b.b.Len() }

func (b *Batch) taKey(prefix byte, ta smtp.ID) []byte {
	b.key[0] = prefix
	binary.BigEndian.PutUint64(b.key[1:], ta.Counter)
	b.key[taLen] = ta.Process
	return b.key[:1+taLen]
}

func (b *Batch) endKey(ta smtp.ID, index int) []byte {
	k := b.taKey(prefixEnded, ta)
	return binary.BigEndian.AppendUint32(k, uint32(index))
}

// Commit makes the batch durable: when it returns nil, a crash does not lose it.
// An error means that nothing may be acknowledged.
func (db *DB) Commit(b *Batch) error { return db.s.Commit(b.b) }

// Discard gives up a batch that was not committed.
func (b *Batch) Discard() { _ = b.b.Close() }

// Content reads the content of a transaction that is kept here. ok is false if
// there is none.
func (db *DB) Content(ta smtp.ID) (content []byte, ok bool, err error) {
	db.reading.RLock()
	defer db.reading.RUnlock()
	if db.closed {
		return nil, false, errClosed
	}
	var k Batch
	v, closer, err := db.s.Get(k.taKey(prefixContent, ta))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading content from the IBDB: %w", err)
	}
	content = append(make([]byte, 0, len(v)), v...)
	return content, true, closer.Close()
}

// ReserveIDs makes sure that no id counter below the returned bound is ever handed
// out by a later process, and returns the first of n counters for this one.
func (db *DB) ReserveIDs(n uint64) (first uint64, err error) {
	first = 1
	v, closer, err := db.s.Get(idsKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return 0, fmt.Errorf("reading the id counter: %w", err)
	default:
		if len(v) != 8 {
			return 0, errors.Join(fmt.Errorf("%w: the id counter has %d bytes", store.ErrDamaged, len(v)), closer.Close())
		}
		first = binary.BigEndian.Uint64(v)
		if err := closer.Close(); err != nil {
			return 0, err
		}
	}
	if err := db.s.Set(idsKey, binary.BigEndian.AppendUint64(nil, first+n), pebble.Sync); err != nil {
		return 0, fmt.Errorf("reserving ids: %w", err)
	}
	return first, nil
}

// Recovered is a transaction that Recover found.
type Recovered struct {
	Envelope *msg.Envelope
	Ended    []int // recipients that have ended here, ascending
	Inline   bool  // its content is here
	Size     int64 // of the content, if Inline
}

// Recover calls f for each transaction in the order of the ids. An error of f ends
// it. A record that cannot be read is an ErrDamaged.
func (db *DB) Recover(f func(Recovered) error) error {
	it, err := db.s.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixEnvelope}, UpperBound: []byte{prefixEnvelope + 1}})
	if err != nil {
		return fmt.Errorf("reading the IBDB: %w", err)
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("reading the IBDB: %w", err)
		}
		r, err := db.recover(it.Key(), v)
		if err != nil {
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("reading the IBDB: %w", err)
	}
	return nil
}

func (db *DB) recover(key, value []byte) (Recovered, error) {
	e, err := msg.DecodeEnvelope(value)
	if err != nil {
		return Recovered{}, fmt.Errorf("%w: IBDB record %x: %w", store.ErrDamaged, key, err)
	}
	r := Recovered{Envelope: e}
	content, ok, err := db.Content(e.TA)
	if err != nil {
		return Recovered{}, err
	}
	r.Inline, r.Size = ok, int64(len(content))
	r.Ended, err = db.ended(e)
	return r, err
}

func (db *DB) ended(e *msg.Envelope) (ended []int, err error) {
	var lower, upper Batch
	it, err := db.s.NewIter(&pebble.IterOptions{
		LowerBound: lower.endKey(e.TA, 0),
		UpperBound: upper.endKey(e.TA, len(e.Rcpts)),
	})
	if err != nil {
		return nil, fmt.Errorf("reading the IBDB: %w", err)
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		ended = append(ended, int(binary.BigEndian.Uint32(it.Key()[1+taLen:])))
	}
	return ended, it.Error()
}
