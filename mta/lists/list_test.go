package lists

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestList compares a list with a slice.
func TestList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l List[int]
		var want []int
		elems := map[int]*Elem[int]{}
		for v := range 100 {
			e := &Elem[int]{V: v}
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				l.PushBack(e)
				want, elems[v] = append(want, v), e
			case 1:
				l.PushFront(e)
				want, elems[v] = slices.Insert(want, 0, v), e
			case 2:
				if len(want) > 0 {
					if got := l.PopFront(); got != want[0] {
						t.Fatalf("popped %d, want %d", got, want[0])
					}
					want = want[1:]
				}
			case 3:
				if len(want) > 0 {
					i := rapid.IntRange(0, len(want)-1).Draw(t, "which")
					elems[want[i]].Remove()
					elems[want[i]].Remove() // it is in no list
					want = slices.Delete(want, i, i+1)
				}
			}
			var got []int
			for v := range l.All {
				got = append(got, v)
			}
			if !slices.Equal(got, want) || l.Len() != len(want) || len(want) > 0 && l.Front() != want[0] || len(want) > 0 && l.Last() != want[len(want)-1] {
				t.Fatalf("%v (%d), want %v", got, l.Len(), want)
			}
		}
	})
}

// TestHeap: the least thing is first, and things know their places.
func TestHeap(t *testing.T) {
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
