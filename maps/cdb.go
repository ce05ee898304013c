package maps

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// A cdb file (D. J. Bernstein's constant database, as tinycdb and Postfix write it),
// all numbers 32 bits, little endian:
//
//	256 pairs: offset and number of slots of a table
//	records:   length of key, length of value, key, value
//	tables:    slots of hash and offset of record, offset 0 for an empty slot
const cdbHeaderSize = 256 * 8

// CDB is a map of type cdb, held in memory.
type CDB struct {
	data          []byte
	end           uint32 // of the records
	caseSensitive bool
	nul           bool // keys and values end with NUL, as Postfix may write them
}

// OpenCDB reads a cdb file.
func OpenCDB(path string, caseSensitive bool) (*CDB, error) {
	data, err := readMap(path)
	if err != nil {
		return nil, err
	}
	m, err := newCDB(data, caseSensitive)
	if err != nil {
		return nil, fmt.Errorf("opening map %s: %w", path, err)
	}
	return m, nil
}

func newCDB(data []byte, caseSensitive bool) (*CDB, error) {
	if len(data) < cdbHeaderSize || uint64(len(data)) > 1<<32-1 {
		return nil, errors.New("not a cdb file")
	}
	m := &CDB{data: data, end: uint32(len(data)), caseSensitive: caseSensitive}
	for i := range 256 {
		pos, slots := m.pair(uint32(i) * 8)
		if uint64(pos) < cdbHeaderSize || uint64(pos)+uint64(slots)*8 > uint64(len(data)) {
			return nil, errors.New("not a cdb file, or a damaged one")
		}
		m.end = min(m.end, pos)
	}
	if key, _, _, ok := m.record(cdbHeaderSize); ok {
		m.nul = len(key) > 0 && key[len(key)-1] == 0
	}
	return m, nil
}

// pair reads two numbers; at must be in the file.
func (m *CDB) pair(at uint32) (a, b uint32) {
	return binary.LittleEndian.Uint32(m.data[at:]), binary.LittleEndian.Uint32(m.data[at+4:])
}

// record reads the record at an offset and gives the offset of the next one.
func (m *CDB) record(at uint32) (key, value []byte, next uint32, ok bool) {
	if at < cdbHeaderSize || uint64(at)+8 > uint64(m.end) {
		return nil, nil, 0, false
	}
	k, v := m.pair(at)
	start := uint64(at) + 8
	if start+uint64(k)+uint64(v) > uint64(m.end) {
		return nil, nil, 0, false
	}
	mid := start + uint64(k)
	return m.data[start:mid], m.data[mid : mid+uint64(v)], uint32(mid + uint64(v)), true
}

func cdbHash(key []byte, nul bool) uint32 {
	h := uint32(5381)
	for _, c := range key {
		h = (h<<5 + h) ^ uint32(c)
	}
	if nul {
		h = h<<5 + h // ^ 0
	}
	return h
}

// Blocking implements Map: everything is in memory.
func (m *CDB) Blocking() bool { return false }

// Lookup implements Map. Of several records with one key the first one counts.
func (m *CDB) Lookup(_ context.Context, key string) (string, Result) {
	return m.lookupBytes([]byte(key))
}

func (m *CDB) lookupBytes(want []byte) (string, Result) {
	if !m.caseSensitive {
		want = lowerBytes(want)
	}
	h := cdbHash(want, m.nul)
	pos, slots := m.pair(h % 256 * 8)
	if slots == 0 {
		return "", NotFound
	}
	for n, i := uint32(0), h>>8%slots; n < slots; n, i = n+1, (i+1)%slots {
		hash, at := m.pair(pos + i*8)
		if at == 0 {
			break
		}
		if hash != h {
			continue
		}
		k, v, _, ok := m.record(at)
		if !ok {
			return "map is damaged", Perm
		}
		if bytes.Equal(m.trim(k), want) && len(k) == len(want)+boolInt(m.nul) {
			return string(m.trim(v)), OK
		}
	}
	return "", NotFound
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// trim removes the NUL with which Postfix may end keys and values.
func (m *CDB) trim(b []byte) []byte {
	if m.nul {
		return bytes.TrimSuffix(b, []byte{0})
	}
	return b
}

// Each calls f for every entry in the order of the source until it returns an error.
func (m *CDB) Each(f func(key, value []byte) error) error {
	for at := uint32(cdbHeaderSize); at < m.end; {
		key, value, next, ok := m.record(at)
		if !ok {
			return errors.New("map is damaged: a record reaches beyond the end")
		}
		if err := f(m.trim(key), m.trim(value)); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// cdbBuilder collects entries for a cdb map.
type cdbBuilder struct {
	data   []byte
	tables [256][]cdbSlot
	seen   map[string]int // line by key
}

type cdbSlot struct{ hash, at uint32 }

func newCDBBuilder() *cdbBuilder {
	return &cdbBuilder{data: make([]byte, cdbHeaderSize), seen: map[string]int{}}
}

func (b *cdbBuilder) add(e Entry) error {
	if line, ok := b.seen[e.Key]; ok {
		return fmt.Errorf("key %q is already in line %d", e.Key, line)
	}
	if int64(len(b.data))+int64(len(e.Key))+int64(len(e.Value)) > 3<<30 {
		return errors.New("map becomes too large for a cdb file")
	}
	b.seen[e.Key] = e.Line
	h := cdbHash([]byte(e.Key), false)
	b.tables[h%256] = append(b.tables[h%256], cdbSlot{h, uint32(len(b.data))})
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(len(e.Key)))
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(len(e.Value)))
	b.data = append(append(b.data, e.Key...), e.Value...)
	return nil
}

func (b *cdbBuilder) finish() ([]byte, error) {
	for i, entries := range b.tables {
		slots := uint32(len(entries) * 2)
		binary.LittleEndian.PutUint32(b.data[i*8:], uint32(len(b.data)))
		binary.LittleEndian.PutUint32(b.data[i*8+4:], slots)
		table := make([]cdbSlot, slots)
		for _, e := range entries {
			at := e.hash >> 8 % slots
			for table[at].at != 0 {
				at = (at + 1) % slots
			}
			table[at] = e
		}
		for _, s := range table {
			b.data = binary.LittleEndian.AppendUint32(b.data, s.hash)
			b.data = binary.LittleEndian.AppendUint32(b.data, s.at)
		}
	}
	return b.data, nil
}
