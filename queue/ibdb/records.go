package ibdb

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"meta1/mta/smtp"
	"meta1/queue/store"
)

// Kind is what a record is.
type Kind byte

// The kinds of records.
const (
	KindStore    Kind = 0 // of package store
	KindContent  Kind = prefixContent
	KindEnded    Kind = prefixEnded
	KindEnvelope Kind = prefixEnvelope
	KindIDs      Kind = 'm'
)

// Key is a key taken apart. TA and Index are set if the kind has them.
type Key struct {
	Kind  Kind
	TA    smtp.ID
	Index int
}

// ParseKey takes a key apart. The error says that this package never wrote it.
func ParseKey(k []byte) (Key, error) {
	bad := fmt.Errorf("%w: IBDB key %.40x has no known form", store.ErrDamaged, k)
	if len(k) == 0 {
		return Key{}, bad
	}
	key := Key{Kind: Kind(k[0])}
	want := 1 + taLen
	switch key.Kind {
	case KindStore:
		if store.OwnKey(k) {
			return key, nil
		}
		return Key{}, bad
	case KindIDs:
		if bytes.Equal(k, idsKey) {
			return key, nil
		}
		return Key{}, bad
	case KindEnded:
		want += 4
	case KindContent, KindEnvelope:
	default:
		return Key{}, bad
	}
	if len(k) != want {
		return Key{}, bad
	}
	key.TA = smtp.ID{Counter: binary.BigEndian.Uint64(k[1:]), Process: k[taLen]}
	if key.Kind == KindEnded {
		key.Index = int(binary.BigEndian.Uint32(k[1+taLen:]))
	}
	return key, nil
}

// Bytes puts a key together.
func (k Key) Bytes() []byte {
	var b Batch
	switch k.Kind {
	case KindEnded:
		return b.endKey(k.TA, k.Index)
	case KindIDs:
		return bytes.Clone(idsKey)
	default:
		return bytes.Clone(b.taKey(byte(k.Kind), k.TA))
	}
}

// KnownKey tells whether a key has a form that this package writes.
func KnownKey(k []byte) bool {
	_, err := ParseKey(k)
	return err == nil
}

// DecodeIDs reads the record of the ids: all below were perhaps handed out.
func DecodeIDs(v []byte) (bound uint64, err error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: the id counter has %d bytes", store.ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// EncodeIDs is the record that DecodeIDs reads.
func EncodeIDs(bound uint64) []byte { return binary.BigEndian.AppendUint64(nil, bound) }

// Store is the store below, for meta1 fsck.
func (db *DB) Store() *store.Store { return db.s }

// Set and Delete change a record as it is, for meta1 fsck.
func (b *Batch) Set(k, v []byte) error { return b.b.Set(k, v, nil) }

// Delete removes a record.
func (b *Batch) Delete(k []byte) error { return b.b.Delete(k, nil) }
