package records

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/queue/entry"
)

// Kind is what a record is: the first byte of its key.
type Kind byte

// The kinds of records; see the package comment.
const (
	KindStore    Kind = 0 // of package store
	KindAccepted Kind = 'a'
	KindContent  Kind = 'c'
	KindEnded    Kind = 'd'
	KindEnvelope Kind = 'e'
	KindIDs      Kind = 'm'
	KindDue      Kind = 'n'
	KindParked   Kind = 'p'
	KindDeferred Kind = 'r'
	KindAside    Kind = 'x'
)

const (
	taLen   = 9
	refLen  = taLen + 4
	timeLen = 8
)

var idsKey = []byte("m ids")

// Key is a key taken apart. What is set depends on the kind.
type Key struct {
	Kind Kind
	Ref            // Index only if the kind has one
	Time time.Time // KindDue
	Dest string    // KindParked
	Old  string    // KindAside: the key that the record had
}

// ParseKey takes a key apart. The error says that this package never wrote it.
func ParseKey(k []byte) (Key, error) {
	key, ok := parseKey(k)
	if !ok {
		return Key{}, fmt.Errorf("%w: key %.40x has no known form", store.ErrDamaged, k)
	}
	return key, nil
}

func parseKey(k []byte) (key Key, ok bool) {
	if len(k) == 0 {
		return Key{}, false
	}
	key.Kind = Kind(k[0])
	rest := k[1:]
	switch key.Kind {
	case KindStore:
		return key, store.OwnKey(k)
	case KindIDs:
		return key, bytes.Equal(k, idsKey)
	case KindAside:
		key.Old = string(rest)
		return key, len(rest) > 0
	case KindAccepted, KindContent, KindEnvelope:
		key.TA, ok = parseTA(rest)
		return key, ok && len(rest) == taLen
	case KindEnded, KindDeferred:
		key.Ref, ok = parseRef(rest)
		return key, ok
	case KindDue:
		if len(rest) < timeLen || binary.BigEndian.Uint64(rest) > math.MaxInt64 {
			return key, false
		}
		key.Time = readTime(rest)
		key.Ref, ok = parseRef(rest[timeLen:])
		return key, ok
	case KindParked:
		if len(rest) < 2+refLen {
			return key, false
		}
		dest := rest[2 : len(rest)-refLen]
		if len(dest) != int(binary.BigEndian.Uint16(rest)) || len(dest) == 0 || len(dest) > entry.DestMax {
			return key, false
		}
		key.Dest = string(dest)
		key.Ref, ok = parseRef(rest[2+len(dest):])
		return key, ok
	default:
		return key, false
	}
}

func parseTA(b []byte) (smtp.ID, bool) {
	if len(b) < taLen {
		return smtp.ID{}, false
	}
	return smtp.ID{Counter: binary.BigEndian.Uint64(b), Process: b[8]}, true
}

func parseRef(b []byte) (Ref, bool) {
	if len(b) != refLen || binary.BigEndian.Uint32(b[taLen:]) > math.MaxInt32 {
		return Ref{}, false
	}
	ta, _ := parseTA(b)
	return Ref{TA: ta, Index: int(binary.BigEndian.Uint32(b[taLen:]))}, true
}

// KnownKey reports whether a key has a form that this package writes.
func KnownKey(k []byte) bool {
	_, ok := parseKey(k)
	return ok
}

// Bytes puts a key together. It is nil for KindStore.
func (k Key) Bytes() []byte {
	switch k.Kind {
	case KindAccepted, KindContent, KindEnvelope:
		return messageKey(k.Kind, k.TA)
	case KindEnded, KindDeferred:
		return rcptKey(k.Kind, k.Ref)
	case KindDue:
		return dueKey(k.Time, k.Ref)
	case KindParked:
		return parkedKey(k.Dest, k.Ref)
	case KindAside:
		return asideKey([]byte(k.Old))
	case KindIDs:
		return bytes.Clone(idsKey)
	default:
		return nil
	}
}

func appendTA(b []byte, ta smtp.ID) []byte {
	return append(binary.BigEndian.AppendUint64(b, ta.Counter), ta.Process)
}

func appendRef(b []byte, r Ref) []byte {
	return binary.BigEndian.AppendUint32(appendTA(b, r.TA), uint32(r.Index))
}

func messageKey(k Kind, ta smtp.ID) []byte {
	return appendTA(append(make([]byte, 0, 1+taLen), byte(k)), ta)
}

func rcptKey(k Kind, r Ref) []byte {
	return appendRef(append(make([]byte, 0, 1+refLen), byte(k)), r)
}

func dueKey(t time.Time, r Ref) []byte {
	return appendRef(appendTime(append(make([]byte, 0, 1+timeLen+refLen), byte(KindDue)), t), r)
}

// parkedPrefix begins the keys of all recipients that are parked for a destination.
func parkedPrefix(dest string) []byte {
	k := binary.BigEndian.AppendUint16([]byte{byte(KindParked)}, uint16(len(dest)))
	return append(k, dest...)
}

func parkedKey(dest string, r Ref) []byte { return appendRef(parkedPrefix(dest), r) }

func asideKey(old []byte) []byte { return append([]byte{byte(KindAside)}, old...) }

// successor is the first key behind all that begin with k.
func successor(k []byte) []byte {
	s := bytes.Clone(k)
	for i := len(s) - 1; i >= 0; i-- {
		if s[i]++; s[i] != 0 {
			return s[:i+1]
		}
	}
	return nil
}

// appendTime adds a time such that bytes sort as times do. Times before 1970 and after
// entry.Never are taken for these.
func appendTime(b []byte, t time.Time) []byte {
	var n int64
	switch {
	case t.After(entry.Never()):
		n = math.MaxInt64
	case t.After(time.Unix(0, 0)):
		n = t.UnixNano()
	}
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

func readTime(b []byte) time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(b))) }
