package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/vfs"
)

const (
	// spaceInterval is how often the file systems are asked for their free space.
	spaceInterval = 200 * time.Millisecond

	autoMinShare = 16 // of the file system, if disk_space_min is 0
	autoMinLeast = 4 << 20
	autoMinMost  = 64 << 20
)

// space watches the file systems of the spool. Mail is refused from the moment
// one of them has less than its minimum until all have enough again.
type space struct {
	fs     vfs.FS
	dirs   []string
	min    int64 // bytes; 0: by the size of the file system
	ok     int64
	log    *slog.Logger
	refill func()

	low  atomic.Bool
	room atomic.Int64 // bytes above the minimum on the tightest file system
}

// minimum and enough are the limits for a file system of the given size.
func (s *space) minimum(total int64) int64 {
	if s.min > 0 {
		return s.min
	}
	return min(max(total/autoMinShare, autoMinLeast), autoMinMost)
}

func (s *space) enough(total int64) int64 {
	if s.ok > 0 {
		return s.ok
	}
	return s.minimum(total) * 3 / 2
}

// look asks all file systems once.
func (s *space) look() error {
	room, scarce, plenty := int64(1)<<62, false, true
	for _, dir := range s.dirs {
		free, total, err := s.fs.Space(dir)
		if err != nil {
			return fmt.Errorf("asking for the free space of %s: %w", dir, err)
		}
		room = min(room, free-s.minimum(total))
		scarce = scarce || free < s.minimum(total)
		plenty = plenty && free >= s.enough(total)
	}
	s.room.Store(room)
	switch {
	case scarce && !s.low.Swap(true):
		s.log.Error("disk space is short: mail is refused", "room", room)
	case plenty && s.low.Swap(false):
		s.log.Warn("disk space is sufficient again: mail is accepted", "room", room)
		s.refill()
	}
	return nil
}

// full is called when a write found a disk full.
func (s *space) full() { s.low.Store(true) }

// refuses tells whether a message of size bytes must be refused.
func (s *space) refuses(size int64) bool {
	return s.low.Load() || s.room.Load() < size
}

// used counts bytes that were written since the last look.
func (s *space) used(n int64) { s.room.Add(-n) }

// watch looks until ctx ends.
func (s *space) watch(ctx context.Context) error {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.look(); err != nil {
				s.log.Error("cannot tell the disk space", "error", err)
				s.low.Store(true)
			}
		}
	}
}

// refusal is the reply while the disk is short (RFC 3463: 4.3.1, system full).
func (s *space) refusal() smtp.Reply {
	return smtp.NewReply(452, "4.3.1", "insufficient system storage")
}

// errScarce stops a content file before the disk is quite full.
var errScarce = fmt.Errorf("disk space is short: %w", syscall.ENOSPC)

// guardedStore is the content store that the server writes to: it stops writing
// while the disk is short, so that the databases keep their room.
type guardedStore struct {
	cdb   *cdb.Store
	space *space
}

// Create begins a content file.
func (g guardedStore) Create(ta smtp.ID) (msg.ContentWriter, error) {
	if g.space.low.Load() {
		return nil, errScarce
	}
	w, err := g.cdb.Create(ta)
	if err != nil {
		g.note(err)
		return nil, err
	}
	return &guardedWriter{ContentWriter: w, store: g}, nil
}

func (g guardedStore) note(err error) {
	if vfs.IsFull(err) && !errors.Is(err, errScarce) {
		g.space.full()
	}
}

type guardedWriter struct {
	msg.ContentWriter
	store guardedStore
}

func (w *guardedWriter) Write(p []byte) (int, error) {
	if w.store.space.refuses(int64(len(p))) {
		return 0, errScarce
	}
	n, err := w.ContentWriter.Write(p)
	w.store.space.used(int64(n))
	w.store.note(err)
	return n, err
}

func (w *guardedWriter) Commit(e *msg.Envelope) error {
	err := w.ContentWriter.Commit(e)
	w.store.note(err)
	return err
}
