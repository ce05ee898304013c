package sched

import (
	"cmp"
	"time"
)

// Rounds is a line in which everyone has one turn in each round, the oldest first.
// Who comes later joins the present round. So between two turns of one, each of the
// others has at most one (two, if it came in between), and who comes waits at most for
// one turn of each that is there and of each older one that comes meanwhile: a message
// of many jobs keeps no other message waiting for more than one of them. The zero
// Rounds is empty.
type Rounds[T any] struct {
	line  Heap[turn[T]]
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

// Add lets v join. age is the time since when it is there, for the order within a
// round.
func (r *Rounds[T]) Add(v T, age time.Time) {
	r.line.less = before[T]
	r.came++
	r.line.Push(turn[T]{v: v, round: r.round, age: age.UnixNano(), came: r.came})
}

// Len is the number of those in the line.
func (r *Rounds[T]) Len() int { return r.line.Len() }

// Next is whose turn it is, or the zero T.
func (r *Rounds[T]) Next() T { return r.line.First().v }

// Done ends the turn of Next. With again it waits for the next round, else it leaves.
func (r *Rounds[T]) Done(again bool) {
	t, ok := r.line.Pop()
	if !ok {
		return
	}
	r.round = t.round
	if again {
		t.round++
		r.line.Push(t)
	}
}

// Keep lets those leave for which keep is false.
func (r *Rounds[T]) Keep(keep func(T) bool) {
	if r.Len() > 0 {
		r.line.Reset(func(t turn[T]) bool { return keep(t.v) })
	}
}

// Turns says who comes next of two kinds of mail: of four turns, fresh mail has three
// and deferred mail one, as long as there is both. So a backlog takes at most a quarter
// from fresh mail, and fresh mail never starves a backlog. The zero Turns is ready.
type Turns struct{ n uint8 }

// freshTurns are the turns of fresh mail for one of deferred mail.
const freshTurns = 3

// Deferred tells whether deferred mail has the turn. fresh and deferred tell what
// there is, at least one of them.
func (t *Turns) Deferred(fresh, deferred bool) bool {
	if !fresh || !deferred {
		return deferred
	}
	if t.n++; t.n > freshTurns {
		t.n = 0
		return true
	}
	return false
}
