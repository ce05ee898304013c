package store

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"meta1/mta/vfs"
)

// checkLogs looks for damage in the logs of a store before Pebble reads them. Pebble
// takes an invalid chunk for the end of the last log, which is right for one that was
// being written in a crash; but it does not look behind it in the same block, so that
// a damaged chunk would silently take all later records along, and the log is gone
// after that. A chunk behind it that was written when more had been synced proves that
// it was whole once. opened says that the store was opened to the end, and so has a log.
func checkLogs(fsys vfs.FS, dir string, opened bool) error {
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("listing the logs in %s: %w", dir, err)
	}
	logs := 0
	for _, name := range names {
		number, ok := LogNumber(name)
		if !ok {
			continue
		}
		logs++
		if err := checkLog(fsys, filepath.Join(dir, name), uint32(number)); err != nil {
			return err
		}
	}
	if opened && logs == 0 {
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
	buf := make([]byte, BlockLen)
	for base := int64(0); ; base += BlockLen {
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
		if at = s.valid(b); len(b)-at < syncedHeader {
			return false // what is left of a block is filled with zeros
		}
		s.bad = base + int64(at)
	}
	for ; at+syncedHeader <= len(b); at++ {
		if _, synced, ok := s.chunk(b[at:]); ok && synced > uint64(s.bad) {
			return true
		}
	}
	return false
}

// foreign reports a beginning that no log has, not even one that was used again or
// was cut short by a crash.
func foreign(b []byte) bool {
	if len(b) < syncedHeader {
		return false
	}
	for _, c := range b[:syncedHeader] {
		if c != 0 {
			return b[6] == 0 || b[6] > lastSynced
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
	c, ok := LogChunk(b, s.number)
	return c.Len, c.Synced, ok && c.present
}
