package content

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

// TestOrphans: a file that the store does not know is removed when it is old enough, also if the grace time
// becomes shorter meanwhile; those of known messages and of this instance stay.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.FS(crashfs.New(), nil)
		for _, dir := range []string{"cdb", "store"} {
			if err := vfs.MakeDir(fs, dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		files, err := cdb.Open(fs, "cdb")
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(4) {
			e := &msg.Envelope{TA: smtp.ID{Counter: n}}
			w, err := files.Create(e.TA)
			if err == nil {
				_, err = w.Write([]byte("x"))
			}
			if err == nil {
				err = w.Commit(e)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex // guards grace and removed
		grace := time.Hour
		var removed []uint64
		o := &Orphans{
			CDB: files, FS: fs, Store: "store", Log: slog.New(slog.DiscardHandler), First: 3,
			Knows: func(ta smtp.ID) (bool, error) { return ta.Counter == 1, nil },
			Remove: func(ids ...smtp.ID) {
				mu.Lock()
				defer mu.Unlock()
				for _, ta := range ids {
					removed = append(removed, ta.Counter)
					_ = files.Remove(ta)
				}
			},
			Grace: func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return grace
			},
			Now: time.Now, Day: time.Now,
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- o.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		mu.Lock()
		if len(removed) > 0 {
			t.Errorf("%v removed too early", removed)
		}
		grace = 20 * time.Minute
		mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(removed)
		if !slices.Equal(removed, []uint64{0, 2}) {
			t.Errorf("%v removed", removed)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
