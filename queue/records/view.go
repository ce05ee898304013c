package records

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
)

// View is the store as it was at one moment. It is not safe for concurrent use, and must
// be closed before the store is. An error of one of its methods is one of the disk; what
// cannot be read because of what it says is in Broken.
type View struct {
	r         store.Reader // of snap
	snap      *pebble.Snapshot
	envelopes *pebble.Iterator // opened by Envelope
	counted   *pebble.Iterator // opened by Left
	last      lastEnvelope
	key       []byte        // of the envelope that was sought last
	spare     *msg.Envelope // takes every envelope that is read; nil: each is one of its own
	broken    []Broken
	known     map[string]bool // keys of broken
}

// lastEnvelope is the answer of the last call of Envelope: recipients of one message are
// mostly read in turn.
type lastEnvelope struct {
	ta   smtp.ID
	e    Envelope
	ok   bool
	used bool
}

// leftover reports whether a broken record is a well-formed index record.
func leftover(b *Broken) bool {
	k, ok := parseKey(b.Key)
	return ok && (k.Kind == KindDue || k.Kind == KindParked)
}

var (
	errLeftover   = errors.New("index record that fits no state")
	errNoEnvelope = errors.New("the envelope of its message is missing")
	errNoRcpt     = errors.New("the envelope of its message has no such recipient")
)

// brokenMax bounds the broken records that one view collects, messages counted as a whole.
// The next view finds the others.
const brokenMax = 1000

// View makes a view.
func (db *DB) View() *View {
	snap := db.s.NewSnapshot()
	return &View{r: db.s.ReaderOf(snap), snap: snap, known: map[string]bool{}}
}

// Close ends the view. Broken may still be called.
func (v *View) Close() error {
	var err error
	for _, it := range []*pebble.Iterator{v.envelopes, v.counted} {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	return errors.Join(err, v.snap.Close())
}

// Broken returns the broken records that were found and skipped so far.
func (v *View) Broken() []Broken { return v.broken }

func (v *View) addBroken(b Broken) {
	if !v.known[string(b.Key)] {
		v.known[string(b.Key)] = true
		v.broken = append(v.broken, b)
	}
}

// skip collects a broken record, unless there are too many.
func (v *View) skip(k, value []byte, err error, indexes ...[]byte) {
	if len(v.broken) < brokenMax {
		v.addBroken(Broken{Key: bytes.Clone(k), Value: bytes.Clone(value), Indexes: indexes, Err: err})
	}
}

// iter makes an iterator from lower on and before upper.
func (v *View) iter(lower, upper []byte) (*pebble.Iterator, error) {
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return it, readError(err)
}

func readError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading the queue's store: %w", err)
}

// each calls f for the records from lower on and before upper until it returns false.
func each(it *pebble.Iterator, lower, upper []byte, f func(k, value []byte) (bool, error)) error {
	for valid := it.SeekGE(lower); valid && bytes.Compare(it.Key(), upper) < 0; valid = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return readError(err)
		}
		if more, err := f(it.Key(), value); err != nil || !more {
			return err
		}
	}
	return readError(it.Error())
}

// Envelope reads the record of a message. ok is false if there is none that can be read.
func (v *View) Envelope(ta smtp.ID) (e Envelope, ok bool, err error) {
	if v.last.used && v.last.ta == ta {
		return v.last.e, v.last.ok, nil
	}
	value, found, err := v.seekEnvelope(ta)
	if err != nil {
		return Envelope{}, false, err
	}
	broken := errNoEnvelope
	if found {
		old := v.spare
		if old == nil {
			old = new(msg.Envelope)
		}
		e, broken = decodeInto(old, ta, value)
	}
	if broken != nil {
		if err := v.skipMessage(ta, value, broken); err != nil {
			return Envelope{}, false, err
		}
	}
	v.last = lastEnvelope{ta: ta, e: e, ok: broken == nil, used: true}
	return e, broken == nil, nil
}

// seekEnvelope moves an iterator to the record of a message: those of a list are read in
// their order, so that the time for each does not depend on how many there are.
func (v *View) seekEnvelope(ta smtp.ID) (value []byte, found bool, err error) {
	if v.envelopes == nil {
		if v.envelopes, err = v.iter([]byte{byte(KindEnvelope)}, []byte{byte(KindEnvelope) + 1}); err != nil {
			return nil, false, err
		}
	}
	k := appendTA(append(v.key[:0], byte(KindEnvelope)), ta)
	v.key = k
	if !v.near(k) && !v.envelopes.SeekGE(k) || !bytes.Equal(v.envelopes.Key(), k) {
		return nil, false, readError(v.envelopes.Error())
	}
	value, err = v.envelopes.ValueAndErr()
	return value, true, readError(err)
}

// near moves the iterator of the envelopes from the one that was read last to the next, and reports
// whether that is k: in a list of all deferred mail it is nearly always, and a search takes longer.
func (v *View) near(k []byte) bool {
	return v.last.used && v.envelopes.Valid() && bytes.Compare(v.envelopes.Key(), k) < 0 && v.envelopes.Next() && bytes.Equal(v.envelopes.Key(), k)
}

// skipMessage collects all records of a message, except its content: its envelope is
// missing, if value is nil, or cannot be read.
func (v *View) skipMessage(ta smtp.ID, value []byte, why error) error {
	if len(v.broken) >= brokenMax {
		return nil
	}
	if value != nil {
		v.addBroken(Broken{Key: messageKey(KindEnvelope, ta), Value: bytes.Clone(value), Err: why})
	}
	for _, kind := range []Kind{KindAccepted, KindEnded, KindDeferred} {
		lower := messageKey(kind, ta)
		err := v.r.Scan(lower, successor(lower), func(k, value []byte) (bool, error) {
			b := Broken{Key: bytes.Clone(k), Value: bytes.Clone(value), Err: why}
			if key, ok := parseKey(k); ok && kind == KindDeferred {
				if st, err := DecodeState(key.Ref, value); err == nil {
					b.Indexes = Indexes(&st)
				}
			}
			v.addBroken(b)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Loaded is a deferred recipient and its message.
type Loaded struct {
	State
	Envelope Envelope // shared by the recipients of a message
}

// load reads a recipient out of its record. ok is false if it is broken; index is the
// index record that led to it, if any.
func (v *View) load(k, value, index []byte) (l Loaded, ok bool, err error) {
	var indexes [][]byte
	if index != nil {
		indexes = [][]byte{bytes.Clone(index)}
	}
	key, broken := ParseKey(k)
	if broken == nil {
		l.State, broken = DecodeState(key.Ref, value)
	}
	if broken != nil {
		v.skip(k, value, broken, indexes...)
		return Loaded{}, false, nil
	}
	if l.Envelope, ok, err = v.Envelope(key.TA); err != nil || !ok {
		return Loaded{}, false, err
	}
	if key.Index >= len(l.Envelope.Rcpts) {
		v.skip(k, value, errNoRcpt, Indexes(&l.State)...)
		return Loaded{}, false, nil
	}
	return l, true, nil
}

// follow reads the recipient that an index record leads to.
func (v *View) follow(index, value []byte) (l Loaded, ok bool, err error) {
	key, broken := ParseKey(index)
	if broken != nil {
		v.skip(index, value, broken)
		return Loaded{}, false, nil
	}
	k := rcptKey(KindDeferred, key.Ref)
	state, ok, err := v.r.Get(k)
	if err != nil {
		return Loaded{}, false, err
	}
	if ok {
		if l, ok, err = v.load(k, state, index); err != nil || !ok {
			return Loaded{}, false, err
		}
		ok = contains(Indexes(&l.State), index)
	}
	if !ok {
		v.skip(index, value, errLeftover)
	}
	return l, ok, nil
}
