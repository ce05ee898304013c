package defedb

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestEntries lists two transactions and a recipient whose transaction is missing.
func TestEntries(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	defer db.Close()
	commit(t, db, func(b *Batch) error {
		var errs []error
		for ta := range uint64(3) {
			e := &msg.Envelope{TA: smtp.ID{Counter: ta}, Arrival: at(int64(ta)), Rcpts: make([]msg.Rcpt, 3)}
			if ta != 1 {
				errs = append(errs, b.PutTA(e, int64(ta)*10))
			}
			for i := range 3 {
				st := state(ta, i, at(100))
				errs = append(errs, b.Put(&st, time.Time{}))
			}
		}
		return errors.Join(errs...)
	})
	list := func(from uint64, index, most int) (got string) {
		t.Helper()
		n := 0
		err := db.Entries(smtp.ID{Counter: from}, index, func(e Entry) bool {
			got += fmt.Sprintf("%d-%d", e.TA.Counter, e.Index)
			if e.Envelope != nil {
				got += fmt.Sprintf("(%d,%d)", e.Envelope.TA.Counter, e.Size)
			}
			got += " "
			n++
			return n < most
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	const first, second, third = "0-0(0,0) 0-1(0,0) 0-2(0,0) ", "1-0 1-1 1-2 ", "2-0(2,20) 2-1(2,20) 2-2(2,20) "
	for _, c := range []struct {
		from        uint64
		index, most int
		want        string
	}{
		{0, 0, 100, first + second + third},
		{0, 0, 1, "0-0(0,0) "},
		{0, 2, 2, "0-2(0,0) 1-0 "},
		{1, 3, 100, third},
		{2, 2, 100, "2-2(2,20) "},
		{3, 0, 100, ""},
	} {
		if got := list(c.from, c.index, c.most); got != c.want {
			t.Errorf("from %d-%d at most %d: %s, want %s", c.from, c.index, c.most, got, c.want)
		}
	}
}

// TestCounterCountsWhatWasThere: what comes and goes after the counter was made does
// not matter.
func TestCounterCountsWhatWasThere(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	defer db.Close()
	put := func(ta uint64) {
		commit(t, db, func(b *Batch) error { st := state(ta, 0, at(9)); return b.Put(&st, time.Time{}) })
	}
	put(1)
	put(2)
	c, err := db.Counter()
	if err != nil {
		t.Fatal(err)
	}
	put(3)
	commit(t, db, func(b *Batch) error { return b.End(smtp.ID{Counter: 1}, 0, at(9)) })
	if n, err := c.Count(context.Background()); n != 2 || err != nil {
		t.Errorf("%d, %v; want 2", n, err)
	}
}
