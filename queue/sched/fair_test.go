package sched

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRoundsGiveEachOneTurn(t *testing.T) {
	var r Rounds[string]
	take := func(again bool) string {
		v := r.Next()
		r.Done(again)
		return v
	}
	r.Add("huge", at(5))
	for range 3 {
		if got := take(true); got != "huge" {
			t.Fatalf("alone: %q", got)
		}
	}
	r.Add("young", at(9))
	r.Add("old", at(1))
	var got []string
	for range 6 {
		got = append(got, take(true))
	}
	if want := []string{"old", "young", "old", "huge", "young", "old"}; !slices.Equal(got, want) {
		t.Errorf("turns %q, want %q", got, want)
	}
	r.Keep(func(v string) bool { return v != "old" })
	if a, b := take(false), take(false); a != "huge" || b != "young" || r.Len() != 0 || r.Next() != "" {
		t.Errorf("then %q, %q, and %d are left", a, b, r.Len())
	}
	r.Done(true) // of nobody
}

func at(s int64) time.Time { return time.Unix(s, 0) }

// TestRoundsAreFair: between two turns of one, each of the others has at most one, or
// two if it came in between, whatever their ages.
func TestRoundsAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Rounds[int]
		turns := map[int]map[int]int{} // of others since the last turn of the first
		came := map[int]int{}
		left := map[int]int{}
		for step := range 200 {
			if rapid.IntRange(0, 2).Draw(t, "step") == 0 || r.Len() == 0 {
				turns[step], came[step] = map[int]int{}, step
				left[step] = rapid.IntRange(1, 30).Draw(t, "turns")
				r.Add(step, at(rapid.Int64Range(0, 9).Draw(t, "age")))
				continue
			}
			v := r.Next()
			left[v]--
			r.Done(left[v] > 0)
			for other, seen := range turns {
				if other == v {
					continue
				}
				most := 1
				if came[v] > came[other] {
					most = 2
				}
				if seen[v]++; seen[v] > most {
					t.Fatalf("%d had %d turns while %d waited for one", v, seen[v], other)
				}
			}
			if turns[v] = map[int]int{}; left[v] == 0 {
				delete(turns, v)
			}
		}
	})
}

func TestTurnsStarveNobody(t *testing.T) {
	var turns Turns
	var deferred int
	for range 100 {
		if turns.Deferred(true, true) {
			deferred++
		}
	}
	if deferred != 25 || turns.Deferred(true, false) || !turns.Deferred(false, true) {
		t.Errorf("%d of 100 turns", deferred)
	}
}

func TestHeapKeepsOrderAndPlaces(t *testing.T) {
	type thing struct{ key, place int }
	rapid.Check(t, func(t *rapid.T) {
		h := NewHeap(func(a, b *thing) bool { return a.key < b.key }, func(v *thing) *int { return &v.place })
		in := map[*thing]bool{}
		for range 100 {
			switch v := (&thing{key: rapid.IntRange(0, 9).Draw(t, "key")}); rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				h.Push(v)
				in[v] = true
			case 2:
				if v, ok := h.Pop(); ok != (len(in) > 0) || ok && (!in[v] || v.place != 0) {
					t.Fatalf("popped %v, %v", v, ok)
				} else if ok {
					delete(in, v)
				}
			case 3:
				for v := range in {
					h.Remove(v)
					h.Remove(v) // is not there
					delete(in, v)
					break
				}
			default:
				h.Reset(func(v *thing) bool { return v.key != 3 })
				for v := range in {
					if v.key == 3 {
						delete(in, v)
					}
				}
			}
			if h.Len() != len(in) {
				t.Fatalf("%d things of %d", h.Len(), len(in))
			}
			for i, v := range h.All() {
				if v.place != i+1 || v.key < h.First().key || h.All()[(i+1)/2-min(1, (i+1)/2)].key > v.key && i > 0 {
					t.Fatalf("%+v at %d", v, i)
				}
			}
		}
	})
}

// TestShareLeavesPlaces fills the places with deliveries that never end, of any number
// of hosts and senders.
func TestShareLeavesPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Share{Places: rapid.IntRange(1, 2000).Draw(t, "places")}
		serving, fresh, senders := map[int]int{}, map[int]int{}, map[int]int{}
		for range 3 * s.Places {
			host, from := rapid.IntRange(0, 5).Draw(t, "host"), rapid.IntRange(0, 2).Draw(t, "sender")
			if rapid.Bool().Draw(t, "new") {
				if s.Host(fresh[host], true) && s.Sender(senders[from]) > 0 {
					fresh[host]++
					senders[from]++
					s.New++
					s.Used++
				}
			} else if s.Host(serving[host], false) {
				serving[host]++
				s.Used++
			}
			if s.Used > s.Places || s.New > s.Places-s.Places/4 {
				t.Fatalf("%+v", s)
			}
		}
		if free := s.Places - s.Used; free > 0 && !s.Host(0, false) {
			t.Error("a serving host with nothing under way finds no place")
		}
		if s.Places >= 100 && s.Used == s.Places {
			t.Errorf("six hosts of each kind took all of %d places", s.Places)
		}
		if s.Places >= 100 && (!s.Host(0, true) || s.Sender(0) == 0) {
			t.Error("six new hosts and three senders took all places of new hosts")
		}
	})
}

func TestShareOfOne(t *testing.T) {
	s := Share{Places: 1000}
	n := 0
	for s.Sender(n) > 0 {
		n++
		s.New++
		s.Used++
	}
	if n != 375 {
		t.Errorf("one sender takes %d of 1000 places at new hosts", n)
	}
	s = Share{Places: 1000}
	for n = 0; s.Host(n, false); n++ {
		s.Used++
	}
	if n != 750 {
		t.Errorf("one serving host takes %d of 1000 places", n)
	}
	s = Share{Places: 1}
	if !s.Host(0, true) || s.Sender(0) != 1 {
		t.Error("one place is for everyone")
	}
}
