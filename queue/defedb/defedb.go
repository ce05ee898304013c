// Package defedb is the deferred envelope database: recipients that wait for their
// next attempt, in the order of the next time to try (README 7.1). Content of its
// transactions always lies in the CDB.
//
// Keys, where TA is the nine bytes of the transaction's id, INDEX the four of the
// recipient's index and TIME nanoseconds since 1970:
//
//	n TIME TA INDEX  the recipient is due at TIME
//	r TA INDEX       state of the recipient
//	t TA             size of the content, and the envelope
//	w DEST TA INDEX  the recipient waits for its destination; DEST is preceded by its
//	                 length in two bytes
//
// n and r of a recipient are always written and removed together, and so is w if its
// state has Waits and a Dest. t is there as long as the transaction has a recipient.
package defedb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// Version of the keys and values.
const Version = 2

const (
	prefixDue  = 'n'
	prefixRcpt = 'r'
	prefixTA   = 't'
	prefixWait = 'w'

	taLen   = 9
	rcptLen = taLen + 4
)

// DB is an open DEFEDB. Its methods may be called from any goroutine.
type DB struct {
	s *store.Store
}

// Open opens or creates the DEFEDB in dir. See store.Open for the errors.
func Open(fsys vfs.FS, dir string, o store.Options) (*DB, error) {
	o.Name, o.Version = "DEFEDB", Version
	s, err := store.Open(fsys, dir, o)
	if err != nil {
		return nil, err
	}
	return &DB{s: s}, nil
}

// Close closes the database.
func (db *DB) Close() error { return db.s.Close() }

// Spool is the name of the spool that the database belongs to, nil if it is new.
func (db *DB) Spool() ([]byte, error) { return db.s.Spool() }

// SetSpool gives the database to a spool, durably.
func (db *DB) SetSpool(name []byte) error { return db.s.SetSpool(name) }

// Refill makes the store's reserve again if there is room.
func (db *DB) Refill() { db.s.Refill() }

// Metrics are Pebble's.
func (db *DB) Metrics() *pebble.Metrics { return db.s.Metrics() }

// State is where a deferred recipient stands.
type State struct {
	TA       smtp.ID
	Index    int
	NextTry  time.Time
	Stored   time.Time     // when this was written
	Waited   time.Duration // the recipient's age at that time
	Attempts int
	Delayed  bool   // a delayed DSN was sent
	Held     bool   // it waits until an operator releases it; NextTry is Never
	Waits    bool   // for Dest, which nothing can reach now: Waiting finds it
	Dest     string // destination of the last route
	Route    *Route // the last route, nil if it is to be asked for
	Reason   string // last reply, or why there was no attempt
}

// Never is the next time to try of a recipient that is held.
func Never() time.Time { return time.Unix(0, math.MaxInt64) }

// Batch collects changes that become durable together. It is not safe for
// concurrent use, and is spent after Commit.
type Batch struct {
	db  *DB
	b   *pebble.Batch
	val []byte
}

// NewBatch makes an empty batch.
func (db *DB) NewBatch() *Batch { return &Batch{db: db, b: db.s.NewBatch()} }

// PutTA stores a transaction with the size of its content.
func (b *Batch) PutTA(e *msg.Envelope, size int64) error {
	b.val = msg.AppendEnvelope(binary.AppendUvarint(b.val[:0], uint64(size)), e)
	return b.b.Set(taKey(prefixTA, e.TA), b.val, nil)
}

// Put stores the state of a recipient. old is its next time to try as it is in the
// database, or zero if it is not there. A batch takes one change of a recipient.
func (b *Batch) Put(st *State, old time.Time) error {
	if err := b.drop(st.TA, st.Index, old); err != nil {
		return err
	}
	b.val = appendState(b.val[:0], st)
	if err := b.b.Set(rcptKey(st.TA, st.Index), b.val, nil); err != nil {
		return err
	}
	if st.indexed() {
		if err := b.b.Set(waitKey(st.Dest, st.TA, st.Index), nil, nil); err != nil {
			return err
		}
	}
	return b.b.Set(dueKey(st.NextTry, st.TA, st.Index), nil, nil)
}

// End removes a recipient. due is its next time to try as it is in the database.
func (b *Batch) End(ta smtp.ID, index int, due time.Time) error {
	if err := b.drop(ta, index, due); err != nil {
		return err
	}
	return b.b.Delete(rcptKey(ta, index), nil)
}

// Forget removes a transaction that has no recipient any more.
func (b *Batch) Forget(ta smtp.ID) error { return b.b.Delete(taKey(prefixTA, ta), nil) }

// drop removes the index records of a recipient that is in the database.
func (b *Batch) drop(ta smtp.ID, index int, due time.Time) error {
	if due.IsZero() {
		return nil
	}
	if err := b.dropWait(ta, index); err != nil {
		return err
	}
	return b.b.Delete(dueKey(due, ta, index), nil)
}

// Commit makes the batch durable.
func (db *DB) Commit(b *Batch) error { return db.s.Commit(b.b) }

// Discard gives up a batch that was not committed.
func (b *Batch) Discard() { _ = b.b.Close() }

// TA reads a transaction and the size of its content. ok is false if it is not here.
func (db *DB) TA(ta smtp.ID) (e *msg.Envelope, size int64, ok bool, err error) {
	v, closer, err := db.s.Get(taKey(prefixTA, ta))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("reading the DEFEDB: %w", err)
	}
	defer closer.Close()
	e, size, err = decodeTA(v)
	if err != nil {
		return nil, 0, false, fmt.Errorf("%w: DEFEDB record of %v: %w", store.ErrDamaged, ta, err)
	}
	return e, size, true, nil
}

func decodeTA(v []byte) (*msg.Envelope, int64, error) {
	size, n := binary.Uvarint(v)
	if n <= 0 {
		return nil, 0, errShort
	}
	e, err := msg.DecodeEnvelope(v[n:])
	return e, int64(size), err
}

// Rcpts reads the states of all recipients of a transaction, in order.
func (db *DB) Rcpts(ta smtp.ID) ([]State, error) {
	lower := taKey(prefixRcpt, ta)
	var all []State
	err := db.scan(lower, successor(lower), func(k, v []byte) (bool, error) {
		st, err := decodeRcpt(k, v)
		all = append(all, st)
		return true, err
	})
	return all, err
}

// HasRcpts tells whether a transaction has a recipient.
func (db *DB) HasRcpts(ta smtp.ID) (has bool, err error) {
	lower := taKey(prefixRcpt, ta)
	err = db.scan(lower, successor(lower), func(_, _ []byte) (bool, error) {
		has = true
		return false, nil
	})
	return has, err
}

// Cursor is a place in the order of the next times to try.
type Cursor [1 + 8 + rcptLen]byte

// CursorAt is the place behind all recipients that are due before t.
func CursorAt(t time.Time) (c Cursor) {
	copy(c[:], dueKey(t, smtp.ID{}, 0))
	return c
}

// Before reports whether the cursor stands before all recipients that are due at t.
func (c *Cursor) Before(t time.Time) bool {
	return c[0] == 0 || bytes.Compare(c[1:9], timeBytes(t)) < 0
}

// Due calls f for recipients that are due at now or before, in order, behind the
// cursor, which it moves along, until f returns false. Recipients that become due
// again always come later than now, so the cursor need never go back if the clock
// never does.
func (db *DB) Due(now time.Time, c *Cursor, f func(State) bool) error {
	lower := []byte{prefixDue}
	if c[0] != 0 {
		lower = append(c[:], 0)
	}
	upper := append([]byte{prefixDue}, timeBytes(now.Add(1))...)
	return db.scan(lower, upper, func(k, _ []byte) (bool, error) {
		ta, index, err := splitRcpt(k[1+8:])
		if err != nil {
			return false, err
		}
		st, ok, err := db.state(ta, index)
		if err != nil {
			return false, err
		}
		copy(c[:], k)
		// An index record that does not fit the state is a rest of a crash.
		return !ok || !bytes.Equal(timeBytes(st.NextTry), k[1:9]) || f(st), nil
	})
}

// NextDue is the next time to try of the first recipient behind the cursor that is
// not held. ok is false if there is none.
func (db *DB) NextDue(c *Cursor) (next time.Time, ok bool, err error) {
	lower := []byte{prefixDue}
	if c[0] != 0 {
		lower = append(c[:], 0)
	}
	err = db.scan(lower, append([]byte{prefixDue}, timeBytes(Never())...), func(k, _ []byte) (bool, error) {
		if len(k) < 9 {
			return false, fmt.Errorf("%w: DEFEDB key %x is cut short", store.ErrDamaged, k)
		}
		next, ok = time.Unix(0, int64(binary.BigEndian.Uint64(k[1:]))), true
		return false, nil
	})
	return next, ok, err
}

// All calls f for the state of each recipient, in order of transaction and index,
// from the recipient on that is given, until f returns false.
func (db *DB) All(from smtp.ID, index int, f func(State) bool) error {
	return db.scan(rcptKey(from, index), []byte{prefixRcpt + 1}, func(k, v []byte) (bool, error) {
		st, err := decodeRcpt(k, v)
		if err != nil {
			return false, err
		}
		return f(st), nil
	})
}

// Oldest is the arrival of the transaction with the lowest id. ok is false if there is
// none.
func (db *DB) Oldest() (arrival time.Time, ok bool, err error) {
	err = db.scan([]byte{prefixTA}, []byte{prefixTA + 1}, func(_, v []byte) (bool, error) {
		e, _, err := decodeTA(v)
		if err == nil {
			arrival, ok = e.Arrival, true
		}
		return false, err
	})
	return arrival, ok, err
}

// Entry is a recipient and its transaction.
type Entry struct {
	State
	Envelope *msg.Envelope // shared by the recipients of a transaction; nil if it is not here
	Size     int64         // of the content, in bytes
}

// Entries is All with the transactions. Both are read in their order, so that the time
// for each recipient does not depend on how many there are.
func (db *DB) Entries(from smtp.ID, index int, f func(Entry) bool) error {
	tas, err := db.s.NewIter(&pebble.IterOptions{LowerBound: taKey(prefixTA, from), UpperBound: []byte{prefixTA + 1}})
	if err != nil {
		return fmt.Errorf("reading the DEFEDB: %w", err)
	}
	defer tas.Close()
	var e Entry
	known := false
	var failed error
	err = db.All(from, index, func(st State) bool {
		if !known || e.TA != st.TA {
			if e.Envelope, e.Size, failed = seekTA(tas, st.TA); failed != nil {
				return false
			}
		}
		known, e.State = true, st
		return f(e)
	})
	return errors.Join(err, failed)
}

// seekTA moves an iterator over transactions to one of them and reads it. The envelope
// is nil if it is not there.
func seekTA(it *pebble.Iterator, ta smtp.ID) (*msg.Envelope, int64, error) {
	k := taKey(prefixTA, ta)
	if !it.SeekGE(k) || !bytes.Equal(it.Key(), k) {
		if err := it.Error(); err != nil {
			return nil, 0, fmt.Errorf("reading the DEFEDB: %w", err)
		}
		return nil, 0, nil
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, 0, fmt.Errorf("reading the DEFEDB: %w", err)
	}
	e, size, err := decodeTA(v)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: DEFEDB record of %v: %w", store.ErrDamaged, ta, err)
	}
	return e, size, nil
}

// Counter counts the recipients that were there when it was made.
type Counter struct {
	it *pebble.Iterator
}

// Counter makes a counter. Count must be called, or the database cannot be closed.
func (db *DB) Counter() (*Counter, error) {
	it, err := db.s.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixDue}, UpperBound: []byte{prefixDue + 1}})
	if err != nil {
		return nil, fmt.Errorf("reading the DEFEDB: %w", err)
	}
	return &Counter{it: it}, nil
}

// Count counts, and ends with the error of ctx when that ends. It may be called once.
func (c *Counter) Count(ctx context.Context) (n int, err error) {
	defer c.it.Close() // it was only read
	for valid := c.it.First(); valid; valid = c.it.Next() {
		if n++; n%countStep == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
	}
	if err := c.it.Error(); err != nil {
		return n, fmt.Errorf("counting in the DEFEDB: %w", err)
	}
	return n, nil
}

// countStep is after how many keys a count looks whether it is still wanted.
const countStep = 4096

func (db *DB) state(ta smtp.ID, index int) (st State, ok bool, err error) {
	k := rcptKey(ta, index)
	v, closer, err := db.s.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return State{}, false, nil
	}
	if err != nil {
		return State{}, false, fmt.Errorf("reading the DEFEDB: %w", err)
	}
	defer closer.Close()
	st, err = decodeRcpt(k, v)
	return st, true, err
}

func (db *DB) scan(lower, upper []byte, f func(k, v []byte) (bool, error)) error {
	it, err := db.s.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("reading the DEFEDB: %w", err)
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("reading the DEFEDB: %w", err)
		}
		if more, err := f(it.Key(), v); err != nil || !more {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("reading the DEFEDB: %w", err)
	}
	return nil
}
