package cdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

// Behind what was written of a content stand a head, a record and a footer, big endian:
//
//	head     which readers find in place of the first bytes that were written
//	record   the envelope (msg.AppendEnvelope)
//	footer   8 size of what was written, 4 its CRC-32C, 4 length of the record,
//	         4 CRC-32C of the record and the footer up to here, 8 magic
//
// With a head, or bytes that it replaces, the footer has another magic and begins with
//
//	8 number of bytes that are replaced, 4 length of the head, 4 its CRC-32C
const (
	footerLen = 28
	summed    = 16 // bytes of the footer that the second checksum covers
	magic     = "meta1CDB"
	topLen    = 16 // more bytes with a head, all of them summed
	magicTop  = "meta1CDT"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// top is what readers find in place of the first drop bytes that were written.
type top struct {
	drop int64
	head []byte
}

// trailer is a footer that was read.
type trailer struct {
	size    int64  // of what was written
	sum     uint32 // of what was written
	drop    int64
	headLen int64
	headSum uint32
	length  int64 // of the record
	check   uint32
	summed  []byte // what check covers beside the record
}

// newTrailer is what is written behind a content of the given size and checksum.
func newTrailer(e *msg.Envelope, size int64, sum uint32, t top) []byte {
	b := append([]byte(nil), t.head...)
	b = msg.AppendEnvelope(b, e)
	record := b[len(t.head):]
	length := len(record)
	words := magic
	if t.drop > 0 || len(t.head) > 0 {
		words = magicTop
		b = binary.BigEndian.AppendUint64(b, uint64(t.drop))
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.head)))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(t.head, castagnoli))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint32(b, sum)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(t.head):], castagnoli))
	return append(b, words...)
}

// open opens the file of a transaction and reads its footer.
func (s *Store) open(ta smtp.ID) (vfs.File, *trailer, error) {
	path := s.Path(ta)
	size, _, err := s.fs.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening content file: %w", err)
	}
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening content file: %w", err)
	}
	t, err := readFooter(f, size)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading %s: %w", path, err), f.Close())
	}
	return f, t, nil
}

// readFooter reads the footer of a file of the given size.
func readFooter(f io.ReaderAt, size int64) (*trailer, error) {
	if size < footerLen {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrIncomplete, size)
	}
	b := make([]byte, min(size, topLen+footerLen))
	if _, err := f.ReadAt(b, size-int64(len(b))); err != nil {
		return nil, err
	}
	t := &trailer{}
	words, footer := string(b[len(b)-len(magic):]), b[len(b)-footerLen:]
	switch {
	case words == magicTop && len(b) == topLen+footerLen:
		t.drop = int64(binary.BigEndian.Uint64(b))
		t.headLen, t.headSum = int64(binary.BigEndian.Uint32(b[8:])), binary.BigEndian.Uint32(b[12:])
		t.summed = b[:topLen+summed]
	case words == magic:
		b = footer
		t.summed = b[:summed]
	default:
		return nil, fmt.Errorf("%w: its end is missing", ErrIncomplete)
	}
	t.size, t.sum = int64(binary.BigEndian.Uint64(footer)), binary.BigEndian.Uint32(footer[8:])
	t.length, t.check = int64(binary.BigEndian.Uint32(footer[12:])), binary.BigEndian.Uint32(footer[16:])
	if t.size < 0 || t.size != size-int64(len(b))-t.headLen-t.length || t.drop < 0 || t.drop > t.size || t.headLen > msg.MaxTop {
		return nil, fmt.Errorf("%w: its end is missing", ErrIncomplete)
	}
	return t, nil
}

// total is the size of the content as readers find it.
func (t *trailer) total() int64 { return t.headLen + t.size - t.drop }

// readHead reads the head.
func (t *trailer) readHead(f io.ReaderAt) ([]byte, error) {
	if t.headLen == 0 {
		return nil, nil
	}
	b := make([]byte, t.headLen)
	if _, err := f.ReadAt(b, t.size); err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != t.headSum {
		return nil, fmt.Errorf("%w: the checksum of the head is wrong", ErrIncomplete)
	}
	return b, nil
}

// read reads the record.
func (t *trailer) read(f io.ReaderAt) (Kept, error) {
	b := make([]byte, t.length)
	if _, err := f.ReadAt(b, t.size+t.headLen); err != nil {
		return Kept{}, err
	}
	if crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, t.summed) != t.check {
		return Kept{}, fmt.Errorf("%w: the checksum of the envelope is wrong", ErrIncomplete)
	}
	e, err := msg.DecodeEnvelope(b)
	if err != nil {
		return Kept{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return Kept{Envelope: e, Size: t.total()}, nil
}
