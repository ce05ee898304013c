package sched

import (
	"cmp"
	"time"

	"meta1/mta/lists"
)

// rounds is a queue in which everyone has one turn in each round, the oldest first. Those
// that come later join the present round. So between two turns of one, each of the others
// has at most one (two, if it came in between), and a new one waits at most for one turn of
// each that is there and of each older one that comes meanwhile: a message of many turns
// keeps no other message waiting for more than one of them. The zero rounds is empty.
type rounds[T any] struct {
	queue lists.Heap[turn[T]]
	round uint64
	came  uint64
}

type turn[T any] struct {
	v     T
	round uint64
	age   int64
	came  uint64 // the order of those of one age must be the same in all rounds
}

func before[T any](a, b turn[T]) bool {
	return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(a.age, b.age), cmp.Compare(a.came, b.came)) < 0
}

// add lets v join. age is the time since when it is there, for the order within a round.
func (r *rounds[T]) add(v T, age time.Time) {
	if r.came == 0 {
		r.queue = lists.NewHeap(before[T], nil)
	}
	r.came++
	r.queue.Push(turn[T]{v: v, round: r.round, age: age.UnixNano(), came: r.came})
}

func (r *rounds[T]) len() int { return r.queue.Len() }

// next returns the one whose turn it is, or the zero T.
func (r *rounds[T]) next() T { return r.queue.First().v }

// take takes out the one whose turn it is, if there is any.
func (r *rounds[T]) take() (t turn[T], ok bool) {
	if t, ok = r.queue.Pop(); ok {
		r.round = t.round
	}
	return t, ok
}

// back puts in again what was taken: for the next round if it had its turn, else for this
// one.
func (r *rounds[T]) back(t turn[T], had bool) {
	if had {
		t.round++
	}
	r.queue.Push(t)
}

// keep drops those for which keep is false.
func (r *rounds[T]) keep(keep func(T) bool) {
	if r.len() > 0 {
		r.queue.Reset(func(t turn[T]) bool { return keep(t.v) })
	}
}

// turns says who comes next of two kinds of mail: of four turns, fresh mail has three and
// the backlog one, as long as there is both. So a backlog takes at most a quarter from fresh
// mail, and fresh mail never starves a backlog. The zero turns is ready.
type turns struct{ n uint8 }

// freshTurns are the turns of fresh mail for one of the backlog.
const freshTurns = 3

// deferred reports whether the backlog has the turn. fresh and deferred tell what there is,
// at least one of them.
func (t *turns) deferred(fresh, deferred bool) bool {
	if !fresh || !deferred {
		return deferred
	}
	if t.n++; t.n > freshTurns {
		t.n = 0
		return true
	}
	return false
}
