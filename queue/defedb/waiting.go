package defedb

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/smtp"
	"meta1/queue/store"
)

// destMax bounds the names of destinations in the index of those that are waited for.
const destMax = 1024

// waitPrefix begins the records of all that wait for a destination.
func waitPrefix(dest string) []byte {
	k := binary.BigEndian.AppendUint16([]byte{prefixWait}, uint16(len(dest)))
	return append(k, dest...)
}

func waitKey(dest string, ta smtp.ID, index int) []byte {
	return binary.BigEndian.AppendUint32(appendTA(waitPrefix(dest), ta), uint32(index))
}

// indexed tells whether a state has a record in the index by destination.
func (st *State) indexed() bool {
	return st.Waits && st.Dest != "" && len(st.Dest) <= destMax
}

// dropWait removes the record of the index that the present state of a recipient has.
func (b *Batch) dropWait(ta smtp.ID, index int) error {
	st, ok, err := b.db.state(ta, index)
	if err != nil || !ok || !st.indexed() {
		return err
	}
	return b.b.Delete(waitKey(st.Dest, ta, index), nil)
}

// Place is a place among the recipients that wait for one destination: behind the
// recipient that it names. The zero Place is before all.
type Place struct {
	TA    smtp.ID
	Index int
	used  bool
}

// Waiting calls f for the recipients that wait for a destination, those of the oldest
// transaction first, behind a place, which it moves along, until f returns false.
func (db *DB) Waiting(dest string, p *Place, f func(State) bool) error {
	lower := waitPrefix(dest)
	upper := successor(lower)
	if p.used {
		lower = append(waitKey(dest, p.TA, p.Index), 0)
	}
	n := len(waitPrefix(dest))
	return db.scan(lower, upper, func(k, _ []byte) (bool, error) {
		ta, index, err := splitRcpt(k[n:])
		if err != nil {
			return false, err
		}
		*p = Place{TA: ta, Index: index, used: true}
		st, ok, err := db.state(ta, index)
		if err != nil {
			return false, err
		}
		return !ok || !st.indexed() || st.Dest != dest || f(st), nil
	})
}

// WaitedFor calls f for the destinations that recipients wait for, until it returns
// false. It costs one search for each destination.
func (db *DB) WaitedFor(f func(dest string) bool) error {
	it, err := db.s.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixWait}, UpperBound: []byte{prefixWait + 1}})
	if err != nil {
		return fmt.Errorf("reading the DEFEDB: %w", err)
	}
	defer it.Close()
	for valid := it.First(); valid; {
		dest, err := waitedFor(it.Key())
		if err != nil {
			return err
		}
		next := successor(waitPrefix(dest))
		if !f(dest) {
			return nil
		}
		valid = it.SeekGE(next)
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("reading the DEFEDB: %w", err)
	}
	return nil
}

var errWaitKey = errors.New("record of a waiting recipient has a wrong length")

// waitedFor reads the destination in a key.
func waitedFor(k []byte) (string, error) {
	if len(k) < 3 || len(k) != 3+int(binary.BigEndian.Uint16(k[1:]))+rcptLen {
		return "", fmt.Errorf("%w: DEFEDB key %x: %w", store.ErrDamaged, k, errWaitKey)
	}
	return string(k[3 : len(k)-rcptLen]), nil
}
