package maps

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A cdb file (D. J. Bernstein's constant database, as tinycdb and Postfix write it),
// all numbers 32 bits, little endian:
//
//	256 pairs: offset and number of slots of a table
//	records:   length of key, length of value, key, value
//	tables:    slots of hash and offset of record, offset 0 for an empty slot
//
// Create adds a trailer, which other readers do not look at: "meta1map", a number of
// flags, and the CRC-32C of all that stands before the trailer.
const (
	cdbHeaderSize  = 256 * 8
	cdbTrailer     = "meta1map"
	cdbTrailerSize = len(cdbTrailer) + 8

	cdbCaseSensitive = 1 // flag: keys stand as they were written
)

// MaxMapFile is the size up to which a map file is read, in bytes.
const MaxMapFile = 4 << 30

// CDB is a map of type hash or cdb: a cdb file, held in memory.
type CDB struct {
	data          []byte
	end           uint32 // of the records
	caseSensitive bool
	nul           bool // keys and values end with NUL, as Postfix may write them
}

// OpenCDB reads a cdb file and checks it: that all of it is there, and for a file that
// Create made that no bit of it has changed. Such a file says itself whether its keys
// are case sensitive; caseSensitive is for those that others made.
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

// readMap reads a whole map file.
func readMap(path string) ([]byte, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	if info.Size() > MaxMapFile || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening map %s: not a file of at most 4 GB", path)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("reading map %s: %w", path, err)
	}
	return data, nil
}

func newCDB(data []byte, caseSensitive bool) (*CDB, error) {
	if kind := berkeley(data); kind != "" {
		return nil, fmt.Errorf("this is a Berkeley DB %s file, which meta1 cannot read: make it again from its text with "+
			"\"meta1 createmap -F FILE < TEXT\", or with \"db_dump -p FILE | meta1 createmap -F NEWFILE\"", kind)
	}
	if len(data) < cdbHeaderSize || uint64(len(data)) > 1<<32-1 {
		return nil, errNoCDB
	}
	m := &CDB{data: data, end: uint32(len(data)), caseSensitive: caseSensitive}
	for i := range 256 {
		pos, slots := m.pair(uint32(i) * 8)
		if uint64(pos) < cdbHeaderSize || uint64(pos)+uint64(slots)*8 > uint64(len(data)) {
			return nil, errNoCDB
		}
		m.end = min(m.end, pos)
	}
	if body, trailer := data[:len(data)-cdbTrailerSize], data[len(data)-cdbTrailerSize:]; string(trailer[:len(cdbTrailer)]) == cdbTrailer {
		flags, sum := binary.LittleEndian.Uint32(trailer[len(cdbTrailer):]), binary.LittleEndian.Uint32(trailer[len(cdbTrailer)+4:])
		if crc32.Checksum(body, castagnoli()) != sum {
			return nil, errors.New("map is damaged: its checksum is wrong")
		}
		m.caseSensitive = flags&cdbCaseSensitive != 0
		return m, nil
	}
	if key, _, _, ok := m.record(cdbHeaderSize); ok {
		m.nul = len(key) > 0 && key[len(key)-1] == 0
	}
	return m, nil
}

var errNoCDB = errors.New("not a cdb file, or a damaged one: make it with meta1 createmap")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// berkeley recognises Berkeley DB files by the magic number at offset 12, in either
// byte order; "" means it is none.
func berkeley(data []byte) string {
	if len(data) < 16 {
		return ""
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(data[12:]) {
		case 0x00061561:
			return "hash"
		case 0x00053162:
			return "btree"
		}
	}
	return ""
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

func cdbHash[T string | []byte](key T, nul bool) uint32 {
	h := uint32(5381)
	for i := 0; i < len(key); i++ {
		h = (h<<5 + h) ^ uint32(key[i])
	}
	if nul {
		h = h<<5 + h // ^ 0
	}
	return h
}

// CaseSensitive reports whether keys are looked up as they are.
func (m *CDB) CaseSensitive() bool { return m.caseSensitive }

// Blocking implements Map: everything is in memory.
func (m *CDB) Blocking() bool { return false }

// Lookup implements Map. Of several records with one key the first one counts.
func (m *CDB) Lookup(_ context.Context, key string) (string, Result) {
	if !m.caseSensitive {
		key = Lower(key)
	}
	return lookupCDB(m, key)
}

func (m *CDB) lookupBytes(key []byte) (string, Result) {
	if !m.caseSensitive {
		key = lowerBytes(key)
	}
	return lookupCDB(m, key)
}

// lookupCDB looks a key up as it is, then without a colon at its end.
func lookupCDB[T string | []byte](m *CDB, key T) (string, Result) {
	value, r := findCDB(m, key)
	if bare, ok := withoutColon(key); ok && r == NotFound {
		return findCDB(m, bare)
	}
	return value, r
}

func findCDB[T string | []byte](m *CDB, want T) (string, Result) {
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
		if m.nul {
			if len(k) == 0 || k[len(k)-1] != 0 {
				continue
			}
			k = k[:len(k)-1]
		}
		if string(k) == string(want) {
			return string(m.trim(v)), OK
		}
	}
	return "", NotFound
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
	file          string // of the source, for messages
	caseSensitive bool
	data          []byte
	tables        [256][]cdbSlot
}

// cdbSlot is a slot of a table, with the line of its entry; at is 0 for an empty one.
type cdbSlot struct {
	hash, at uint32
	line     int32
}

func newCDBBuilder(file string, caseSensitive bool) *cdbBuilder {
	return &cdbBuilder{file: file, caseSensitive: caseSensitive, data: make([]byte, cdbHeaderSize)}
}

func (b *cdbBuilder) add(e Entry) error {
	if int64(len(b.data))+int64(len(e.Key))+int64(len(e.Value)) > 3<<30 {
		return errors.New("map becomes too large for a cdb file")
	}
	h := cdbHash(e.Key, false)
	b.tables[h%256] = append(b.tables[h%256], cdbSlot{h, uint32(len(b.data)), int32(e.Line)})
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(len(e.Key)))
	b.data = binary.LittleEndian.AppendUint32(b.data, uint32(len(e.Value)))
	b.data = append(append(b.data, e.Key...), e.Value...)
	return nil
}

// finish makes the tables. Keys that stand twice are errors, up to maxErrors of them.
func (b *cdbBuilder) finish() ([]byte, error) {
	var bad []error
	records := CDB{data: b.data, end: uint32(len(b.data))}
	for i, entries := range b.tables {
		slots := uint32(len(entries) * 2)
		binary.LittleEndian.PutUint32(b.data[i*8:], uint32(len(b.data)))
		binary.LittleEndian.PutUint32(b.data[i*8+4:], slots)
		table := make([]cdbSlot, slots)
		for _, e := range entries {
			at := e.hash >> 8 % slots
			for ; table[at].at != 0; at = (at + 1) % slots {
				if table[at].hash == e.hash && records.sameKey(table[at].at, e.at) && len(bad) < maxErrors {
					key, _, _, _ := records.record(e.at)
					bad = append(bad, &LineError{b.file, int(e.line), fmt.Errorf("key %q is already in line %d", key, table[at].line)})
				}
			}
			table[at] = e
		}
		for _, s := range table {
			b.data = binary.LittleEndian.AppendUint32(b.data, s.hash)
			b.data = binary.LittleEndian.AppendUint32(b.data, s.at)
		}
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	flags := uint32(0)
	if b.caseSensitive {
		flags |= cdbCaseSensitive
	}
	sum := crc32.Checksum(b.data, castagnoli())
	b.data = append(b.data, cdbTrailer...)
	b.data = binary.LittleEndian.AppendUint32(b.data, flags)
	return binary.LittleEndian.AppendUint32(b.data, sum), nil
}

func (m *CDB) sameKey(a, b uint32) bool {
	x, _, _, _ := m.record(a)
	y, _, _, _ := m.record(b)
	return bytes.Equal(x, y)
}
