package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"meta1/mta/vfs"
)

const (
	ballastName = "BALLAST."

	// Segments are given up one at a time, so that several starts on a full disk
	// find one.
	ballastSegments = 6
	ballastMin      = 512 << 10
	ballastMax      = 8 << 20
	ballastShare    = 128 // of the file system, for each segment
)

// ballast is space kept for the moment when the disk is full.
type ballast struct {
	fs      vfs.FS
	dir     string
	segment int64
	log     *slog.Logger

	mu sync.Mutex // serialises release and refill
}

func newBallast(f vfs.FS, dir string, total int64, log *slog.Logger) *ballast {
	return &ballast{
		fs: f, dir: dir, log: log,
		segment: min(max(total/ballastShare, ballastMin), ballastMax),
	}
}

func (b *ballast) name(i int) string {
	return filepath.Join(b.dir, ballastName+string("0123456789"[i]))
}

// exists reports that a segment is there.
func (b *ballast) exists() bool { return b.missing() < ballastSegments }

// release gives one segment up.
func (b *ballast) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range ballastSegments {
		if _, _, err := b.fs.Stat(b.name(i)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := b.fs.Remove(b.name(i))
		if err == nil {
			b.log.Error("disk full: gave up a part of the reserve", "file", b.name(i), "bytes", b.segment)
			return
		}
		b.log.Error("disk full: cannot give up a part of the reserve", "file", b.name(i), "error", err)
	}
	b.log.Error("disk full: the reserve is used up", "directory", b.dir)
}

// missing is the number of segments that are not there.
func (b *ballast) missing() (n int) {
	for i := range ballastSegments {
		if _, _, err := b.fs.Stat(b.name(i)); err != nil {
			n++
		}
	}
	return n
}

// refill makes the missing segments as long as plenty stays free beside them, and
// reports whether all are there. The error is that of the disk, if it is broken.
func (b *ballast) refill() (complete bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range ballastSegments {
		if size, _, err := b.fs.Stat(b.name(i)); err == nil && size == b.segment {
			continue
		}
		if free, _, err := b.fs.Space(b.dir); err != nil || free < 4*b.segment {
			return false, nil
		}
		switch err := b.make(b.name(i)); {
		case vfs.IsBroken(err):
			return false, fmt.Errorf("making the reserve %s: %w", b.name(i), err)
		case err != nil:
			b.log.Warn("cannot make the reserve for a full disk", "file", b.name(i), "error", err)
			return false, nil
		}
	}
	return true, nil
}

// make writes one segment and syncs it, so that its blocks are taken. It is random: a
// file system that compresses would give no room for zeros, nor get any back. A half
// written one is removed.
func (b *ballast) make(name string) error {
	if err := b.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := b.fs.Create(name)
	if err != nil {
		return err
	}
	noise, chunk := rand.NewChaCha8([32]byte{}), make([]byte, 256<<10)
	for left := b.segment; left > 0 && err == nil; left -= int64(len(chunk)) {
		_, _ = noise.Read(chunk) // it never fails
		_, err = f.Write(chunk[:min(left, int64(len(chunk)))])
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = b.fs.Remove(name)
	}
	return err
}
