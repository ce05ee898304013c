package lists

// FIFO is a first-in first-out list that allocates nothing while it is short. The zero FIFO is empty.
type FIFO[T any] struct {
	items []T
	head  int
}

// Len is the number of things.
func (q *FIFO[T]) Len() int { return len(q.items) - q.head }

// First is the first thing. There must be one.
func (q *FIFO[T]) First() T { return q.items[q.head] }

// keep is how many places an empty list keeps at most.
const keep = 64

// Empty is an empty list that keeps the room of q, which has to be empty, unless it is much.
func (q *FIFO[T]) Empty() FIFO[T] {
	if cap(q.items) > keep {
		return FIFO[T]{}
	}
	return FIFO[T]{items: q.items[:0]}
}

// Push adds a thing at the end.
func (q *FIFO[T]) Push(v T) {
	if q.head > 32 && q.head*2 >= len(q.items) { // move down, amortised
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// Pop takes the first thing out. ok is false if there is none.
func (q *FIFO[T]) Pop() (v T, ok bool) {
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
