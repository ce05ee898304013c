package maps

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"os"
)

// A hash map's file, all numbers little endian:
//
//	header   64 bytes, see hashHeader
//	records  varint length of key, varint length of value, key, value
//	table    a power of two of slots of 8 bytes: the upper 24 bits of the key's hash,
//	         and 40 bits of the offset of its record, 0 for an empty slot
//
// A key is searched from the slot that its hash names onwards (open addressing, at
// most two thirds full). The header has a checksum of all that follows it.
const (
	hashMagic      = "META1MAP"
	hashVersion    = 1
	hashHeaderSize = 64
	slotSize       = 8
	offsetBits     = 40
	offsetMask     = 1<<offsetBits - 1

	flagCaseSensitive = 1
)

// MaxMapFile is the size up to which a map file is read, in bytes.
const MaxMapFile = 4 << 30

// hashHeader is the first 64 bytes of a hash map: magic, version, flags, and these.
type hashHeader struct {
	flags   uint32
	entries uint64
	slots   uint64
	table   uint64 // offset of the table
	size    uint64 // of the file
	sum     uint32 // CRC-32C of everything after the header
}

func (h *hashHeader) append(b []byte) []byte {
	start := len(b)
	b = append(b, hashMagic...)
	b = binary.LittleEndian.AppendUint32(b, hashVersion)
	b = binary.LittleEndian.AppendUint32(b, h.flags)
	b = binary.LittleEndian.AppendUint64(b, h.entries)
	b = binary.LittleEndian.AppendUint64(b, h.slots)
	b = binary.LittleEndian.AppendUint64(b, h.table)
	b = binary.LittleEndian.AppendUint64(b, h.size)
	b = binary.LittleEndian.AppendUint32(b, h.sum)
	return append(b, make([]byte, hashHeaderSize-(len(b)-start))...)
}

func parseHashHeader(b []byte) (h hashHeader, err error) {
	if len(b) < hashHeaderSize || string(b[:8]) != hashMagic {
		return h, errors.New("not a map made by meta1 createmap")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != hashVersion {
		return h, fmt.Errorf("map has format version %d, this program knows version %d: make it again with createmap", v, hashVersion)
	}
	h.flags = binary.LittleEndian.Uint32(b[12:])
	h.entries = binary.LittleEndian.Uint64(b[16:])
	h.slots = binary.LittleEndian.Uint64(b[24:])
	h.table = binary.LittleEndian.Uint64(b[32:])
	h.size = binary.LittleEndian.Uint64(b[40:])
	h.sum = binary.LittleEndian.Uint32(b[48:])
	switch {
	case h.size != uint64(len(b)):
		return h, fmt.Errorf("map is damaged: it has %d bytes, its header says %d", len(b), h.size)
	case bits.OnesCount64(h.slots) != 1, h.entries >= h.slots, h.slots > math.MaxInt32,
		h.table < hashHeaderSize, h.table > h.size, h.size-h.table != h.slots*slotSize:
		return h, errors.New("map is damaged: its header contradicts itself")
	}
	return h, nil
}

// hashKey is FNV-1a with a final mix, so that the low bits, which choose the slot,
// depend on all of the key.
func hashKey[T string | []byte](key T) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(key); i++ {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// Hash is a map of type hash: a file made by Create, held in memory.
type Hash struct {
	header hashHeader
	data   []byte // the whole file
	table  []byte
}

// OpenHash reads a hash map and checks it completely.
func OpenHash(path string) (*Hash, error) {
	data, err := readMap(path)
	if err != nil {
		return nil, err
	}
	m, err := newHash(data)
	if err != nil {
		return nil, fmt.Errorf("opening map %s: %w", path, err)
	}
	return m, nil
}

// readMap reads a whole map file.
func readMap(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening map: %w", err)
	}
	if info.Size() > MaxMapFile || info.IsDir() {
		return nil, fmt.Errorf("opening map %s: not a file of at most 4 GB", path)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("reading map %s: %w", path, err)
	}
	return data, nil
}

func newHash(data []byte) (*Hash, error) {
	if kind := berkeley(data); kind != "" {
		return nil, fmt.Errorf("this is a Berkeley DB %s file, which meta1 cannot read: make it again from its text with "+
			"\"meta1 createmap -F FILE < TEXT\", or with \"db_dump -p FILE | meta1 createmap -F NEWFILE\"", kind)
	}
	h, err := parseHashHeader(data)
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(data[hashHeaderSize:], castagnoli()) != h.sum {
		return nil, errors.New("map is damaged: its checksum is wrong")
	}
	return &Hash{header: h, data: data, table: data[h.table:]}, nil
}

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

// CaseSensitive reports whether keys are looked up as they are.
func (m *Hash) CaseSensitive() bool { return m.header.flags&flagCaseSensitive != 0 }

// Len is the number of entries.
func (m *Hash) Len() int { return int(m.header.entries) }

// Blocking implements Map: everything is in memory.
func (m *Hash) Blocking() bool { return false }

// Lookup implements Map.
func (m *Hash) Lookup(_ context.Context, key string) (string, Result) {
	if !m.CaseSensitive() {
		key = Lower(key)
	}
	return lookupHash(m, key)
}

func (m *Hash) lookupBytes(key []byte) (string, Result) {
	if !m.CaseSensitive() {
		key = lowerBytes(key)
	}
	return lookupHash(m, key)
}

func lookupHash[T string | []byte](m *Hash, key T) (string, Result) {
	h := hashKey(key)
	mask := m.header.slots - 1
	for i, n := h&mask, uint64(0); n <= mask; i, n = (i+1)&mask, n+1 {
		slot := binary.LittleEndian.Uint64(m.table[i*slotSize:])
		if slot == 0 {
			break
		}
		if slot>>offsetBits != h>>offsetBits {
			continue
		}
		k, v, _, ok := m.record(slot & offsetMask)
		if !ok {
			return "map is damaged", Perm
		}
		if string(k) == string(key) {
			return string(v), OK
		}
	}
	return "", NotFound
}

// record reads the record at an offset and gives the offset of the next one.
func (m *Hash) record(offset uint64) (key, value []byte, next uint64, ok bool) {
	if offset < hashHeaderSize || offset >= m.header.table {
		return nil, nil, 0, false
	}
	b := m.data[offset:m.header.table]
	k, n := binary.Uvarint(b)
	v, n2 := binary.Uvarint(b[max(n, 0):])
	n += n2
	if n2 <= 0 || n < 2 || k > uint64(len(b)-n) || v > uint64(len(b)-n)-k {
		return nil, nil, 0, false
	}
	end := uint64(n) + k + v
	return b[n : uint64(n)+k], b[uint64(n)+k : end], offset + end, true
}

// Each calls f for every entry in the order of the source until it returns an error.
func (m *Hash) Each(f func(key, value []byte) error) error {
	for at := uint64(hashHeaderSize); at < m.header.table; {
		key, value, next, ok := m.record(at)
		if !ok {
			return errors.New("map is damaged: a record reaches beyond the end")
		}
		if err := f(key, value); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// hashBuilder collects entries for a hash map.
type hashBuilder struct {
	caseSensitive bool
	data          []byte // header and records
	offsets       []uint64
	lines         []int32
	file          string
}

func newHashBuilder(file string, caseSensitive bool) *hashBuilder {
	return &hashBuilder{file: file, caseSensitive: caseSensitive, data: make([]byte, hashHeaderSize)}
}

func (b *hashBuilder) add(e Entry) error {
	if uint64(len(b.data)) > MaxMapFile/2 {
		return errors.New("map becomes too large")
	}
	b.offsets = append(b.offsets, uint64(len(b.data)))
	b.lines = append(b.lines, int32(e.Line))
	b.data = binary.AppendUvarint(b.data, uint64(len(e.Key)))
	b.data = binary.AppendUvarint(b.data, uint64(len(e.Value)))
	b.data = append(append(b.data, e.Key...), e.Value...)
	return nil
}

// finish makes the table and the header. Keys that stand twice are errors.
func (b *hashBuilder) finish() ([]byte, error) {
	slots := uint64(4)
	for slots*2 < uint64(len(b.offsets))*3 {
		slots *= 2
	}
	records := b.data
	m := Hash{data: records, header: hashHeader{table: uint64(len(records))}}
	table := make([]uint64, slots)
	owner := make([]int32, slots) // entry of each slot, for its line
	var bad []error
	for i, offset := range b.offsets {
		key, _, _, _ := m.record(offset)
		h := hashKey(key)
		at := h & (slots - 1)
		for ; table[at] != 0; at = (at + 1) & (slots - 1) {
			other, _, _, _ := m.record(table[at] & offsetMask)
			if bytes.Equal(other, key) {
				break
			}
		}
		if table[at] != 0 {
			if len(bad) < maxErrors {
				bad = append(bad, &LineError{b.file, int(b.lines[i]), fmt.Errorf("key %q is already in line %d", key, b.lines[owner[at]])})
			}
			continue
		}
		table[at] = h>>offsetBits<<offsetBits | offset
		owner[at] = int32(i)
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return b.seal(table), nil
}

func (b *hashBuilder) seal(table []uint64) []byte {
	h := hashHeader{entries: uint64(len(b.offsets)), slots: uint64(len(table)), table: uint64(len(b.data))}
	if b.caseSensitive {
		h.flags |= flagCaseSensitive
	}
	for _, slot := range table {
		b.data = binary.LittleEndian.AppendUint64(b.data, slot)
	}
	h.size = uint64(len(b.data))
	h.sum = crc32.Checksum(b.data[hashHeaderSize:], castagnoli())
	copy(b.data, h.append(nil))
	return b.data
}
