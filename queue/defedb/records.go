package defedb

import (
	"encoding/binary"
	"fmt"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/store"
)

// Kind is what a record is.
type Kind byte

// The kinds of records.
const (
	KindStore Kind = 0 // of package store
	KindDue   Kind = prefixDue
	KindRcpt  Kind = prefixRcpt
	KindTA    Kind = prefixTA
	KindWait  Kind = prefixWait
)

// Key is a key taken apart. What is set depends on the kind.
type Key struct {
	Kind  Kind
	TA    smtp.ID
	Index int
	Time  time.Time // KindDue
	Dest  string    // KindWait
}

// ParseKey takes a key apart. The error says that this package never wrote it.
func ParseKey(k []byte) (key Key, err error) {
	bad := fmt.Errorf("%w: DEFEDB key %.40x has no known form", store.ErrDamaged, k)
	if len(k) == 0 {
		return Key{}, bad
	}
	key.Kind = Kind(k[0])
	rest := k[1:]
	switch key.Kind {
	case KindStore:
		if store.OwnKey(k) {
			return key, nil
		}
		return Key{}, bad
	case KindTA:
		if len(rest) != taLen {
			return Key{}, bad
		}
		key.TA = smtp.ID{Counter: binary.BigEndian.Uint64(rest), Process: rest[8]}
		return key, nil
	case KindDue:
		if len(rest) < 8 {
			return Key{}, bad
		}
		key.Time, rest = time.Unix(0, int64(binary.BigEndian.Uint64(rest))), rest[8:]
	case KindWait:
		if key.Dest, err = waitedFor(k); err != nil {
			return Key{}, err
		}
		rest = rest[2+len(key.Dest):]
	case KindRcpt:
	default:
		return Key{}, bad
	}
	if key.TA, key.Index, err = splitRcpt(rest); err != nil {
		return Key{}, bad
	}
	return key, nil
}

// Bytes puts a key together.
func (k Key) Bytes() []byte {
	switch k.Kind {
	case KindTA:
		return taKey(prefixTA, k.TA)
	case KindDue:
		return dueKey(k.Time, k.TA, k.Index)
	case KindWait:
		return waitKey(k.Dest, k.TA, k.Index)
	default:
		return rcptKey(k.TA, k.Index)
	}
}

// KnownKey tells whether a key has a form that this package writes.
func KnownKey(k []byte) bool {
	_, err := ParseKey(k)
	return err == nil
}

// DecodeRcpt reads the state of a recipient from its record.
func DecodeRcpt(k, v []byte) (State, error) { return decodeRcpt(k, v) }

// DecodeTA reads the envelope and the size of the content from a transaction's record.
func DecodeTA(v []byte) (*msg.Envelope, int64, error) { return decodeTA(v) }

// Indexes are the keys that must be there beside a recipient's state.
func (st *State) Indexes() [][]byte {
	keys := [][]byte{dueKey(st.NextTry, st.TA, st.Index)}
	if st.indexed() {
		keys = append(keys, waitKey(st.Dest, st.TA, st.Index))
	}
	return keys
}

// RcptRange are the bounds of the states of all recipients of a transaction.
func RcptRange(ta smtp.ID) (lower, upper []byte) {
	lower = taKey(prefixRcpt, ta)
	return lower, successor(lower)
}

// Store is the store below, for meta1 fsck.
func (db *DB) Store() *store.Store { return db.s }

// Set and Delete change a record as it is, for meta1 fsck.
func (b *Batch) Set(k, v []byte) error { return b.b.Set(k, v, nil) }

// Delete removes a record.
func (b *Batch) Delete(k []byte) error { return b.b.Delete(k, nil) }
