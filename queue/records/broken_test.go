package records

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"meta1/queue/entry"
)

// reads are all methods that read more than one record.
var reads = map[string]func(v *View) error{
	"Due":       func(v *View) error { return v.Due(at(1e9), new(entry.Due), func(*Loaded) bool { return true }) },
	"NextDue":   func(v *View) error { _, _, err := v.NextDue(entry.Due{}); return err },
	"Parked":    func(v *View) error { return v.Parked("mx:d.test", Ref{}, func(*Loaded) bool { return true }) },
	"ParkedFor": func(v *View) error { return v.ParkedFor(func(string) bool { return true }) },
	"Rcpts":     func(v *View) error { _, err := rcpts(v, id(1)); return err },
	"Envelope":  func(v *View) error { _, _, err := v.Envelope(id(1)); return err },
	"Entries":   func(v *View) error { return v.Entries(Ref{}, func(*Entry) bool { return true }) },
	"Recover":   func(v *View) error { return v.Recover(func(*Recovered) error { return nil }) },
	"Oldest":    func(v *View) error { _, _, err := v.Oldest(); return err },
}

// TestBroken breaks a record of each kind and lets every method meet it: none fails, the
// record is reported by those that must, goes aside, and the other message is read as ever.
func TestBroken(t *testing.T) {
	all := []string{"Due", "Parked", "Rcpts", "Entries", "Recover"}
	with := func(more ...string) []string { return append(slices.Clone(all), more...) }
	const other = "a2 c2 e2 n50@2.1 pmx:d.test@2.1 r2.1"
	r10 := Ref{TA: id(1), Index: 0}
	cases := []struct {
		name       string
		breakIt    func(b *Batch) error
		reportedBy []string
		want       string // records after they were set aside
	}{
		{
			"state",
			func(b *Batch) error { return b.Set(rcptKey(KindDeferred, r10), []byte("?")) },
			all,
			"a1 a2 c1 c2 d1.2 e1 e2 n50@2.1 pmx:d.test@2.1 r2.1 x r1.0",
		},
		{
			"recipient that the message does not have",
			func(b *Batch) error { st := state(1, 3, at(50)); return b.Put(&st, nil) },
			all,
			"a1 a2 c1 c2 d1.2 e1 e2 n50@1.0 n50@2.1 pmx:d.test@1.0 pmx:d.test@2.1 r1.0 r2.1 x r1.3",
		},
		{
			"envelope",
			func(b *Batch) error { return b.Set(messageKey(KindEnvelope, id(1)), []byte("?")) },
			with("Envelope", "Oldest"),
			"a2 c1 c2 e2 n50@2.1 pmx:d.test@2.1 r2.1 x a1 x d1.2 x e1 x r1.0",
		},
		{
			"envelope of another message",
			func(b *Batch) error {
				return b.Set(messageKey(KindEnvelope, id(1)), AppendEnvelope(nil, &Envelope{env(2, 2), 1, false}))
			},
			with("Envelope", "Oldest"),
			"a2 c1 c2 e2 n50@2.1 pmx:d.test@2.1 r2.1 x a1 x d1.2 x e1 x r1.0",
		},
		{
			"no envelope",
			func(b *Batch) error { return b.Delete(messageKey(KindEnvelope, id(1))) },
			with("Envelope"),
			"a2 c1 c2 e2 n50@2.1 pmx:d.test@2.1 r2.1 x a1 x d1.2 x r1.0",
		},
		{
			"no state",
			func(b *Batch) error { return b.Delete(rcptKey(KindDeferred, r10)) },
			[]string{"Due", "Parked"},
			"a1 a2 c1 c2 d1.2 e1 e2 n50@2.1 pmx:d.test@2.1 r2.1",
		},
		{
			"due index of another time",
			func(b *Batch) error { return b.Set(dueKey(at(7), r10), nil) },
			[]string{"Due"},
			"a1 a2 c1 c2 d1.2 e1 e2 n50@1.0 n50@2.1 pmx:d.test@1.0 pmx:d.test@2.1 r1.0 r2.1",
		},
		{
			"parked index of another destination",
			func(b *Batch) error {
				st := state(1, 0, at(50))
				old := st
				st.Dest = "mx:e.test"
				return errors.Join(b.Put(&st, &old), b.Set(parkedKey("mx:d.test", r10), nil))
			},
			[]string{"Parked"},
			"a1 a2 c1 c2 d1.2 e1 e2 n50@1.0 n50@2.1 pmx:d.test@2.1 pmx:e.test@1.0 r1.0 r2.1",
		},
		{"key of a due index", func(b *Batch) error { return b.Set([]byte("n\x00"), []byte("!")) }, []string{"Due", "NextDue"}, ""},
		{"key of a parked index", func(b *Batch) error { return b.Set([]byte("p\x00"), []byte("!")) }, []string{"ParkedFor"}, ""},
		{
			"key of a parked index of a destination",
			func(b *Batch) error { return b.Set(append(parkedPrefix("mx:d.test"), '?'), []byte("!")) },
			[]string{"Parked"},
			"",
		},
		{"key of a state", func(b *Batch) error { return b.Set([]byte("r?"), []byte("!")) }, []string{"Entries"}, ""},
		{
			"key of a state of the message",
			func(b *Batch) error { return b.Set(append(messageKey(KindDeferred, id(1)), '?'), []byte("!")) },
			[]string{"Rcpts", "Entries", "Recover"},
			"",
		},
		{"key of an envelope", func(b *Batch) error { return b.Set([]byte("e\x00"), []byte("!")) }, []string{"Oldest"}, ""},
		{"key of an accepted message", func(b *Batch) error { return b.Set([]byte("a?"), []byte("!")) }, []string{"Recover"}, ""},
		{
			"key of a recipient that ended",
			func(b *Batch) error { return b.Set(append(messageKey(KindEnded, id(1)), '?'), []byte("!")) },
			[]string{"Recover"},
			"",
		},
		{
			"recipient that ended, which the message does not have",
			func(b *Batch) error { return b.EndFresh(Ref{TA: id(1), Index: 3}) },
			[]string{"Recover"},
			"a1 a2 c1 c2 d1.2 e1 e2 n50@1.0 n50@2.1 pmx:d.test@1.0 pmx:d.test@2.1 r1.0 r2.1 x d1.3",
		},
	}
	for _, c := range cases {
		for read, f := range reads {
			t.Run(c.name+"/"+read, func(t *testing.T) {
				db := openNew(t)
				commit(t, db, func(b *Batch) error {
					first, second := state(1, 0, at(50)), state(2, 1, at(50))
					return errors.Join(b.Accept(env(1, 3), 1, []byte("x")), b.EndFresh(Ref{TA: id(1), Index: 2}), b.Put(&first, nil),
						b.Accept(env(2, 2), 1, []byte("y")), b.Put(&second, nil))
				})
				commit(t, db, c.breakIt)
				before := strings.Join(keys(t, db), " ")
				v := view(t, db)
				if err := f(v); err != nil {
					t.Fatal(err)
				}
				if got, want := len(v.Broken()) > 0, slices.Contains(c.reportedBy, read); got != want {
					t.Fatalf("reported: %v, want %v: %v", got, want, v.Broken())
				}
				for range 2 { // a record may be reported by two views
					commit(t, db, func(b *Batch) error {
						for _, r := range v.Broken() {
							if r.Err == nil {
								t.Errorf("%s is broken, and nobody says why", keyText(r.Key))
							}
							if err := b.SetAside(r); err != nil {
								return err
							}
						}
						return nil
					})
				}
				after := strings.Join(keys(t, db), " ")
				if !slices.Contains(c.reportedBy, read) {
					if after != before {
						t.Errorf("records %s\n   want %s", after, before)
					}
					return
				}
				if c.want == "" { // a key without a form: nothing else changes
					if got := strings.Count(after, "x ?"); got != 1 || strings.Count(after, " ") != strings.Count(before, " ")+1 {
						t.Errorf("records %s\n before %s", after, before)
					}
				} else if got := withoutLeftovers(t, db); got != c.want {
					t.Errorf("records %s\n   want %s", got, c.want)
				}
				good := db.View()
				defer good.Close()
				for _, f := range reads {
					if err := f(good); err != nil {
						t.Error(err)
					}
				}
				if st, err := rcpts(good, id(2)); len(st) != 1 || err != nil {
					t.Errorf("the other message has %v, %v", st, err)
				}
				for _, k := range strings.Fields(other) {
					if !slices.Contains(keys(t, db), k) {
						t.Errorf("%s of the other message is gone", k)
					}
				}
			})
		}
	}
}

// withoutLeftovers reads all indexes, removes the records that fit no state, as the queue
// does in the course of time, and prints all records.
func withoutLeftovers(t *testing.T, db *DB) string {
	t.Helper()
	v := view(t, db)
	for _, read := range []string{"Due", "Parked"} {
		if err := reads[read](v); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, db, func(b *Batch) error {
		var err error
		for _, r := range v.Broken() {
			if !leftover(&r) {
				t.Errorf("still broken: %s: %v", keyText(r.Key), r.Err)
			}
			err = errors.Join(err, b.SetAside(r))
		}
		return err
	})
	return strings.Join(keys(t, db), " ")
}

// TestBrokenKeepsItsValue: what is set aside can be looked at, and put back or dropped.
func TestBrokenKeepsItsValue(t *testing.T) {
	db := openNew(t)
	key := rcptKey(KindDeferred, Ref{TA: id(1), Index: 0})
	commit(t, db, func(b *Batch) error { return b.Set(key, []byte("value")) })
	v := view(t, db)
	if _, err := rcpts(v, id(1)); err != nil {
		t.Fatal(err)
	}
	commit(t, db, func(b *Batch) error { return b.SetAside(v.Broken()[0]) })
	var got string
	if err := asides(view(t, db), func(k, value []byte) bool { got += keyText(k) + "=" + string(value); return true }); err != nil {
		t.Fatal(err)
	}
	if got != "r1.0=value" {
		t.Errorf("aside: %s", got)
	}
	commit(t, db, func(b *Batch) error { return b.DropAside(key) })
	// The view is old by now: what it saw must not come back.
	commit(t, db, func(b *Batch) error { return b.SetAside(v.Broken()[0]) })
	wantKeys(t, db, "")
}

// TestBrokenIsBounded: a view collects so many records, of each message all or none.
func TestBrokenIsBounded(t *testing.T) {
	db := openNew(t)
	const rcpts, messages = 300, 5
	commit(t, db, func(b *Batch) error {
		var err error
		for ta := range uint64(messages) {
			err = errors.Join(err, b.Set(messageKey(KindEnvelope, id(ta)), []byte("?")))
			for i := range rcpts {
				st := state(ta, i, at(1))
				err = errors.Join(err, b.Put(&st, nil))
			}
		}
		return err
	})
	for left := messages; left > 0; {
		v := view(t, db)
		if err := v.Entries(Ref{}, func(*Entry) bool { return true }); err != nil {
			t.Fatal(err)
		}
		n := len(v.Broken())
		if n == 0 || n%(rcpts+1) != 0 || n > brokenMax+rcpts {
			t.Fatalf("%d records with %d messages left", n, left)
		}
		left -= n / (rcpts + 1)
		commit(t, db, func(b *Batch) error {
			var err error
			for _, r := range v.Broken() {
				err = errors.Join(err, b.SetAside(r))
			}
			return err
		})
	}
	for _, k := range keys(t, db) {
		if !strings.HasPrefix(k, "x ") {
			t.Fatalf("%s is left", k)
		}
	}
}
