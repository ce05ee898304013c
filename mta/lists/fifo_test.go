package lists

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFIFO compares a list with a slice, and looks that what has gone is not held.
func TestFIFO(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l FIFO[*int]
		var want []*int
		for range rapid.IntRange(0, 500).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "push") > 0 {
				v := new(int)
				l.Push(v)
				want = append(want, v)
				continue
			}
			v, ok := l.Pop()
			if ok != (len(want) > 0) || ok && v != want[0] {
				t.Fatalf("%v, %v of %d", v, ok, len(want))
			}
			want = want[min(1, len(want)):]
		}
		if l.Len() != len(want) || len(want) > 0 && l.First() != want[0] {
			t.Fatalf("%d things, want %d", l.Len(), len(want))
		}
		if gone := l.items[:cap(l.items)]; len(gone)-len(want) != count(gone, nil) || !slices.Equal(l.items[l.head:], want) {
			t.Fatalf("%d places hold %d things", len(gone), len(want))
		}
	})
}

func count(list []*int, v *int) (n int) {
	for _, o := range list {
		if o == v {
			n++
		}
	}
	return n
}
