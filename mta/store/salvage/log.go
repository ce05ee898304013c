package salvage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/store"
)

// batchHeader is a sequence number of 8 bytes, that of the first record, and the
// number of records in 4.
const batchHeader = 12

// readLogs reads all records of the logs.
func (s *Store) readLogs(dir string, numbers []uint64) error {
	r := logReader{s: s}
	for _, n := range numbers {
		if err := r.read(filepath.Join(dir, fmt.Sprintf("%06d.log", n)), uint32(n)); err != nil {
			return err
		}
	}
	r.settle(r.highest + r.pending() + 1)
	slices.SortStableFunc(r.found, func(a, b entry) int {
		return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(b.seq, a.seq)) // newest first
	})
	s.log = slices.CompactFunc(r.found, func(a, b entry) bool { return bytes.Equal(a.key, b.key) })
	return nil
}

// logReader puts batches together from the chunks of the logs.
type logReader struct {
	s       *Store
	found   []entry
	highest uint64    // sequence number so far
	ends    [][]entry // ends of batches that lost a part; their numbers are not known yet

	name   string // of the present log
	number uint32
	bad    int64 // where the damage begins that is being passed, or -1
	zero   bool  // and everything since then is zero

	open bool // a batch is being put together
	head []byte
	torn bool   // something is missing behind head
	tail []byte // what stands behind that
}

// read reads one log.
func (r *logReader) read(name string, number uint32) error {
	f, err := r.s.fs.Open(name)
	if err != nil {
		r.s.damage(Damage{File: name, Reason: "it cannot be opened: " + err.Error()})
		return nil
	}
	defer f.Close() // it was only read
	r.name, r.number, r.bad = name, number, -1
	block := make([]byte, store.BlockLen)
	for base := int64(0); ; base += store.BlockLen {
		n, err := io.ReadFull(f, block)
		r.block(block[:n], base)
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			r.s.damage(Damage{File: name, At: base, Len: store.BlockLen, Reason: "it cannot be read from there on: " + err.Error()})
		}
		r.end(base + int64(n))
		return nil
	}
}

// block reads the chunks of a block at offset base.
func (r *logReader) block(b []byte, base int64) {
	for at := 0; at+store.ChunkMin <= len(b); {
		c, ok := store.LogChunk(b[at:], r.number)
		if ok {
			if r.bad >= 0 {
				r.gap(base + int64(at))
			}
			r.chunk(c)
			at += c.Len
			continue
		}
		zero := isZero(b[at:])
		if r.bad < 0 {
			if zero && at+store.HeaderMax > store.BlockLen {
				return // the rest of a block is too short for a header
			}
			r.bad, r.zero = base+int64(at), true
		}
		r.zero = r.zero && zero
		if zero {
			return
		}
		at++
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// gap notes that what stands from r.bad up to an offset is damaged, because a valid
// chunk follows.
func (r *logReader) gap(end int64) {
	r.s.damage(Damage{File: r.name, At: r.bad, Len: end - r.bad, Reason: "the log is damaged"})
	r.bad = -1
	r.torn, r.tail = true, nil
}

// end handles what stands at the end of a log: nothing, or a batch that was being
// written, or damage that cannot be told from that.
func (r *logReader) end(size int64) {
	if r.bad >= 0 && !r.zero {
		r.s.damage(Damage{
			File: r.name, At: r.bad, Len: size - r.bad, Note: true,
			Reason: "the log ends in something that is no record: the rest of an older log, a write that a crash tore, or damage",
		})
	}
	r.flush(false)
}

// chunk takes one chunk.
func (r *logReader) chunk(c store.Chunk) {
	if c.Part == store.Full || c.Part == store.First {
		r.flush(false)
		r.open, r.torn, r.head = true, false, bytes.Clone(c.Payload)
	} else {
		r.torn = r.torn || !r.open
		r.open = true
		if r.torn {
			r.tail = append(r.tail, c.Payload...)
		} else {
			r.head = append(r.head, c.Payload...)
		}
	}
	if c.Part == store.Full || c.Part == store.Last {
		r.flush(true)
	}
}

// flush reads the batch that was put together. whole says that its end is there.
func (r *logReader) flush(whole bool) {
	if r.open && len(r.head) >= batchHeader {
		first := binary.LittleEndian.Uint64(r.head)
		r.settle(first)
		for i, e := range records(r.head[batchHeader:]) {
			r.take(e, first+uint64(i))
		}
	}
	if r.open && r.torn && whole {
		r.ends = append(r.ends, r.s.lastRecords(r.tail))
	}
	r.open, r.torn, r.head, r.tail = false, false, nil, nil
}

func (r *logReader) take(e entry, seq uint64) {
	r.highest = max(r.highest, seq)
	if !e.ranged {
		e.seq = seq
		r.found = append(r.found, e)
	}
}

func (r *logReader) pending() (n uint64) {
	for _, end := range r.ends {
		n += uint64(len(end))
	}
	return n
}

// settle gives sequence numbers to the ends of batches that lost a part: they come
// right before the batch that begins with next.
func (r *logReader) settle(next uint64) {
	for _, end := range slices.Backward(r.ends) {
		for _, e := range slices.Backward(end) {
			next--
			r.take(e, next)
		}
	}
	r.ends = nil
}

// records reads records from the beginning of b as far as they are whole.
func records(b []byte) (all []entry) {
	for len(b) > 0 {
		e, rest, ok := record(b)
		if !ok {
			return all
		}
		all, b = append(all, e), rest
	}
	return all
}

// lastRecords reads the records at the end of b, of which the beginning is damaged:
// the longest run of records with known keys that ends where b does.
func (s *Store) lastRecords(b []byte) []entry {
	if s.known == nil {
		return nil
	}
	// good are the places from which on records follow one another up to the end.
	good := make([]bool, len(b)+1)
	good[len(b)] = true
	start := len(b)
	for at := len(b) - 1; at >= 0; at-- {
		e, rest, ok := record(b[at:])
		if ok && good[len(b)-len(rest)] && (e.ranged || s.known(e.key)) {
			good[at], start = true, at
		}
	}
	return records(b[start:])
}

// record reads one record at the beginning of b.
func record(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) == 0 {
		return entry{}, nil, false
	}
	kind := pebble.InternalKeyKind(b[0])
	if e.key, rest, ok = lengthed(b[1:]); !ok {
		return entry{}, nil, false
	}
	switch kind {
	case pebble.InternalKeyKindSet:
		e.value, rest, ok = lengthed(rest)
	case pebble.InternalKeyKindDeleteSized:
		e.gone = true
		_, rest, ok = lengthed(rest)
	case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete:
		e.gone = true
	case pebble.InternalKeyKindRangeDelete:
		e.ranged = true
		_, rest, ok = lengthed(rest)
	default: // we write no others
		ok = false
	}
	return e, rest, ok
}

// lengthed reads a length and as many bytes.
func lengthed(b []byte) (v, rest []byte, ok bool) {
	n, l := binary.Uvarint(b)
	if l <= 0 || n > uint64(len(b)-l) {
		return nil, nil, false
	}
	return b[l : l+int(n)], b[l+int(n):], true
}
