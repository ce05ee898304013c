package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/queue/entry"
)

// The words that the active queue has, too.
type (
	Ref    = entry.Ref
	State  = entry.State
	Broken = entry.Broken
)

// Indexes are the keys of the index records that must be there beside a state.
func Indexes(st *State) [][]byte {
	keys := [][]byte{dueKey(st.NextTry, st.Ref)}
	if st.Parked {
		keys = append(keys, parkedKey(st.Dest, st.Ref))
	}
	return keys
}

// Envelope is a message as its record has it.
type Envelope struct {
	*msg.Envelope
	Size   int64 // of the content, in bytes
	Inline bool  // the content is in the store, not in a file
}

// The first byte of a state and of an envelope's record: a reader refuses any other.
const valueVersion = 1

// Flags of a stored state.
const (
	flagDelayed = 1 << iota
	flagHeld
	flagParked
	stateFlags = 1<<iota - 1
)

// flagInline of an envelope's record.
const flagInline = 1

// waitedMax is the longest age that is taken from a record, in milliseconds.
const waitedMax = 1 << 43

var (
	errShort = errors.New("record is cut short")
	errValue = errors.New("record has an impossible value")
)

// AppendState adds the value of a recipient's record to b. The error says that the state
// is not one that a recipient can have.
func AppendState(b []byte, st *State) ([]byte, error) {
	if err := st.Valid(); err != nil {
		return nil, fmt.Errorf("storing the state of %s: %w", st.Ref, err)
	}
	var flags byte
	if st.Delayed {
		flags |= flagDelayed
	}
	if st.Held {
		flags |= flagHeld
	}
	if st.Parked {
		flags |= flagParked
	}
	b = append(b, valueVersion, flags)
	b = appendTime(appendTime(b, st.NextTry), st.Stored)
	b = binary.AppendUvarint(b, uint64(min(max(st.Waited/time.Millisecond, 0), waitedMax)))
	b = binary.AppendUvarint(b, uint64(st.Attempts))
	b = append(binary.AppendUvarint(b, uint64(len(st.Dest))), st.Dest...)
	return append(binary.AppendUvarint(b, uint64(len(st.Reason))), st.Reason...), nil
}

// DecodeState reads the record of a deferred recipient. The error wraps store.ErrDamaged.
func DecodeState(r Ref, v []byte) (State, error) {
	st := State{Ref: r}
	if err := decodeState(&st, v); err != nil {
		return State{}, fmt.Errorf("%w: state of %s: %w", store.ErrDamaged, r, err)
	}
	return st, nil
}

func decodeState(st *State, v []byte) error {
	v, flags, err := header(v, stateFlags)
	if err != nil {
		return err
	}
	st.Delayed, st.Held, st.Parked = flags&flagDelayed != 0, flags&flagHeld != 0, flags&flagParked != 0
	if len(v) < 2*timeLen {
		return errShort
	}
	st.NextTry, st.Stored, v = readTime(v), readTime(v[timeLen:]), v[2*timeLen:]
	if st.NextTry.Before(time.Unix(0, 0)) || st.Stored.Before(time.Unix(0, 0)) {
		return errValue
	}
	waited, v, err := number(v, waitedMax)
	if err != nil {
		return err
	}
	st.Waited = time.Duration(waited) * time.Millisecond
	attempts, v, err := number(v, math.MaxInt32)
	if err != nil {
		return err
	}
	st.Attempts = int(attempts)
	both := string(v) // one piece of memory for two strings
	if st.Dest, v, err = text(both, v); err != nil {
		return err
	}
	if st.Reason, v, err = text(both, v); err != nil {
		return err
	}
	if len(v) > 0 {
		return fmt.Errorf("record has %d bytes too many", len(v))
	}
	return st.Valid()
}

// AppendEnvelope adds the value of a message's record to b.
func AppendEnvelope(b []byte, e *Envelope) []byte {
	var flags byte
	if e.Inline {
		flags |= flagInline
	}
	b = binary.AppendUvarint(append(b, valueVersion, flags), uint64(max(e.Size, 0)))
	return msg.AppendEnvelope(b, e.Envelope)
}

// DecodeEnvelope reads the record of a message. The error wraps store.ErrDamaged.
func DecodeEnvelope(ta smtp.ID, v []byte) (Envelope, error) {
	return decodeInto(new(msg.Envelope), ta, v)
}

// decodeInto is DecodeEnvelope with the memory of an envelope that nobody needs any more.
func decodeInto(old *msg.Envelope, ta smtp.ID, v []byte) (Envelope, error) {
	e, err := decodeEnvelope(old, ta, v)
	if err != nil {
		return Envelope{}, fmt.Errorf("%w: envelope of %s: %w", store.ErrDamaged, ta, err)
	}
	return e, nil
}

func decodeEnvelope(old *msg.Envelope, ta smtp.ID, v []byte) (e Envelope, err error) {
	v, flags, err := header(v, flagInline)
	if err != nil {
		return Envelope{}, err
	}
	e.Inline = flags&flagInline != 0
	size, v, err := number(v, math.MaxInt64)
	if err != nil {
		return Envelope{}, err
	}
	e.Size = int64(size)
	if err := msg.DecodeEnvelopeInto(old, v); err != nil {
		return Envelope{}, err
	}
	e.Envelope = old
	if e.TA != ta {
		return Envelope{}, fmt.Errorf("it says that it belongs to %s", e.TA)
	}
	return e, nil
}

// header reads the version and the flags of a value.
func header(v []byte, known byte) (rest []byte, flags byte, err error) {
	switch {
	case len(v) < 2:
		return nil, 0, errShort
	case v[0] != valueVersion:
		return nil, 0, fmt.Errorf("record has version %d; this program reads version %d", v[0], valueVersion)
	case v[1]&^known != 0:
		return nil, 0, errValue
	}
	return v[2:], v[1], nil
}

// number reads a number from the front of v.
func number(v []byte, most uint64) (n uint64, rest []byte, err error) {
	n, l := binary.Uvarint(v)
	switch {
	case l == 0:
		return 0, nil, errShort
	case l < 0 || n > most:
		return 0, nil, errValue
	}
	return n, v[l:], nil
}

// text reads a string and its length from the front of v, which all ends as v does: the string is a part
// of all.
func text(all string, v []byte) (s string, rest []byte, err error) {
	n, v, err := number(v, math.MaxInt32)
	if err != nil {
		return "", nil, err
	}
	if n > uint64(len(v)) {
		return "", nil, errShort
	}
	from := len(all) - len(v)
	return all[from : from+int(n)], v[n:], nil
}

// contains reports whether a key is among others.
func contains(keys [][]byte, k []byte) bool {
	return slices.ContainsFunc(keys, func(o []byte) bool { return bytes.Equal(o, k) })
}
