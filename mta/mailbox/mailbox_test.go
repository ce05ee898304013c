package mailbox

import (
	"slices"
	"testing"
)

// TestBox: what was put is taken once, in its order, and there is a token as long as something is in the box.
func TestBox(t *testing.T) {
	b := New[int]()
	b.Put()
	select {
	case <-b.Ready:
		t.Error("an empty box is ready")
	default:
	}
	b.Put(1, 2)
	b.Put(3)
	<-b.Ready
	got := b.Take(nil)
	if !slices.Equal(got, []int{1, 2, 3}) || len(b.Take(nil)) > 0 {
		t.Errorf("took %v", got)
	}
	done := make(chan bool)
	go func() { b.Put(4); close(done) }()
	<-done
	<-b.Ready
	if spare := got; !slices.Equal(b.Take(spare), []int{4}) || spare[0] != 0 {
		t.Error("the spare slice is not cleared, or the value is lost")
	}
}
