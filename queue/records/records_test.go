package records

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/entry"
)

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Error(args ...any)
	Fatal(args ...any)
}

func open(t tester, mem *pvfs.MemFS) *DB {
	t.Helper()
	// A small disk keeps Pebble's memory small; compactions need free space on it.
	space := func() (free, total int64) { return 1 << 30, 32 << 20 }
	db, err := Open(crashfs.FS(mem, space), "defedb", store.Options{
		Log:   slog.New(slog.DiscardHandler),
		Fatal: func(err error) { t.Error("fatal:", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// openNew opens a new store, which is closed when the test ends.
func openNew(t *testing.T) *DB {
	t.Helper()
	db := open(t, pvfs.NewCrashableMem())
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func view(t *testing.T, db *DB) *View {
	t.Helper()
	v := db.View()
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func commit(t tester, db *DB, fill func(*Batch) error) {
	t.Helper()
	b := db.NewBatch()
	if err := fill(b); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0) }

func id(n uint64) smtp.ID { return smtp.ID{Counter: n, Process: 1} }

func env(n uint64, rcpts int) *msg.Envelope {
	e := &msg.Envelope{TA: id(n), Arrival: at(int64(n)), Mail: msg.Mail{From: smtp.Path{Local: "s", Domain: "d.test"}}}
	for range rcpts {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: smtp.Path{Local: "r", Domain: "d.test"}})
	}
	return e
}

// state is one with a value in every field.
func state(n uint64, index int, next time.Time) State {
	return State{
		Ref: Ref{TA: id(n), Index: index}, NextTry: next, Stored: at(5), Waited: 1500 * time.Millisecond,
		Attempts: 3, Delayed: true, Parked: true, Dest: "mx:d.test", Reason: "450 4.2.0 later",
	}
}

// keys prints all records but those of package store: kind, message and what follows.
func keys(t tester, db *DB) []string {
	t.Helper()
	var all []string
	err := db.Store().Reader().Scan([]byte{1}, nil, func(k, _ []byte) (bool, error) {
		all = append(all, keyText(k))
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func keyText(k []byte) string {
	key, err := ParseKey(k)
	if err != nil {
		return fmt.Sprintf("?%q", k)
	}
	switch key.Kind {
	case KindAccepted, KindContent, KindEnvelope:
		return fmt.Sprintf("%c%d", key.Kind, key.TA.Counter)
	case KindEnded, KindDeferred:
		return fmt.Sprintf("%c%d.%d", key.Kind, key.TA.Counter, key.Index)
	case KindDue:
		return fmt.Sprintf("n%d@%d.%d", key.Time.Unix(), key.TA.Counter, key.Index)
	case KindParked:
		return fmt.Sprintf("p%s@%d.%d", key.Dest, key.TA.Counter, key.Index)
	case KindAside:
		return "x " + keyText([]byte(key.Old))
	default:
		return "m"
	}
}

func wantKeys(t *testing.T, db *DB, want string) {
	t.Helper()
	if got := strings.Join(keys(t, db), " "); got != want {
		t.Errorf("records %s\n   want %s", got, want)
	}
}

// TestMoves follows messages through each change, with the records that are then there.
func TestMoves(t *testing.T) {
	db := openNew(t)
	first, again, second := state(1, 0, at(100)), state(1, 0, at(200)), state(1, 2, at(300))
	again.Parked = false
	steps := []struct {
		fill func(b *Batch) error
		want string
	}{
		{
			func(b *Batch) error {
				return errors.Join(b.Accept(env(1, 3), 2, []byte("hi")), b.Accept(env(2, 1), 9, nil))
			},
			"a1 a2 c1 e1 e2",
		},
		{func(b *Batch) error { return b.EndFresh(Ref{TA: id(1), Index: 1}) }, "a1 a2 c1 d1.1 e1 e2"},
		{func(b *Batch) error { return b.Put(&second, nil) }, "a1 a2 c1 d1.1 e1 e2 n300@1.2 pmx:d.test@1.2 r1.2"},
		{func(b *Batch) error { return b.EndDeferred(&second, true) }, "a1 a2 c1 d1.1 d1.2 e1 e2"},
		{func(b *Batch) error { return b.Put(&first, nil) }, "a1 a2 c1 d1.1 d1.2 e1 e2 n100@1.0 pmx:d.test@1.0 r1.0"},
		{func(b *Batch) error { return b.DropAccepted(id(1), []int{1, 2}) }, "a2 c1 e1 e2 n100@1.0 pmx:d.test@1.0 r1.0"},
		{func(b *Batch) error { return b.Forget(id(2), Message{Fresh: true}) }, "c1 e1 n100@1.0 pmx:d.test@1.0 r1.0"},
		{func(b *Batch) error { return b.Put(&first, &first) }, "c1 e1 n100@1.0 pmx:d.test@1.0 r1.0"},
		{func(b *Batch) error { return b.Put(&again, &first) }, "c1 e1 n200@1.0 r1.0"},
		{func(b *Batch) error { return b.Put(&first, &again) }, "c1 e1 n100@1.0 pmx:d.test@1.0 r1.0"},
		{func(b *Batch) error {
			return errors.Join(b.EndDeferred(&first, false), b.Forget(id(1), Message{Inline: true}))
		}, ""},
	}
	for i, s := range steps {
		commit(t, db, s.fill)
		t.Run(fmt.Sprint(i), func(t *testing.T) { wantKeys(t, db, s.want) })
	}
}

// TestForgetMany removes so many records of ended recipients that a range is deleted: its
// neighbours stay.
func TestForgetMany(t *testing.T) {
	for _, n := range []int{rangeMin - 1, rangeMin, 3 * rangeMin} {
		db := openNew(t)
		var ended []int
		commit(t, db, func(b *Batch) error {
			err := errors.Join(b.Accept(env(1, n+1), 1, nil), b.Accept(env(2, n+1), 1, nil), b.Accept(env(3, 2), 1, nil),
				b.EndFresh(Ref{TA: id(1), Index: 0}), b.EndFresh(Ref{TA: id(3), Index: 0}))
			for i := range n {
				ended = append(ended, i)
				err = errors.Join(err, b.EndFresh(Ref{TA: id(2), Index: i}))
			}
			return err
		})
		commit(t, db, func(b *Batch) error { return b.Forget(id(2), Message{Fresh: true, Ended: ended}) })
		wantKeys(t, db, "a1 a3 d1.0 d3.0 e1 e3")
	}
}

func TestCommittedRecordsSurviveACrash(t *testing.T) {
	mem := pvfs.NewCrashableMem()
	db := open(t, mem)
	st := state(1, 1, at(100))
	commit(t, db, func(b *Batch) error {
		return errors.Join(b.Accept(env(1, 2), 3, []byte("one")), b.Put(&st, nil))
	})
	lost := db.NewBatch()
	if err := lost.Accept(env(9, 1), 4, []byte("lost")); err != nil {
		t.Fatal(err)
	}
	lost.Discard()
	db = open(t, mem.CrashClone(pvfs.CrashCloneCfg{}))
	defer db.Close()
	wantKeys(t, db, "a1 c1 e1 n100@1.1 pmx:d.test@1.1 r1.1")
	if c, ok, err := db.Content(id(1)); string(c) != "one" || !ok || err != nil {
		t.Errorf("content %q, %v, %v", c, ok, err)
	}
	if _, ok, err := db.Content(id(9)); ok || err != nil {
		t.Errorf("content that was never committed: %v, %v", ok, err)
	}
}

// TestContentAfterClose: a delivery may outlive the queue.
func TestContentAfterClose(t *testing.T) {
	db := open(t, pvfs.NewCrashableMem())
	commit(t, db, func(b *Batch) error { return b.Accept(env(1, 1), 1, []byte("x")) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.Content(id(1)); err == nil {
		t.Error("no error from a closed store")
	}
}

func TestIDsNeverRepeat(t *testing.T) {
	mem := pvfs.NewCrashableMem()
	var bound uint64
	for range 3 {
		db := open(t, mem)
		first, err := db.ReserveIDs(1000)
		if err != nil || first < bound || first == 0 {
			t.Fatalf("first id %d below bound %d, %v", first, bound, err)
		}
		bound = first + 1000
		mem = mem.CrashClone(pvfs.CrashCloneCfg{})
	}
}

func TestBrokenIDs(t *testing.T) {
	for _, v := range [][]byte{nil, {1}, make([]byte, 9), bytes.Repeat([]byte{255}, 8)} {
		db := openNew(t)
		commit(t, db, func(b *Batch) error { return b.Set(idsKey, v) })
		if first, err := db.ReserveIDs(10); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%x: id %d, %v; want ErrDamaged", v, first, err)
		}
	}
}

func TestOldVersionIsRefused(t *testing.T) {
	mem := crashfs.FS(pvfs.NewCrashableMem(), nil)
	o := store.Options{Name: "DEFEDB", Version: 2, Log: slog.New(slog.DiscardHandler)}
	s, err := store.Open(mem, "defedb", o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(mem, "defedb", o)
	if !errors.Is(err, store.ErrVersion) || !strings.Contains(err.Error(), "version 2, this program reads version 3") {
		t.Errorf("%v", err)
	}
}

func TestImpossibleStatesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*State){
		"parked without a destination":       func(st *State) { st.Dest = "" },
		"parked for too long a name":         func(st *State) { st.Dest = strings.Repeat("x", entry.DestMax+1) },
		"held, but to be tried":              func(st *State) { st.Held = true },
		"negative index":                     func(st *State) { st.Index = -1 },
		"negative attempts":                  func(st *State) { st.Attempts = -1 },
		"content of another size than it is": nil,
	} {
		db := openNew(t)
		b := db.NewBatch()
		st := state(1, 0, at(1))
		var err error
		if change != nil {
			change(&st)
			err = b.Put(&st, nil)
		} else {
			err = b.Accept(env(1, 1), 1, []byte("xx"))
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		b.Discard()
	}
}

// rcpts reads the states of all deferred recipients of a message, in order.
func rcpts(v *View, ta smtp.ID) (all []State, err error) {
	err = v.Entries(Ref{TA: ta}, func(e *Entry) bool {
		if e.TA == ta && !e.Aside {
			all = append(all, e.State)
		}
		return e.TA == ta
	})
	return all, err
}

// asides calls f for the records that were set aside, with the keys that they had.
func asides(v *View, f func(key, value []byte) bool) error {
	return v.r.Scan([]byte{byte(KindAside)}, []byte{byte(KindAside) + 1}, func(k, value []byte) (bool, error) { return f(k[1:], value), nil })
}

func dueAt(t *testing.T, v *View, now time.Time, c *entry.Due, most int) (got []string) {
	t.Helper()
	err := v.Due(now, c, func(l *Loaded) bool {
		got = append(got, fmt.Sprintf("%d.%d", l.TA.Counter, l.Index))
		return len(got) < most
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDue(t *testing.T) {
	db := openNew(t)
	held := state(1, 3, entry.Never())
	held.Held = true
	commit(t, db, func(b *Batch) error {
		err := errors.Join(b.Accept(env(1, 4), 7, nil), b.Accept(env(2, 1), 0, []byte{}), b.Put(&held, nil))
		for i, next := range []int64{30, 10, 20} {
			st := state(1, i, at(next))
			err = errors.Join(err, b.Put(&st, nil))
		}
		return err
	})
	commit(t, db, func(b *Batch) error { st := state(2, 0, at(-5)); return b.Put(&st, nil) }) // before 1970
	v := view(t, db)
	var c entry.Due
	if next, ok, err := v.NextDue(c); !next.Equal(at(0)) || !ok || err != nil {
		t.Errorf("next %v, %v, %v", next, ok, err)
	}
	if got := dueAt(t, v, at(20), &c, 1); !slices.Equal(got, []string{"2.0"}) {
		t.Errorf("first: %v", got)
	}
	if got := dueAt(t, v, at(20), &c, 9); !slices.Equal(got, []string{"1.1", "1.2"}) {
		t.Errorf("then: %v", got)
	}
	if !c.At.Equal(at(20)) || c.Ref != (Ref{TA: id(1), Index: 2}) {
		t.Errorf("the cursor stands behind %v", c)
	}
	if next, ok, err := v.NextDue(c); !next.Equal(at(30)) || !ok || err != nil {
		t.Errorf("next %v, %v, %v", next, ok, err)
	}
	if got := dueAt(t, v, entry.Never(), &c, 9); !slices.Equal(got, []string{"1.0"}) {
		t.Errorf("last: %v; one that is held is never due", got)
	}
	if _, ok, err := v.NextDue(c); ok || err != nil {
		t.Errorf("something after all: %v, %v", ok, err)
	}
	c = entry.Due{At: at(20)}
	if got := dueAt(t, v, at(25), &c, 9); !slices.Equal(got, []string{"1.2"}) {
		t.Errorf("from 20 on: %v", got)
	}
	err := v.Due(at(20), new(entry.Due), func(l *Loaded) bool {
		want := Loaded{State: state(l.TA.Counter, l.Index, l.NextTry), Envelope: Envelope{env(1, 4), 7, false}}
		if l.TA == id(2) {
			want.Envelope = Envelope{env(2, 1), 0, true}
		}
		if !reflect.DeepEqual(*l, want) {
			t.Errorf("%#v\nwant %#v", *l, want)
		}
		return true
	})
	if err != nil || len(v.Broken()) > 0 {
		t.Errorf("%v, %v", err, v.Broken())
	}
}

func TestParked(t *testing.T) {
	db := openNew(t)
	commit(t, db, func(b *Batch) error {
		var err error
		for ta := range uint64(5) {
			err = errors.Join(err, b.Accept(env(ta, 8), 1, nil))
		}
		for _, p := range []struct {
			ta     uint64
			index  int
			dest   string
			parked bool
		}{
			{3, 0, "mx:a", true},
			{1, 7, "mx:a", true},
			{1, 2, "mx:a", true},
			{2, 0, "mx:a", false},
			{2, 1, "mx:b", true},
			{4, 0, "mx:a0", true},
		} {
			st := state(p.ta, p.index, at(int64(1000-p.ta)))
			st.Dest, st.Parked = p.dest, p.parked
			err = errors.Join(err, b.Put(&st, nil))
		}
		return err
	})
	v := view(t, db)
	parked := func(dest string, from Ref, most int) (got []string) {
		t.Helper()
		err := v.Parked(dest, from, func(l *Loaded) bool {
			got = append(got, fmt.Sprintf("%d.%d", l.Envelope.TA.Counter, l.Index))
			return len(got) < most
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := parked("mx:a", Ref{}, 2); !slices.Equal(got, []string{"1.2", "1.7"}) {
		t.Errorf("first two: %v", got)
	}
	if got := parked("mx:a", Ref{TA: env(1, 8).TA, Index: 8}, 9); !slices.Equal(got, []string{"3.0"}) {
		t.Errorf("the others: %v", got)
	}
	if n, err := v.Left(env(1, 8).TA); n != 2 || err != nil {
		t.Errorf("%d recipients of the first message are left, %v", n, err)
	}
	var c entry.Due
	if err := v.Due(at(2000), &c, func(*Loaded) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if c.Ref != (Ref{TA: env(4, 8).TA}) {
		t.Errorf("the cursor stands behind %v at %v", c.Ref, c.At)
	}
	var dests []string
	if err := v.ParkedFor(func(d string) bool { dests = append(dests, d); return len(dests) < 3 }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dests, []string{"mx:a", "mx:b", "mx:a0"}) {
		t.Errorf("destinations %q", dests)
	}
	if len(v.Broken()) > 0 {
		t.Error(v.Broken())
	}
}

func entries(t *testing.T, v *View, from Ref, most int) (got []string) {
	t.Helper()
	err := v.Entries(from, func(e *Entry) bool {
		s := e.Ref.String()[13:17] + fmt.Sprintf(".%d", e.Index)
		if e.Aside {
			s += "x"
		}
		if e.Envelope.Envelope == nil {
			s += "?"
		}
		got = append(got, s)
		return len(got) < most
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestReading reads what is deferred, aside, broken and fresh in every order.
func TestReading(t *testing.T) {
	db := openNew(t)
	commit(t, db, func(b *Batch) error {
		err := errors.Join(b.Accept(env(1, 5), 2, []byte("hi")), b.Accept(env(2, 3), 1, nil), b.EndFresh(Ref{TA: id(1), Index: 4}))
		for _, r := range []Ref{{TA: id(1), Index: 1}, {TA: id(1), Index: 3}, {TA: id(2), Index: 0}, {TA: id(2), Index: 2}} {
			st := state(r.TA.Counter, r.Index, at(50))
			err = errors.Join(err, b.Put(&st, nil))
		}
		return errors.Join(err, b.DropAccepted(id(2), nil),
			b.Set(asideKey(rcptKey(KindDeferred, Ref{TA: id(1), Index: 2})), []byte("?")),
			b.Set(asideKey([]byte("r?")), []byte("?")),
			b.Set(rcptKey(KindDeferred, Ref{TA: id(1), Index: 3}), []byte("?")))
	})
	v := view(t, db)
	all := entries(t, v, Ref{}, 99)
	for i, c := range []struct {
		from Ref
		most int
		want []string
	}{
		{Ref{TA: id(0), Index: 0}, 1, all[:1]},
		{Ref{TA: id(1), Index: 2}, 2, all[1:3]},
		{Ref{TA: id(1), Index: 4}, 9, all[3:]},
		{Ref{TA: id(3), Index: 0}, 9, nil},
	} {
		if got := entries(t, v, c.from, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	if want := []string{".1", ".2x", ".3x", ".0", ".2"}; len(all) != 5 || !strings.HasSuffix(all[1], want[1]) || !strings.HasSuffix(all[2], want[2]) {
		t.Errorf("entries %v", all)
	}
	var rec []Recovered
	if err := v.Recover(func(r *Recovered) error { rec = append(rec, *r); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []Recovered{{
		Envelope: Envelope{env(1, 5), 2, true}, Ended: []int{4}, Deferred: []State{state(1, 1, at(50))}, Aside: []int{2, 3},
	}}
	if !reflect.DeepEqual(rec, want) {
		t.Errorf("recovered %+v\nwant %+v", rec, want)
	}
	if sts, err := rcpts(v, id(2)); err != nil || !reflect.DeepEqual(sts, []State{state(2, 0, at(50)), state(2, 2, at(50))}) {
		t.Errorf("recipients %v, %v", sts, err)
	}
	if arrival, ok, err := v.Oldest(); !arrival.Equal(at(1)) || !ok || err != nil {
		t.Errorf("oldest %v, %v, %v", arrival, ok, err)
	}
	if deferred, aside, err := v.Count(context.Background()); deferred != 4 || aside != 2 || err != nil {
		t.Errorf("%d deferred, %d aside, %v", deferred, aside, err)
	}
	var aside []string
	if err := asides(v, func(k, value []byte) bool { aside = append(aside, keyText(k)+string(value)); return true }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(aside, []string{"r1.2?", `?"r?"?`}) {
		t.Errorf("aside: %q", aside)
	}
	for ta, want := range map[uint64]bool{0: false, 1: true, 2: true, 3: false} {
		if has, err := HasMessage(v.r, id(ta)); has != want || err != nil {
			t.Errorf("message %d: %v, %v", ta, has, err)
		}
	}
	if b := v.Broken(); len(b) != 1 || keyText(b[0].Key) != "r1.3" {
		t.Errorf("broken %v", b)
	}
}

// TestEmpty reads a store that has nothing.
func TestEmpty(t *testing.T) {
	v := view(t, openNew(t))
	if _, ok, err := v.Oldest(); ok || err != nil {
		t.Errorf("oldest: %v, %v", ok, err)
	}
	if _, ok, err := v.Envelope(id(1)); ok || err != nil {
		t.Errorf("envelope: %v, %v", ok, err)
	}
	if got := entries(t, v, Ref{}, 9); got != nil {
		t.Errorf("entries: %v", got)
	}
	if len(v.Broken()) > 0 {
		t.Error(v.Broken())
	}
}

// TestCountEnds: a count that nobody waits for does not go on.
func TestCountEnds(t *testing.T) {
	db := openNew(t)
	commit(t, db, func(b *Batch) error {
		err := b.Accept(env(1, 2*countStep), 1, nil)
		for i := range 2 * countStep {
			st := state(1, i, at(1))
			err = errors.Join(err, b.Put(&st, nil))
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, _, err := view(t, db).Count(ctx); n != countStep || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestViewDoesNotChange: a view shows the store as it was.
func TestViewDoesNotChange(t *testing.T) {
	db := openNew(t)
	st := state(1, 0, at(9))
	commit(t, db, func(b *Batch) error { return errors.Join(b.Accept(env(1, 2), 1, nil), b.Put(&st, nil)) })
	v := view(t, db)
	commit(t, db, func(b *Batch) error {
		return errors.Join(b.EndDeferred(&st, true), b.Forget(id(1), Message{Fresh: true, Ended: []int{0}}))
	})
	if got := dueAt(t, v, at(9), new(entry.Due), 9); len(got) != 1 {
		t.Errorf("due %v", got)
	}
	if _, ok, err := v.Envelope(id(1)); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// TestRestoredRecordsCanBeRemoved: fsck writes records anew that SingleDelete removes
// later; an older value must not come back, wherever Pebble's flushes fall.
func TestRestoredRecordsCanBeRemoved(t *testing.T) {
	for flushes := range 8 {
		db := openNew(t)
		flush := func(step int) {
			t.Helper()
			if flushes>>step&1 != 0 {
				if err := db.Store().Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		commit(t, db, func(b *Batch) error { return b.Accept(env(1, 1), 1, []byte("a")) })
		flush(0)
		commit(t, db, func(b *Batch) error {
			return errors.Join(b.Set(messageKey(KindContent, id(1)), []byte("b")), b.Set(messageKey(KindAccepted, id(1)), nil),
				b.Set(messageKey(KindEnvelope, id(1)), AppendEnvelope(nil, &Envelope{env(1, 1), 1, true})))
		})
		flush(1)
		commit(t, db, func(b *Batch) error { return b.Forget(id(1), Message{Inline: true, Fresh: true}) })
		flush(2)
		wantKeys(t, db, "")
		if err := db.Store().Flush(); err != nil {
			t.Fatal(err)
		}
		if err := db.Store().Compact(context.Background(), []byte("a"), []byte("z"), false); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, db, "")
	}
}
