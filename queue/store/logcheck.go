package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"meta1/queue/vfs"
)

// Pebble's log is made of blocks, a block of chunks. The header of a chunk, little
// endian: checksum 4, length 2, encoding 1, number of the log 4, and how far the log
// was synced when the chunk was written 8.
const (
	logBlock      = 32 << 10
	logHeader     = 19
	logFirstChunk = 9  // the encodings of chunks with this header
	logLastChunk  = 12 // and the highest known one
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkLogs looks for damage in the logs of a store before Pebble reads them. Pebble
// takes an invalid chunk for the end of the last log, which is right for one that was
// being written in a crash; but it does not look behind it in the same block, so that
// a damaged chunk would silently take all later records along, and the log is gone
// after that. A chunk behind it that was written when more had been synced proves that
// it was whole once. used says that the store has been in use, and so has a log.
func checkLogs(fsys vfs.FS, dir string, used bool) error {
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("listing the logs in %s: %w", dir, err)
	}
	logs := 0
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, ".log")
		number, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		logs++
		if err := checkLog(fsys, filepath.Join(dir, name), uint32(number)); err != nil {
			return err
		}
	}
	if used && logs == 0 {
		return fmt.Errorf("no log is in %s", dir)
	}
	return nil
}

// checkLog examines one log.
func checkLog(fsys vfs.FS, name string, number uint32) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("opening the log %s: %w", name, err)
	}
	defer f.Close() // it was only read
	s := logScan{number: number, bad: -1}
	buf := make([]byte, logBlock)
	for base := int64(0); ; base += logBlock {
		n, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading the log %s: %w", name, err)
		}
		if s.block(buf[:n], base) {
			return fmt.Errorf("the log %s has an invalid record at byte %d", name, s.bad)
		}
		if err != nil {
			return nil
		}
	}
}

// logScan is the state of an examination.
type logScan struct {
	number uint32
	bad    int64 // where the first invalid chunk begins, -1 if there is none so far
}

// block examines the block at base and reports damage.
func (s *logScan) block(b []byte, base int64) bool {
	at := 0
	if s.bad < 0 {
		if base == 0 && foreign(b) {
			s.bad = 0
			return true
		}
		if at = s.valid(b); len(b)-at < logHeader {
			return false // what is left of a block is filled with zeros
		}
		s.bad = base + int64(at)
	}
	for ; at+logHeader <= len(b); at++ {
		if _, synced, ok := s.chunk(b[at:]); ok && synced > uint64(s.bad) {
			return true
		}
	}
	return false
}

// foreign reports a beginning that no log has, not even one that was used again or
// was cut short by a crash.
func foreign(b []byte) bool {
	if len(b) < logHeader {
		return false
	}
	for _, c := range b[:logHeader] {
		if c != 0 {
			return b[6] == 0 || b[6] > logLastChunk
		}
	}
	return false
}

// valid is the length of the valid chunks at the beginning of a block.
func (s *logScan) valid(b []byte) (at int) {
	for {
		n, _, ok := s.chunk(b[at:])
		if !ok {
			return at
		}
		at += n
	}
}

// chunk reads the chunk at the beginning of b.
func (s *logScan) chunk(b []byte) (n int, synced uint64, ok bool) {
	if len(b) < logHeader || b[6] < logFirstChunk || b[6] > logLastChunk ||
		binary.LittleEndian.Uint32(b[7:]) != s.number {
		return 0, 0, false
	}
	n = logHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if n > len(b) {
		return 0, 0, false
	}
	sum := crc32.Checksum(b[6:n], castagnoli)
	if binary.LittleEndian.Uint32(b) != (sum>>15|sum<<17)+0xa282ead8 { // as LevelDB masks it
		return 0, 0, false
	}
	return n, binary.LittleEndian.Uint64(b[11:]), true
}
