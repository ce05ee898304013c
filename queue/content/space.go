package content

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

const (
	// spaceInterval is how often the file systems are asked for their free space, and spaceIdle
	// while nobody wants to know it: an idle process should not wake.
	spaceInterval = 200 * time.Millisecond
	spaceIdle     = 5 * time.Second

	autoMinShare = 16 // of the file system, if disk_space_min is 0
	autoMinLeast = 4 << 20
	autoMinMost  = 64 << 20
)

// Space watches the file systems of the spool. Mail is refused from the moment
// one of them has less than its minimum until all have enough again.
type Space struct {
	FS   vfs.FS
	Dirs []string
	// Limits are the bytes below which mail is refused, and from which on it is accepted again. 0: by the
	// size of the file system, and by the former. Each look asks for them. Nil: both are 0.
	Limits func() (low, enough int64)
	Log    *slog.Logger
	// Refill is called when there is enough again: it makes the reserve for a full disk.
	Refill func()

	low  atomic.Bool
	room atomic.Int64 // bytes above the minimum on the tightest file system

	asked atomic.Bool // since the last look
	idle  atomic.Bool // nobody has asked for a while
	timer atomic.Pointer[time.Timer]
}

// ask notes that somebody wants to know the space: after a rest it is looked at now.
func (s *Space) ask() {
	if !s.asked.Load() {
		s.asked.Store(true)
	}
	if s.idle.Load() && s.idle.Swap(false) {
		s.timer.Load().Reset(0)
	}
}

// limits are those for a file system of the given size.
func (s *Space) limits(total int64) (low, enough int64) {
	if s.Limits != nil {
		low, enough = s.Limits()
	}
	if low == 0 {
		low = min(max(total/autoMinShare, autoMinLeast), autoMinMost)
	}
	if enough == 0 {
		enough = low * 3 / 2
	}
	return low, enough
}

// Changed has the space looked at soon, because the limits have changed.
func (s *Space) Changed() {
	s.asked.Store(true)
	if timer := s.timer.Load(); timer != nil {
		timer.Reset(0)
	}
}

// Look asks all file systems once.
func (s *Space) Look() error {
	room, scarce, plenty := int64(1)<<62, false, true
	for _, dir := range s.Dirs {
		free, total, err := s.FS.Space(dir)
		if err != nil {
			return fmt.Errorf("asking for the free space of %s: %w", dir, err)
		}
		low, enough := s.limits(total)
		room = min(room, free-low)
		scarce = scarce || free < low
		plenty = plenty && free >= enough
	}
	s.room.Store(room)
	switch {
	case scarce && !s.low.Swap(true):
		s.Log.Error("disk space is short: mail is refused", "room", room)
	case plenty && s.low.Swap(false):
		s.Log.Warn("disk space is sufficient again: mail is accepted", "room", room)
		s.Refill()
	}
	return nil
}

// Full is called when a write found a disk full.
func (s *Space) Full() {
	s.low.Store(true)
	s.ask()
}

// Refuses tells whether a message of size bytes must be refused.
func (s *Space) Refuses(size int64) bool {
	s.ask()
	return s.low.Load() || s.room.Load() < size
}

// Used counts bytes that were written since the last look.
func (s *Space) Used(n int64) {
	s.ask()
	s.room.Add(-n)
}

// Watch looks until ctx ends.
func (s *Space) Watch(ctx context.Context) error {
	timer := time.NewTimer(spaceInterval)
	defer timer.Stop()
	s.timer.Store(timer)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		asked := s.asked.Swap(false)
		if err := s.Look(); err != nil {
			s.Log.Error("cannot tell the disk space", "error", err)
			s.low.Store(true)
		}
		if asked || s.low.Load() {
			timer.Reset(spaceInterval)
			continue
		}
		timer.Reset(spaceIdle)
		s.idle.Store(true)
		if s.asked.Load() { // just now
			s.ask()
		}
	}
}

// Refusal is the reply while the disk is short (RFC 3463: 4.3.1, system full).
func (s *Space) Refusal() smtp.Reply {
	return smtp.NewReply(452, "4.3.1", "insufficient system storage")
}

// Room is how many bytes the tightest file system has above its minimum.
func (s *Space) Room() int64 {
	s.ask()
	return s.room.Load()
}

// Err is why nothing may be written to a file now, or nil.
func (s *Space) Err() error {
	s.ask()
	if s.low.Load() {
		return errScarce
	}
	return nil
}

// errScarce stops a content file before the disk is quite full.
var errScarce = fmt.Errorf("disk space is short: %w", syscall.ENOSPC)
