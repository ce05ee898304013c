package defedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"meta1/mta/smtp"
	"meta1/queue/store"
)

var errShort = errors.New("record is cut short")

func appendTA(b []byte, ta smtp.ID) []byte {
	return append(binary.BigEndian.AppendUint64(b, ta.Counter), ta.Process)
}

func taKey(prefix byte, ta smtp.ID) []byte { return appendTA([]byte{prefix}, ta) }

func rcptKey(ta smtp.ID, index int) []byte {
	return binary.BigEndian.AppendUint32(taKey(prefixRcpt, ta), uint32(index))
}

func dueKey(due time.Time, ta smtp.ID, index int) []byte {
	k := append([]byte{prefixDue}, timeBytes(due)...)
	return binary.BigEndian.AppendUint32(appendTA(k, ta), uint32(index))
}

// timeBytes sorts as the times do, for times since 1970.
func timeBytes(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixNano(), 0)))
}

// successor is the first key behind all that begin with k.
func successor(k []byte) []byte {
	s := append([]byte(nil), k...)
	for i := len(s) - 1; i >= 0; i-- {
		if s[i]++; s[i] != 0 {
			return s[:i+1]
		}
	}
	return nil
}

// splitRcpt reads a transaction and a recipient's index.
func splitRcpt(k []byte) (smtp.ID, int, error) {
	if len(k) != rcptLen {
		return smtp.ID{}, 0, fmt.Errorf("%w: DEFEDB key %x has a wrong length", store.ErrDamaged, k)
	}
	ta := smtp.ID{Counter: binary.BigEndian.Uint64(k), Process: k[8]}
	return ta, int(binary.BigEndian.Uint32(k[taLen:])), nil
}

// Flags of a stored state.
const (
	flagDelayed = 1 << iota
	flagHeld
	flagWaits
	flagRoute
)

// waitedMax is the longest age that is taken from a record, in milliseconds.
const waitedMax = 1 << 43

func appendState(b []byte, st *State) []byte {
	var flags byte
	if st.Delayed {
		flags |= flagDelayed
	}
	if st.Held {
		flags |= flagHeld
	}
	if st.Waits {
		flags |= flagWaits
	}
	route := st.Route.storable()
	if route {
		flags |= flagRoute
	}
	b = append(b, flags)
	b = append(append(b, timeBytes(st.NextTry)...), timeBytes(st.Stored)...)
	b = binary.AppendUvarint(b, uint64(max(st.Waited, 0)/time.Millisecond))
	b = binary.AppendUvarint(b, uint64(st.Attempts))
	b = append(binary.AppendUvarint(b, uint64(len(st.Dest))), st.Dest...)
	if route {
		b = appendRoute(b, st.Route)
	}
	return append(b, st.Reason...)
}

func decodeRcpt(k, v []byte) (State, error) {
	if len(k) == 0 {
		return State{}, errShort
	}
	ta, index, err := splitRcpt(k[1:])
	if err != nil {
		return State{}, err
	}
	st := State{TA: ta, Index: index}
	if err := decodeState(v, &st); err != nil {
		return State{}, fmt.Errorf("%w: DEFEDB record of %s: %w", store.ErrDamaged, smtp.RcptID(ta, index), err)
	}
	return st, nil
}

func decodeState(v []byte, st *State) error {
	if len(v) < 17 {
		return errShort
	}
	st.Delayed, st.Held = v[0]&flagDelayed != 0, v[0]&flagHeld != 0
	st.Waits = v[0]&flagWaits != 0
	route := v[0]&flagRoute != 0
	st.NextTry, st.Stored = readTime(v[1:]), readTime(v[9:])
	v = v[17:]
	waited, n := binary.Uvarint(v)
	if n <= 0 || waited > waitedMax {
		return errShort
	}
	st.Waited, v = time.Duration(waited)*time.Millisecond, v[n:]
	attempts, n := binary.Uvarint(v)
	if n <= 0 {
		return errShort
	}
	st.Attempts, v = int(attempts), v[n:]
	l, n := binary.Uvarint(v)
	if n <= 0 || l > uint64(len(v)-n) {
		return errShort
	}
	st.Dest, v = string(v[n:n+int(l)]), v[n+int(l):]
	if route {
		var err error
		if st.Route, v, err = decodeRoute(v); err != nil {
			return err
		}
	}
	st.Reason = string(v)
	return nil
}
