package records

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
)

// Batch collects changes that become durable together. It takes one change of a recipient
// at most, is not safe for concurrent use, and is spent after Commit.
//
// e, c and a of a message are written once and never again, because an id is never used
// twice. That makes Pebble's SingleDelete safe for them, and a message that is delivered
// at once never reaches a table on disk.
type Batch struct {
	db  *DB
	b   *pebble.Batch
	val []byte // room for a value
}

// NewBatch makes an empty batch.
func (db *DB) NewBatch() *Batch { return db.NewBatchOf(0) }

// NewBatchOf makes an empty batch that will have about size bytes: it has memory for them at once, and need not copy what
// is in it when it grows.
func (db *DB) NewBatchOf(size int) *Batch { return &Batch{db: db, b: db.s.Batch(size)} }

// Commit makes the batch durable: when it returns nil, a crash does not lose it. An error
// means that nothing in it may be acknowledged.
func (db *DB) Commit(b *Batch) error { return db.s.Commit(b.b) }

// Discard gives up a batch that was not committed.
func (b *Batch) Discard() { _ = b.b.Close() }

// Len is the size of the batch in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Accept adds a message, all of whose recipients are fresh. size is that of its content
// in bytes, which goes along unless inline is nil: then it must be in a durable file.
func (b *Batch) Accept(e *msg.Envelope, size int64, inline []byte) error {
	if err := b.message(e, size, inline); err != nil {
		return err
	}
	return b.b.Set(messageKey(KindAccepted, e.TA), nil, nil)
}

// AcceptHeld adds a message, all of whose recipients are held from the beginning: no crash
// lets one of them go. now is the time of the queue's clock, reason says why.
func (b *Batch) AcceptHeld(e *msg.Envelope, size int64, inline []byte, now time.Time, reason string) error {
	if err := b.message(e, size, inline); err != nil {
		return err
	}
	for i := range e.Rcpts {
		st := State{Ref: Ref{TA: e.TA, Index: i}, NextTry: entry.Never(), Stored: now, Held: true, Reason: reason}
		if err := b.Put(&st, nil); err != nil {
			return err
		}
	}
	return nil
}

// message adds the envelope and the content of a message.
func (b *Batch) message(e *msg.Envelope, size int64, inline []byte) error {
	if inline != nil && int64(len(inline)) != size {
		return fmt.Errorf("accepting %s: content of %d bytes is said to have %d", e.TA, len(inline), size)
	}
	if b.val == nil {
		b.val = make([]byte, 0, envelopeUsual)
	}
	b.val = AppendEnvelope(b.val[:0], &Envelope{Envelope: e, Size: size, Inline: inline != nil})
	if err := b.b.Set(messageKey(KindEnvelope, e.TA), b.val, nil); err != nil {
		return err
	}
	if inline != nil {
		return b.b.Set(messageKey(KindContent, e.TA), inline, nil)
	}
	return nil
}

// envelopeUsual is room for most envelopes.
const envelopeUsual = 256

// EndFresh records that a fresh recipient has ended while others of its message are fresh.
// The end of the last one is DropAccepted or Forget.
func (b *Batch) EndFresh(r Ref) error { return b.b.Set(rcptKey(KindEnded, r), nil, nil) }

// Put defers a recipient: it stores its state. old is the state that is in the store, nil
// if the recipient was fresh.
func (b *Batch) Put(st, old *State) error {
	v, err := AppendState(b.val[:0], st)
	if err != nil {
		return err
	}
	b.val = v
	if err := b.b.Set(rcptKey(KindDeferred, st.Ref), v, nil); err != nil {
		return err
	}
	keys := Indexes(st)
	var oldKeys [][]byte
	if old != nil {
		oldKeys = Indexes(old)
	}
	for _, k := range oldKeys {
		if contains(keys, k) {
			continue
		}
		if err := b.b.Delete(k, nil); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if contains(oldKeys, k) {
			continue
		}
		if err := b.b.Set(k, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// EndDeferred removes a deferred recipient. old is its state in the store. fresh says that
// its message still has fresh recipients: then a record must say that this one is none.
func (b *Batch) EndDeferred(old *State, fresh bool) error {
	if err := b.deleteAll(append(Indexes(old), rcptKey(KindDeferred, old.Ref))); err != nil || !fresh {
		return err
	}
	return b.EndFresh(old.Ref)
}

// DropAccepted records that no recipient of a message is fresh any more. ended are all that have
// ended so far.
func (b *Batch) DropAccepted(ta smtp.ID, ended []int) error {
	if err := b.b.SingleDelete(messageKey(KindAccepted, ta), nil); err != nil {
		return err
	}
	return b.deleteEnded(ta, ended)
}

// Spilled removes the content of a message, which is in a durable file.
func (b *Batch) Spilled(ta smtp.ID) error {
	return b.b.SingleDelete(messageKey(KindContent, ta), nil)
}

// Message says which records of a message are there beside its envelope.
type Message struct {
	Inline bool  // its content
	Fresh  bool  // a TA: DropAccepted was not called
	Ended  []int // if Fresh: the recipients that a record says of that they have ended
}

// Forget removes a message that has no recipient any more. A content file may be removed
// only after the commit.
func (b *Batch) Forget(ta smtp.ID, m Message) error {
	if m.Inline {
		if err := b.b.SingleDelete(messageKey(KindContent, ta), nil); err != nil {
			return err
		}
	}
	if m.Fresh {
		if err := b.DropAccepted(ta, m.Ended); err != nil {
			return err
		}
	}
	return b.b.SingleDelete(messageKey(KindEnvelope, ta), nil)
}

// rangeMin is from how many records on a range is deleted instead of each.
const rangeMin = 32

func (b *Batch) deleteEnded(ta smtp.ID, ended []int) error {
	if len(ended) >= rangeMin {
		lower := messageKey(KindEnded, ta)
		return b.b.DeleteRange(lower, successor(lower), nil)
	}
	for _, i := range ended {
		if err := b.b.Delete(rcptKey(KindEnded, Ref{TA: ta, Index: i}), nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) deleteAll(keys [][]byte) error {
	for _, k := range keys {
		if err := b.b.Delete(k, nil); err != nil {
			return err
		}
	}
	return nil
}

// SetAside moves a broken record to x KEY, and removes its index records, if they are
// known. An index record that fits no state says nothing, and is only removed. A record
// that is no longer as the view saw it is left alone.
func (b *Batch) SetAside(r Broken) error {
	v, ok, err := b.db.r.Get(r.Key)
	if err != nil {
		return fmt.Errorf("setting a record aside: %w", err)
	}
	if !ok || !bytes.Equal(v, r.Value) {
		return nil
	}
	if !leftover(&r) {
		if err := b.b.Set(asideKey(r.Key), r.Value, nil); err != nil {
			return err
		}
	}
	return b.deleteAll(append([][]byte{r.Key}, r.Indexes...))
}

// DropAside removes a record that was set aside; key is the one that it had. If it was of
// a recipient whose message has fresh ones, EndFresh must be called, too.
func (b *Batch) DropAside(key []byte) error { return b.b.Delete(asideKey(key), nil) }

// Set writes a record as it is, for meta1 fsck. What may be there is deleted first: of
// two values that were set, SingleDelete would bring the older one back.
func (b *Batch) Set(k, v []byte) error {
	if err := b.b.Delete(k, nil); err != nil {
		return err
	}
	return b.b.Set(k, v, nil)
}

// Delete removes a record as it is, for meta1 fsck.
func (b *Batch) Delete(k []byte) error { return b.b.Delete(k, nil) }
