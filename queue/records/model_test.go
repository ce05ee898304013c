package records

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"meta1/queue/entry"
)

// Where a recipient of the model stands.
type standing int

const (
	fresh standing = iota
	ended
	deferred
	aside
)

type modelRcpt struct {
	standing
	state State // if deferred
}

type modelMessage struct {
	inline bool
	rcpts  []modelRcpt
	fresh  bool  // a TA is there
	ended  []int // while fresh
}

func (m *modelMessage) has(s standing) bool {
	return slices.ContainsFunc(m.rcpts, func(r modelRcpt) bool { return r.standing == s })
}

// model is what the records must say.
type model map[uint64]*modelMessage

// keys are all records that must be there, as keys prints them.
func (m model) keys() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for ta, message := range m {
		add("e%d", ta)
		if message.inline {
			add("c%d", ta)
		}
		if message.fresh {
			add("a%d", ta)
		}
		for i, r := range message.rcpts {
			switch {
			case r.standing == ended && message.fresh:
				add("d%d.%d", ta, i)
			case r.standing == deferred:
				add("r%d.%d", ta, i)
				add("n%d@%d.%d", r.state.NextTry.Unix(), ta, i)
				if r.state.Parked {
					add("p%s@%d.%d", r.state.Dest, ta, i)
				}
			case r.standing == aside:
				add("x r%d.%d", ta, i)
			}
		}
	}
	slices.Sort(all)
	return all
}

// pick draws a recipient that stands so. ok is false if there is none.
func (m model) pick(t *rapid.T, s standing) (ta uint64, index int, ok bool) {
	var refs []Ref
	for n, message := range m {
		for i, r := range message.rcpts {
			if r.standing == s {
				refs = append(refs, Ref{TA: id(n), Index: i})
			}
		}
	}
	if len(refs) == 0 {
		return 0, 0, false
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	r := rapid.SampledFrom(refs).Draw(t, "recipient")
	return r.TA.Counter, r.Index, true
}

func drawState(t *rapid.T, ta uint64, index int) State {
	st := state(ta, index, at(rapid.Int64Range(1, 5).Draw(t, "time")))
	st.Parked = rapid.Bool().Draw(t, "parked")
	st.Dest = rapid.SampledFrom([]string{"mx:a", "mx:b"}).Draw(t, "destination")
	if rapid.Bool().Draw(t, "held") {
		st.NextTry, st.Held = entry.Never(), true
	}
	return st
}

// after writes what follows from a recipient's move: a message without fresh recipients is
// settled, one without any is forgotten.
func (m model) after(b *Batch, ta uint64) error {
	message := m[ta]
	if !message.has(fresh) && !message.has(deferred) && !message.has(aside) {
		delete(m, ta)
		return b.Forget(id(ta), Message{Inline: message.inline, Fresh: message.fresh, Ended: message.ended})
	}
	if message.fresh && !message.has(fresh) {
		message.fresh = false
		return b.DropAccepted(id(ta), message.ended)
	}
	return nil
}

// TestModel makes random moves and compares the records, and what every method reads, with
// a model; now and then the machine crashes.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := pvfs.NewCrashableMem()
		db := open(t, mem)
		defer func() { _ = db.Close() }()
		m := model{}
		var next uint64
		apply := func(fill func(b *Batch) error) {
			b := db.NewBatch()
			if err := errors.Join(fill(b), db.Commit(b)); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"accept": func(t *rapid.T) {
				next++
				message := &modelMessage{
					inline: rapid.Bool().Draw(t, "inline"), fresh: true,
					rcpts: make([]modelRcpt, rapid.SampledFrom([]int{1, 2, 3, rangeMin + 5}).Draw(t, "recipients")),
				}
				var content []byte
				if message.inline {
					content = []byte("x")
				}
				m[next] = message
				apply(func(b *Batch) error { return b.Accept(env(next, len(message.rcpts)), 1, content) })
			},
			"end fresh": func(t *rapid.T) {
				ta, i, ok := m.pick(t, fresh)
				if !ok {
					t.Skip()
				}
				message := m[ta]
				message.rcpts[i].standing = ended
				apply(func(b *Batch) error {
					if message.has(fresh) {
						message.ended = append(message.ended, i)
						return b.EndFresh(Ref{TA: id(ta), Index: i})
					}
					return m.after(b, ta)
				})
			},
			"end all fresh but one": func(t *rapid.T) {
				ta, keep, ok := m.pick(t, fresh)
				if !ok {
					t.Skip()
				}
				apply(func(b *Batch) error {
					var err error
					for i := range m[ta].rcpts {
						if i != keep && m[ta].rcpts[i].standing == fresh {
							m[ta].rcpts[i].standing = ended
							m[ta].ended = append(m[ta].ended, i)
							err = errors.Join(err, b.EndFresh(Ref{TA: id(ta), Index: i}))
						}
					}
					return err
				})
			},
			"defer": func(t *rapid.T) {
				ta, i, ok := m.pick(t, fresh)
				if !ok {
					t.Skip()
				}
				st := drawState(t, ta, i)
				m[ta].rcpts[i] = modelRcpt{deferred, st}
				apply(func(b *Batch) error { return errors.Join(b.Put(&st, nil), m.after(b, ta)) })
			},
			"defer again": func(t *rapid.T) {
				ta, i, ok := m.pick(t, deferred)
				if !ok {
					t.Skip()
				}
				old, st := m[ta].rcpts[i].state, drawState(t, ta, i)
				m[ta].rcpts[i].state = st
				apply(func(b *Batch) error { return b.Put(&st, &old) })
			},
			"end deferred": func(t *rapid.T) {
				ta, i, ok := m.pick(t, deferred)
				if !ok {
					t.Skip()
				}
				old := m[ta].rcpts[i].state
				m[ta].rcpts[i].standing = ended
				apply(func(b *Batch) error {
					if m[ta].fresh {
						m[ta].ended = append(m[ta].ended, i)
					}
					return errors.Join(b.EndDeferred(&old, m[ta].fresh), m.after(b, ta))
				})
			},
			"break": func(t *rapid.T) {
				ta, i, ok := m.pick(t, deferred)
				if !ok {
					t.Skip()
				}
				old := m[ta].rcpts[i].state
				m[ta].rcpts[i].standing = aside
				apply(func(b *Batch) error { return b.Set(rcptKey(KindDeferred, old.Ref), []byte("?")) })
				for _, read := range []func(v *View) error{
					func(v *View) error { _, err := rcpts(v, id(ta)); return err },
					func(v *View) error { return v.Due(entry.Never(), new(entry.Due), func(*Loaded) bool { return true }) },
					func(v *View) error { return v.Parked(old.Dest, Ref{}, func(*Loaded) bool { return true }) },
				} {
					v := db.View()
					err := read(v)
					apply(func(b *Batch) error {
						for _, r := range v.Broken() {
							err = errors.Join(err, b.SetAside(r))
						}
						return err
					})
					if err := v.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if old.Held { // nobody reads the due index so far; fsck removes it
					apply(func(b *Batch) error { return b.Delete(Indexes(&old)[0]) })
				}
			},
			"drop aside": func(t *rapid.T) {
				ta, i, ok := m.pick(t, aside)
				if !ok {
					t.Skip()
				}
				m[ta].rcpts[i].standing = ended
				apply(func(b *Batch) error {
					r := Ref{TA: id(ta), Index: i}
					err := b.DropAside(rcptKey(KindDeferred, r))
					if m[ta].fresh {
						m[ta].ended = append(m[ta].ended, i)
						err = errors.Join(err, b.EndFresh(r))
					}
					return errors.Join(err, m.after(b, ta))
				})
			},
			"crash": func(t *rapid.T) {
				mem = mem.CrashClone(pvfs.CrashCloneCfg{})
				db = open(t, mem)
			},
			"": func(t *rapid.T) {
				got := keys(t, db)
				slices.Sort(got)
				if want := m.keys(); !slices.Equal(got, want) {
					t.Fatalf("records %v\n   want %v", got, want)
				}
				m.compare(t, db)
			},
		})
	})
}

// compare reads all with each method.
func (m model) compare(t *rapid.T, db *DB) {
	v := db.View()
	defer v.Close()
	var got, want []string
	err := errors.Join(
		v.Recover(func(r *Recovered) error {
			got = append(got, fmt.Sprintf("fresh %d: %v %v %v", r.Envelope.TA.Counter, r.Ended, r.Deferred, r.Aside))
			return nil
		}),
		v.Entries(Ref{}, func(e *Entry) bool {
			got = append(got, fmt.Sprintf("entry %v %v %d", e.Ref, e.Aside, len(e.Envelope.Rcpts)))
			return true
		}),
		v.Due(at(3), new(entry.Due), func(l *Loaded) bool {
			got = append(got, fmt.Sprintf("due %v %d %v", l.Ref, l.NextTry.Unix(), l.Envelope.Inline))
			return true
		}),
		v.Parked("mx:a", Ref{}, func(l *Loaded) bool {
			got = append(got, fmt.Sprintf("parked %v", l.Ref))
			return true
		}),
	)
	if err != nil || len(v.Broken()) > 0 {
		t.Fatal(err, v.Broken())
	}
	for ta, message := range m {
		if message.fresh {
			var endedHere, asideHere []int
			var states []State
			for i, r := range message.rcpts {
				switch r.standing {
				case ended:
					endedHere = append(endedHere, i)
				case deferred:
					states = append(states, r.state)
				case aside:
					asideHere = append(asideHere, i)
				}
			}
			want = append(want, fmt.Sprintf("fresh %d: %v %v %v", ta, endedHere, states, asideHere))
		}
		for i, r := range message.rcpts {
			ref := Ref{TA: id(ta), Index: i}
			if r.standing == deferred || r.standing == aside {
				want = append(want, fmt.Sprintf("entry %v %v %d", ref, r.standing == aside, len(message.rcpts)))
			}
			if r.standing != deferred {
				continue
			}
			if !r.state.NextTry.After(at(3)) {
				want = append(want, fmt.Sprintf("due %v %d %v", ref, r.state.NextTry.Unix(), message.inline))
			}
			if r.state.Parked && r.state.Dest == "mx:a" {
				want = append(want, fmt.Sprintf("parked %v", ref))
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("read %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}
