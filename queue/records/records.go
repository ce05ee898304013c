// Package records is what the queue keeps on disk: one Pebble store, which holds every
// envelope, small content, and where each recipient stands. The IBDB and the DEFEDB of
// the MeTA1 README (7.1) are two key spaces of it, so that a recipient moves from the one
// to the other in one synced batch.
//
// # Keys
//
// TA is the nine bytes of the transaction's id, INDEX the recipient's index in four bytes,
// TIME nanoseconds since 1970 in eight, all big endian. DEST is preceded by its length in
// two bytes.
//
//	e TA             envelope, size of the content, and whether the content was put into
//	                 c TA: the message exists as long as this does. Written once.
//	c TA             the content, unless it is in a file (package cdb). Written once, with
//	                 e TA, and removed with it, or when it has been copied to a file: of the
//	                 two c TA counts
//	a TA             accepted: some recipients of the message are fresh, which means
//	                 neither deferred nor ended. Written once, with e TA
//	d TA INDEX       this recipient has ended; only beside a TA
//	r TA INDEX       state of a deferred recipient
//	n TIME TA INDEX  due index: this deferred recipient is due at TIME
//	p DEST TA INDEX  parked index: this deferred recipient is parked for DEST
//	x KEY            a record that could not be read, set aside with the key that it had;
//	                 never deleted unasked
//	m ids            upper bound of the ids that were ever handed out
//
// The values of a, d, n and p are empty.
//
// # Where a recipient stands
//
// A recipient is deferred if it has r; set aside if it has x r; ended if it has d, or if
// its message has no a and it has neither r nor x r; else it is fresh. Each move is one
// batch, so a crash leaves a recipient where it was or where it went. These rules hold
// after every batch; package fsck checks them:
//
//   - beside each a, d and r there is the e of its message, with a recipient of that index
//   - a recipient has one of d, r and x r at most
//   - each r has the n of its time, and, if it is parked, the p of its destination; there
//     is no other n or p
//   - c is there only if e says that it was put there; if it is not, there is the file
//
// # Records that cannot be read
//
// No read fails because of one record. What cannot be decoded, and what does not fit the
// rest, is collected (View.Broken) and skipped; the queue's journal moves it aside
// (Batch.SetAside) and goes on. If an envelope cannot be read, all records of its message
// go aside with it, except its content.
package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
)

// Version of the keys and values. store.Open refuses any other.
const Version = 3

// Name of the store in messages: the section of the configuration that says where it is.
const Name = "DEFEDB"

// DB is an open store of the queue. Its methods may be called from any goroutine.
type DB struct {
	s *store.Store
	r store.Reader // of s

	reading sync.RWMutex // held while Content reads; guards closed
	closed  bool
}

var errClosed = errors.New("the queue's store is closed")

// Open opens or creates the store in dir. See store.Open for the errors.
func Open(fsys vfs.FS, dir string, o store.Options) (*DB, error) {
	o.Name, o.Version = Name, Version
	s, err := store.Open(fsys, dir, o)
	if err != nil {
		return nil, err
	}
	return &DB{s: s, r: s.Reader()}, nil
}

// Close closes the store. All views must be closed before. Content may still be called,
// by a delivery that goes on; other methods may not.
func (db *DB) Close() error {
	db.reading.Lock()
	defer db.reading.Unlock()
	db.closed = true
	return db.s.Close()
}

// Store is the store below.
func (db *DB) Store() *store.Store { return db.s }

// Content reads the content of a message that is kept here. ok is false if there is none.
// After Close it is an error.
func (db *DB) Content(ta smtp.ID) (content []byte, ok bool, err error) {
	db.reading.RLock()
	defer db.reading.RUnlock()
	if db.closed {
		return nil, false, errClosed
	}
	content, ok, err = db.r.Get(messageKey(KindContent, ta))
	if err != nil {
		return nil, false, fmt.Errorf("reading content: %w", err)
	}
	return content, ok, nil
}

// ReserveIDs makes sure that no id below first+n is ever handed out by a later process,
// and returns the first of n ids for this one. The error wraps store.ErrDamaged if the
// record of the ids cannot be read: without it an id could be used twice.
func (db *DB) ReserveIDs(n uint64) (first uint64, err error) {
	v, ok, err := db.r.Get(idsKey)
	if err != nil {
		return 0, fmt.Errorf("reading the id counter: %w", err)
	}
	first = 1
	if ok {
		if first, err = DecodeIDs(v); err != nil {
			return 0, err
		}
	}
	if first+n < first {
		return 0, fmt.Errorf("%w: the id counter has come to its end: %d", store.ErrDamaged, first)
	}
	if err := db.s.Set(idsKey, EncodeIDs(first+n), pebble.Sync); err != nil {
		return 0, fmt.Errorf("reserving ids: %w", err)
	}
	return first, nil
}

// DecodeIDs reads the record of the ids: all below bound were perhaps handed out.
func DecodeIDs(v []byte) (bound uint64, err error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: the id counter has %d bytes", store.ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// EncodeIDs is the record that DecodeIDs reads.
func EncodeIDs(bound uint64) []byte { return binary.BigEndian.AppendUint64(nil, bound) }
