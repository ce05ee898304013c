package defedb

import (
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

func open(t *testing.T, mem *pvfs.MemFS) *DB {
	t.Helper()
	db, err := Open(vfs.FromPebble(mem, nil), "defedb", store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func commit(t *testing.T, db *DB, fill func(*Batch) error) {
	t.Helper()
	b := db.NewBatch()
	if err := fill(b); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func at(s int64) time.Time { return time.Unix(s, 5) }

func state(ta uint64, index int, next time.Time) State {
	return State{TA: smtp.ID{Counter: ta}, Index: index, NextTry: next, Stored: at(1), Waited: 90 * time.Minute, Attempts: 3, Delayed: true, Dest: "mx:d.test", Reason: "451 4.7.1 later"}
}

func due(t *testing.T, db *DB, now time.Time, c *Cursor) (got []State) {
	t.Helper()
	if err := db.Due(now, c, func(st State) bool { got = append(got, st); return true }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDueInOrderAcrossACrash(t *testing.T) {
	mem := pvfs.NewCrashableMem()
	db := open(t, mem)
	a, b, c := state(1, 0, at(300)), state(1, 1, at(100)), state(2, 0, at(200))
	commit(t, db, func(batch *Batch) error {
		e := &msg.Envelope{TA: smtp.ID{Counter: 1}, Arrival: at(0), Rcpts: make([]msg.Rcpt, 2)}
		return errors.Join(batch.PutTA(e, 77), batch.Put(&a, time.Time{}), batch.Put(&b, time.Time{}), batch.Put(&c, time.Time{}))
	})
	db = open(t, mem.CrashClone(pvfs.CrashCloneCfg{}))
	defer db.Close()
	var cur Cursor
	if got := due(t, db, at(99), &cur); got != nil {
		t.Errorf("due too early: %+v", got)
	}
	if got := due(t, db, at(200), &cur); !reflect.DeepEqual(got, []State{b, c}) {
		t.Errorf("due at 200: %+v", got)
	}
	if got := due(t, db, at(200), &cur); got != nil {
		t.Errorf("the cursor did not move: %+v", got)
	}
	if next, ok, err := db.NextDue(&cur); err != nil || !ok || !next.Equal(at(300)) {
		t.Errorf("next due %v, %v, %v", next, ok, err)
	}
	e, size, ok, err := db.TA(smtp.ID{Counter: 1})
	if err != nil || !ok || size != 77 || len(e.Rcpts) != 2 {
		t.Errorf("transaction %+v, %d, %v, %v", e, size, ok, err)
	}
	if all, err := db.Rcpts(smtp.ID{Counter: 1}); err != nil || !reflect.DeepEqual(all, []State{a, b}) {
		t.Errorf("recipients %+v, %v", all, err)
	}
}

func TestPutMovesAndEndRemoves(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	defer db.Close()
	a := state(1, 0, at(10))
	commit(t, db, func(b *Batch) error { return b.Put(&a, time.Time{}) })
	moved := state(1, 0, at(50))
	commit(t, db, func(b *Batch) error { return b.Put(&moved, at(10)) })
	if got := due(t, db, at(100), new(Cursor)); !reflect.DeepEqual(got, []State{moved}) {
		t.Errorf("after the move: %+v", got)
	}
	commit(t, db, func(b *Batch) error { return errors.Join(b.End(a.TA, 0, at(50)), b.Forget(a.TA)) })
	if got := due(t, db, at(100), new(Cursor)); got != nil {
		t.Errorf("after the end: %+v", got)
	}
	if _, ok, _ := db.NextDue(new(Cursor)); ok {
		t.Error("an ended recipient is still due")
	}
}

func FuzzDecodeState(f *testing.F) {
	st := state(1, 0, at(10))
	f.Add(appendState(nil, &st))
	st.Route, st.Waits = route(), true
	f.Add(appendState(nil, &st))
	k := rcptKey(smtp.ID{Counter: 1}, 0)
	f.Fuzz(func(t *testing.T, v []byte) {
		st, err := decodeRcpt(k, v)
		if err != nil {
			return
		}
		again, err := decodeRcpt(k, appendState(nil, &st))
		if err != nil || !reflect.DeepEqual(again, st) {
			t.Fatalf("%v: %+v became %+v", err, st, again)
		}
	})
}
