package content

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
)

const (
	// orphanStep files are looked at in one go, and then nothing for orphanPause, so that the
	// search through a large spool leaves disk and processor to the mail.
	orphanStep  = 100
	orphanPause = 20 * time.Millisecond
)

// Orphans are content files of which the store knows no message: leftovers of transactions that were
// never acknowledged, or whose end a crash interrupted.
type Orphans struct {
	CDB   *cdb.Store
	FS    vfs.FS
	Store string // directory of the store
	Log   *slog.Logger
	// First is the first id of this instance of the queue: its own transactions are not looked at.
	First uint64
	// Knows reports whether the store has a message. Remove takes what is to be unlinked.
	Knows  func(ta smtp.ID) (bool, error)
	Remove func(ta ...smtp.ID)
	// Grace is how old a file must be; it may answer anew. Now is the queue's clock, Day the machine's.
	Grace    func() time.Duration
	Now, Day func() time.Time
}

// Run removes them. Files younger than the grace time are looked at again; it ends when there are none.
// Nothing is removed while a damaged store is kept: its mail may have only these files.
func (o *Orphans) Run(ctx context.Context) error {
	kept, err := store.Kept(o.FS, o.Store)
	switch {
	case err != nil:
		o.Log.Error("orphaned content is not removed", "error", err)
		return nil
	case len(kept) > 0:
		o.Log.Warn("orphaned content is not removed while a damaged store is kept", "kept", strings.Join(kept, " "))
		return nil
	}
	start := o.Now()
	for pause := time.Duration(0); ; pause = max(o.Grace()/2, time.Second) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		s := orphanSearch{Orphans: o, ctx: ctx, announce: pause == 0, ran: o.Now().Sub(start)}
		young, err := s.run()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			o.Log.Error("cannot look for orphaned content", "error", err)
			return nil
		case young == 0 || o.Now().Sub(start) > o.Grace()*3:
			return nil
		}
	}
}

// orphanSearch is one search through all content files.
type orphanSearch struct {
	*Orphans
	ctx      context.Context
	announce bool          // tell what is found; a later search does not tell it again
	ran      time.Duration // for how long the queue runs: files are at least so old, whatever the clock says
	seen     int
	young    int // files that are still too young
}

// run searches and returns how many files are still too young.
func (s *orphanSearch) run() (young int, err error) {
	err = s.CDB.List(s.look, func(path string) {
		if s.announce {
			s.Log.Warn("what stands in the content directory and is no content is left alone", "path", path)
		}
	})
	return s.young, err
}

// look removes a file of which the store knows no message when the grace time is over, and pauses
// after some. The store is asked anew for each: an answer of the start would be out of date.
func (s *orphanSearch) look(f cdb.File) error {
	if s.seen++; s.seen%orphanStep == 0 {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(orphanPause):
		}
	}
	if f.TA.Counter >= s.First {
		return nil
	}
	known, err := s.Knows(f.TA)
	if err != nil || known {
		return err
	}
	if max(s.Day().Sub(f.Changed), s.ran) < s.Grace() {
		s.young++
		if s.announce {
			s.Log.Warn("orphaned content will be removed after the grace time", "ss_ta", f.TA.String(), "size", f.Size)
		}
		return nil
	}
	s.Log.Warn("orphaned content is removed", "ss_ta", f.TA.String(), "size", f.Size)
	s.Remove(f.TA)
	return nil
}
