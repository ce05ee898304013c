package content

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/vfs"
)

// spaceFS counts who asks for its space.
type spaceFS struct {
	vfs.FS
	free  atomic.Int64
	looks atomic.Int64
}

func (f *spaceFS) Space(string) (free, total int64, err error) {
	f.looks.Add(1)
	return f.free.Load(), 1 << 40, nil
}

// TestSpaceRests: while nobody wants to know the space it is looked at seldom; who asks after that
// has it looked at now, and while it is asked for or short again and again.
func TestSpaceRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &spaceFS{}
		f.free.Store(1 << 39)
		s := &Space{FS: f, Dirs: []string{"spool"}, Log: slog.New(slog.DiscardHandler), Refill: func() {}}
		if err := s.Look(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { _ = s.Watch(ctx); close(ended) }()
		looks := func(during time.Duration, use bool) int64 {
			before := f.looks.Load()
			for end := time.Now().Add(during); time.Now().Before(end); {
				if use {
					s.Used(1)
				}
				time.Sleep(10 * time.Millisecond)
			}
			synctest.Wait()
			return f.looks.Load() - before
		}
		looks(time.Second, false)
		if n := looks(time.Minute, false); n < 11 || n > 13 {
			t.Errorf("%d looks in an idle minute", n)
		}
		if n := looks(time.Minute, true); n < 290 || n > 301 {
			t.Errorf("%d looks in a busy minute", n)
		}
		looks(7*time.Second, false)
		f.free.Store(0)
		s.Refuses(1)
		synctest.Wait()
		if !s.Refuses(1) {
			t.Error("what has come while it rested is not noticed at once")
		}
		f.free.Store(1 << 39)
		time.Sleep(spaceInterval)
		synctest.Wait()
		if s.Refuses(1) {
			t.Error("mail is refused though there is room again")
		}
		cancel()
		<-ended
	})
}
