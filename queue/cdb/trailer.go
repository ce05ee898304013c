package cdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

// Behind the content of a file stand a record and a footer, big endian:
//
//	record   uvarint n, n times uvarint: indexes of recipients that had ended;
//	         then the envelope (msg.AppendEnvelope)
//	footer   8 size of the content, 4 its CRC-32C, 4 length of the record,
//	         4 CRC-32C of the record and the footer up to here, 8 magic
const (
	footerLen = 28
	summed    = 16 // bytes of the footer that the second checksum covers
	magic     = "meta1CDB"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// trailer is a footer that was read.
type trailer struct {
	size   int64  // of the content
	sum    uint32 // of the content
	length int64  // of the record
	check  uint32
	head   [summed]byte
}

func appendTrailer(b []byte, e *msg.Envelope, ended []int, size int64, sum uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(ended)))
	for _, i := range ended {
		b = binary.AppendUvarint(b, uint64(i))
	}
	b = msg.AppendEnvelope(b, e)
	length := len(b)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint32(b, sum)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, magic...)
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
	var b [footerLen]byte
	if _, err := f.ReadAt(b[:], size-footerLen); err != nil {
		return nil, err
	}
	t := &trailer{
		size: int64(binary.BigEndian.Uint64(b[:])), sum: binary.BigEndian.Uint32(b[8:]),
		length: int64(binary.BigEndian.Uint32(b[12:])), check: binary.BigEndian.Uint32(b[16:]), head: [summed]byte(b[:]),
	}
	if string(b[20:]) != magic || t.size < 0 || t.size != size-footerLen-t.length {
		return nil, fmt.Errorf("%w: its end is missing", ErrIncomplete)
	}
	return t, nil
}

// read reads the record.
func (t *trailer) read(f io.ReaderAt) (Kept, error) {
	b := make([]byte, t.length)
	if _, err := f.ReadAt(b, t.size); err != nil {
		return Kept{}, err
	}
	if crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, t.head[:]) != t.check {
		return Kept{}, fmt.Errorf("%w: the checksum of the envelope is wrong", ErrIncomplete)
	}
	k, err := decodeRecord(b)
	if err != nil {
		return Kept{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	k.Size = t.size
	return k, nil
}

var errShort = errors.New("the record behind the content is cut short")

func decodeRecord(b []byte) (k Kept, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)) {
		return Kept{}, errShort
	}
	b = b[used:]
	for range n {
		i, used := binary.Uvarint(b)
		if used <= 0 {
			return Kept{}, errShort
		}
		b = b[used:]
		k.Ended = append(k.Ended, int(i))
	}
	if k.Envelope, err = msg.DecodeEnvelope(b); err != nil {
		return Kept{}, err
	}
	for _, i := range k.Ended {
		if i < 0 || i >= len(k.Envelope.Rcpts) {
			return Kept{}, fmt.Errorf("recipient %d has ended, of %d", i, len(k.Envelope.Rcpts))
		}
	}
	return k, nil
}
