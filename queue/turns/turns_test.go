package turns

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
		if had, ok := r.Take(); ok && again {
			r.Back(had, true)
		}
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
			had, _ := r.Take()
			v := had.v
			left[v]--
			if left[v] > 0 {
				r.Back(had, true)
			}
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
	var both Kinds
	var deferred int
	for range 100 {
		if both.Deferred(true, true) {
			deferred++
		}
	}
	if deferred != 25 || both.Deferred(true, false) || !both.Deferred(false, true) {
		t.Errorf("%d of 100 turns", deferred)
	}
}
