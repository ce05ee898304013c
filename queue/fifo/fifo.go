// Package fifo has a first-in first-out list that allocates nothing while it is short.
package fifo

// List is a first-in first-out list. The zero List is empty.
type List[T any] struct {
	items []T
	head  int
}

// Len is the number of things.
func (q *List[T]) Len() int { return len(q.items) - q.head }

// First is the first thing. There must be one.
func (q *List[T]) First() T { return q.items[q.head] }

// keep is how many places an empty list keeps at most.
const keep = 64

// Empty is an empty list that keeps the room of q, which has to be empty, unless it is much.
func (q *List[T]) Empty() List[T] {
	if cap(q.items) > keep {
		return List[T]{}
	}
	return List[T]{items: q.items[:0]}
}

// Push adds a thing at the end.
func (q *List[T]) Push(v T) {
	if q.head > 32 && q.head*2 >= len(q.items) { // move down, amortised
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// Pop takes the first thing out. ok is false if there is none.
func (q *List[T]) Pop() (v T, ok bool) {
	if q.Len() == 0 {
		return v, false
	}
	v = q.items[q.head]
	var zero T
	q.items[q.head] = zero
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v, true
}
