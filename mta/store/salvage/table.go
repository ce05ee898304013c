package salvage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/store"
)

const (
	// trailer of a block: how it is compressed 1, checksum 4.
	trailer = block.TrailerLen
	// blockMax is the longest block that is looked for, compressed or not.
	blockMax = 64 << 20
	// windowMax is the longest block that is looked for behind damage whose length is
	// not known, and searchMax the number of bytes that may be summed up for it.
	windowMax = 256 << 10
	searchMax = 1<<31 - 1
	// zeros: no block begins with as many.
	zeros = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// table is one table on disk, and where its blocks with records are.
type table struct {
	name   string
	f      pvfs.File
	size   int64
	blocks []extent
	// lower and upper are the first and the last key, if the manifest tells.
	lower, upper []byte
}

// extent is one block without its trailer.
type extent struct {
	at, n       int64
	first, last []byte // keys, once it was read
	bad         bool   // it cannot be read
}

// schema is how Pebble lays keys out in a block; it is the default one.
func schema() *colblk.KeySchema {
	s := colblk.DefaultKeySchema(pebble.DefaultComparer, 16)
	return &s
}

// openTable finds the blocks of a table. of is what the manifest says of it.
func (s *Store) openTable(name string, of store.Table) error {
	f, err := s.fs.Pebble().Open(name)
	if err != nil {
		s.damage(Damage{File: name, Lower: of.Lower, Upper: of.Upper, Reason: "it cannot be opened: " + err.Error()})
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t := &table{name: name, f: f, size: info.Size(), lower: of.Lower, upper: of.Upper}
	s.tables = append(s.tables, t)
	if t.blocks, err = layout(s.fs.Pebble(), name); err != nil {
		s.damage(Damage{File: name, Len: t.size, Note: true, Reason: "its index cannot be read, its blocks are looked for: " + firstLine(err)})
		t.blocks = nil
		if err := s.search(t); err != nil {
			return err
		}
	}
	for i := range t.blocks {
		s.readKeys(t, i)
	}
	t.blocks = slices.DeleteFunc(t.blocks, func(e extent) bool { return e.bad || e.first == nil })
	slices.SortStableFunc(t.blocks, func(a, b extent) int { return bytes.Compare(a.first, b.first) })
	return nil
}

func firstLine(err error) string {
	line, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return string(line)
}

// layout asks the table's index for its blocks.
func layout(fsys pvfs.FS, name string) (blocks []extent, err error) {
	defer func() {
		if v := recover(); v != nil { // Pebble panics on some damage
			blocks, err = nil, fmt.Errorf("%v", v)
		}
	}()
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	opts := &pebble.Options{}
	opts.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, opts.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	defer r.Close() // it was only read
	l, err := r.Layout()
	if err != nil {
		return nil, err
	}
	for _, h := range l.Data {
		blocks = append(blocks, extent{at: int64(h.Offset), n: int64(h.Length)})
	}
	return blocks, nil
}

// readKeys reads a block once, to learn its keys. If it cannot be read, the keys of its
// neighbours bound what was in it.
func (s *Store) readKeys(t *table, i int) {
	e := &t.blocks[i]
	if e.bad {
		return
	}
	err := s.read(t, e)
	if rows := s.buf.rows; err == nil && len(rows) > 0 {
		e.first, e.last = bytes.Clone(rows[0].key), bytes.Clone(rows[len(rows)-1].key)
	}
	if err == nil {
		return
	}
	e.bad = true
	d := Damage{File: t.name, At: e.at, Len: e.n + trailer, Lower: t.lower, Upper: t.upper, Reason: firstLine(err)}
	if i > 0 && t.blocks[i-1].last != nil {
		d.Lower = t.blocks[i-1].last
	}
	for _, next := range t.blocks[i+1:] {
		if s.read(t, &next) == nil && len(s.buf.rows) > 0 { // an error will be met again
			d.Upper = bytes.Clone(s.buf.rows[0].key)
			break
		}
	}
	// What was between the last record and the index held none.
	d.Note = d.Lower != nil && t.upper != nil && bytes.Equal(d.Lower, t.upper)
	s.damage(d)
}

// blockBuffer holds the block that was read last.
type blockBuffer struct {
	of   *table
	at   int64
	data []byte
	rows []entry
}

// read reads all records of a block into the buffer.
func (s *Store) read(t *table, e *extent) error {
	if s.buf.of == t && s.buf.at == e.at {
		return nil
	}
	s.buf.of = nil
	raw := make([]byte, e.n+trailer)
	if _, err := t.f.ReadAt(raw, e.at); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if !sound(raw) {
		return errors.New("the checksum of the block is wrong")
	}
	data, err := unpack(raw[:e.n], raw[e.n])
	if err != nil {
		return err
	}
	if s.buf.rows, err = rows(data); err != nil {
		return err
	}
	s.buf.of, s.buf.at, s.buf.data = t, e.at, data
	return nil
}

// sound tells whether the checksum at the end of a block with its trailer is right.
func sound(raw []byte) bool {
	end := len(raw) - 4
	return binary.LittleEndian.Uint32(raw[end:]) == store.Mask(crc32.Checksum(raw[:end], castagnoli))
}

// unpack decompresses a block into memory that is aligned as Pebble wants it.
func unpack(b []byte, how byte) (data []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			data, err = nil, fmt.Errorf("decompressing a block: %v", v)
		}
	}()
	n := len(b)
	if ci := block.CompressionIndicator(how); ci != block.NoCompressionIndicator {
		if n, err = block.DecompressedLen(ci, b); err != nil {
			return nil, fmt.Errorf("decompressing a block: %w", err)
		}
		if n < 0 || n > blockMax {
			return nil, fmt.Errorf("decompressing a block: it claims to have %d bytes", n)
		}
		data = aligned(n)
		return data, block.DecompressInto(ci, b, data)
	}
	data = aligned(n)
	copy(data, b)
	return data, nil
}

func aligned(n int) []byte {
	words := make([]uint64, n/8+1)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
}

// rows reads the records of a block.
func rows(data []byte) (all []entry, err error) {
	if !isData(data) {
		return nil, errNoRecords
	}
	defer func() {
		if v := recover(); v != nil {
			all, err = nil, fmt.Errorf("decoding a block: %v", v)
		}
	}()
	var d colblk.DataBlockDecoder
	var it colblk.DataBlockIter
	it.InitOnce(schema(), pebble.DefaultComparer, nil)
	d.Init(schema(), data)
	// What a newer record of the same table hides may have its value elsewhere.
	if err := it.Init(&d, block.IterTransforms{HideObsoletePoints: true}); err != nil {
		return nil, err
	}
	for kv := it.First(); kv != nil; kv = it.Next() {
		e := entry{key: bytes.Clone(kv.K.UserKey), seq: uint64(kv.K.SeqNum())}
		switch kv.K.Kind() {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
			e.value = bytes.Clone(kv.InPlaceValue())
		default:
			e.gone = true
		}
		if n := len(all); n > 0 && bytes.Equal(all[n-1].key, e.key) {
			continue // an older one
		}
		all = append(all, e)
	}
	return all, it.Close()
}

var errNoRecords = errors.New("the block holds no records")

// The columns of a block with records: first the key's (Pebble, sstable/colblk),
// then trailer, prefix changed, value, value elsewhere, obsolete.
func columns() []colblk.DataType {
	return append(slices.Clone(schema().ColumnTypes),
		colblk.DataTypeUint, colblk.DataTypeBool, colblk.DataTypeBytes, colblk.DataTypeBool, colblk.DataTypeBool)
}

// isData tells a block with records from others, by its header: the length of the
// longest key 4, version 1, columns 2, rows 4, and for each column its type 1 and
// offset 4.
func isData(b []byte) bool {
	types := columns()
	const head = 4 + 1 + 2 + 4
	if len(b) < head+5*len(types) || b[4] != 1 || int(binary.LittleEndian.Uint16(b[5:])) != len(types) {
		return false
	}
	rows, last := binary.LittleEndian.Uint32(b[7:]), uint32(0)
	if rows == 0 || uint64(rows) > uint64(len(b))*8 {
		return false
	}
	for i, t := range types {
		c := b[head+5*i:]
		at := binary.LittleEndian.Uint32(c[1:])
		if c[0] != byte(t) || at < last || uint64(at) > uint64(len(b)) {
			return false
		}
		last = at
	}
	return true
}

// search finds the blocks of a table by their checksums. Blocks with records stand
// before all others.
func (s *Store) search(t *table) error {
	b := make([]byte, t.size)
	if n, err := t.f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		s.damage(Damage{File: t.name, At: int64(n), Len: t.size - int64(n), Reason: "it cannot be read from there on: " + err.Error()})
		b = b[:n]
	}
	add := func(from, to int) {
		t.blocks = append(t.blocks, extent{at: int64(from), n: int64(max(to-from-trailer, 0))})
	}
	budget := searchMax
	at, bad := 0, -1
	for at+trailer < len(b) && budget > 0 {
		limit := blockMax
		if bad >= 0 {
			limit = windowMax
		}
		n := 0
		if !isZero(b[at:min(at+zeros, len(b))]) {
			n = blockAt(b[at:], limit, &budget)
		}
		data, err := unpack(b[at:at+n], b[at+n])
		if n == 0 || err != nil { // some sums fit by chance
			if bad < 0 {
				bad = at
			}
			at++
			continue
		}
		if bad >= 0 {
			add(bad, at)
			bad = -1
		}
		if !isData(data) {
			return nil
		}
		add(at, at+n+trailer)
		at += n + trailer
	}
	if bad < 0 {
		bad = at
	}
	add(bad, len(b)) // no other block was found behind them: the table is cut short
	return nil
}

// blockAt is the length without trailer of the block at the beginning of b, or 0 if
// there is none up to the limit.
func blockAt(b []byte, limit int, budget *int) int {
	sum := ^uint32(0)
	end := min(len(b)-4, limit)
	for i := 0; i < end; i++ {
		sum = castagnoli[byte(sum)^b[i]] ^ sum>>8
		if i > 0 && binary.LittleEndian.Uint32(b[i+1:]) == store.Mask(^sum) {
			*budget -= i
			return i
		}
	}
	*budget -= max(end, 1)
	return 0
}
