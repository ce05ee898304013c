package sched

// list is a doubly linked list of elements that are fields of the things in it, so that
// nothing is allocated, and adding at either end and removing from anywhere take the same
// time however long the list is. The zero list is empty.
type list[T any] struct {
	first, last *elem[T]
	n           int
}

// elem makes v part of at most one list at a time. It must not be copied.
type elem[T any] struct {
	v          T
	prev, next *elem[T]
	in         *list[T] // nil: in none
}

// front returns the first thing, or the zero T.
func (l *list[T]) front() (v T) {
	if l.first != nil {
		v = l.first.v
	}
	return v
}

// pushBack adds e, which is in no list, at the end.
func (l *list[T]) pushBack(e *elem[T]) {
	e.in, e.prev, e.next = l, l.last, nil
	if l.last != nil {
		l.last.next = e
	} else {
		l.first = e
	}
	l.last = e
	l.n++
}

// pushFront adds e, which is in no list, before all others.
func (l *list[T]) pushFront(e *elem[T]) {
	e.in, e.prev, e.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = e
	} else {
		l.last = e
	}
	l.first = e
	l.n++
}

// popFront removes and returns the first thing, or returns the zero T.
func (l *list[T]) popFront() (v T) {
	if e := l.first; e != nil {
		v = e.v
		e.remove()
	}
	return v
}

// remove takes e out of its list, if it is in one.
func (e *elem[T]) remove() {
	l := e.in
	if l == nil {
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		l.last = e.prev
	}
	e.in, e.prev, e.next = nil, nil, nil
	l.n--
}

// all yields the things in order. The one that was yielded may be removed meanwhile.
func (l *list[T]) all(yield func(T) bool) {
	for e := l.first; e != nil; {
		next := e.next
		if !yield(e.v) {
			return
		}
		e = next
	}
}
