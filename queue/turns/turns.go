// Package turns says who comes next: of many that wait (Rounds), and of fresh mail and a
// backlog (Kinds). It is pure, and knows nothing of what takes turns.
package turns

import (
	"cmp"
	"time"

	"meta1/mta/lists"
)

// Rounds is a queue in which everyone has one turn in each round, the oldest first. Those
// that come later join the present round. So between two turns of one, each of the others
// has at most one (two, if it came in between), and a new one waits at most for one turn of
// each that is there and of each older one that comes meanwhile: a message of many turns
// keeps no other message waiting for more than one of them. The zero Rounds is
// empty.
type Rounds[T any] struct {
	queue lists.Heap[Turn[T]]
	round uint64
	came  uint64
}

// Turn is one that was taken out, with its place in the order.
type Turn[T any] struct {
	v     T
	round uint64
	age   int64
	came  uint64 // the order of those of one age must be the same in all rounds
}

func before[T any](a, b Turn[T]) bool {
	return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(a.age, b.age), cmp.Compare(a.came, b.came)) < 0
}

// Add lets v join. age is the time since when it is there, for the order within a round.
func (r *Rounds[T]) Add(v T, age time.Time) {
	if r.came == 0 {
		r.queue = lists.NewHeap(before[T], nil)
	}
	r.came++
	r.queue.Push(Turn[T]{v: v, round: r.round, age: age.UnixNano(), came: r.came})
}

// Len returns how many wait.
func (r *Rounds[T]) Len() int { return r.queue.Len() }

// All gives those that wait, in no order.
func (r *Rounds[T]) All(yield func(T) bool) {
	for _, t := range r.queue.All() {
		if !yield(t.v) {
			return
		}
	}
}

// Next returns the one whose turn it is, or the zero T.
func (r *Rounds[T]) Next() T { return r.queue.First().v }

// Take takes out the one whose turn it is, if there is any.
func (r *Rounds[T]) Take() (t Turn[T], ok bool) {
	if t, ok = r.queue.Pop(); ok {
		r.round = t.round
	}
	return t, ok
}

// Back puts in again what was taken: for the next round if it had its turn, else for this
// one.
func (r *Rounds[T]) Back(t Turn[T], had bool) {
	if had {
		t.round++
	}
	r.queue.Push(t)
}

// Keep drops those for which keep is false.
func (r *Rounds[T]) Keep(keep func(T) bool) {
	if r.Len() > 0 {
		r.queue.Reset(func(t Turn[T]) bool { return keep(t.v) })
	}
}

// Kinds says who comes next of two kinds of mail: of four turns, fresh mail has three and
// the backlog one, as long as there is both. So a backlog takes at most a quarter from fresh
// mail, and fresh mail never starves a backlog. The zero Kinds is ready.
type Kinds struct{ n uint8 }

// freshTurns are the turns of fresh mail for one of the backlog.
const freshTurns = 3

// Deferred reports whether the backlog has the turn. fresh and deferred tell what there is,
// at least one of them.
func (t *Kinds) Deferred(fresh, deferred bool) bool {
	if !fresh || !deferred {
		return deferred
	}
	if t.n++; t.n > freshTurns {
		t.n = 0
		return true
	}
	return false
}
