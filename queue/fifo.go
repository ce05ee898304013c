package queue

// list is a first-in first-out list of things. The zero list is empty.
type list[T any] struct {
	items []T
	head  int
}

func (q *list[T]) len() int { return len(q.items) - q.head }

func (q *list[T]) push(v T) {
	if q.head > 32 && q.head*2 >= len(q.items) { // move down, amortised
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// pushFront puts v before all others.
func (q *list[T]) pushFront(v T) {
	if q.head > 0 {
		q.head--
		q.items[q.head] = v
		return
	}
	q.items = append([]T{v}, q.items...)
}

func (q *list[T]) pop() (v T, ok bool) {
	if q.len() == 0 {
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
