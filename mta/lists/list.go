// Package lists has lists of things in an order: by their keys (Heap), as they came (FIFO), or with any of them
// taken out in constant time (List). None is safe for concurrent use.
package lists

// List is a doubly linked list of elements that are fields of the things in it, so that
// nothing is allocated, and adding at either end and removing from anywhere take the same
// time however long the list is. The zero List is empty.
type List[T any] struct {
	first, last *Elem[T]
	n           int
}

// Elem makes V part of at most one list at a time. It must not be copied.
type Elem[T any] struct {
	V          T
	prev, next *Elem[T]
	in         *List[T] // nil: in none
}

// Front returns the first thing, or the zero T.
func (l *List[T]) Front() (v T) {
	if l.first != nil {
		v = l.first.V
	}
	return v
}

// Last returns the last thing. There must be one.
func (l *List[T]) Last() T { return l.last.V }

// Len is the number of things.
func (l *List[T]) Len() int { return l.n }

// Listed reports whether e is in a list.
func (e *Elem[T]) Listed() bool { return e.in != nil }

// PushBack adds e, which is in no list, at the end.
func (l *List[T]) PushBack(e *Elem[T]) {
	e.in, e.prev, e.next = l, l.last, nil
	if l.last != nil {
		l.last.next = e
	} else {
		l.first = e
	}
	l.last = e
	l.n++
}

// PushFront adds e, which is in no list, before all others.
func (l *List[T]) PushFront(e *Elem[T]) {
	e.in, e.prev, e.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = e
	} else {
		l.last = e
	}
	l.first = e
	l.n++
}

// PopFront removes and returns the first thing, or returns the zero T.
func (l *List[T]) PopFront() (v T) {
	if e := l.first; e != nil {
		v = e.V
		e.Remove()
	}
	return v
}

// Remove takes e out of its list, if it is in one.
func (e *Elem[T]) Remove() {
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

// All yields the things in order. The one that was yielded may be removed meanwhile.
func (l *List[T]) All(yield func(T) bool) {
	for e := l.first; e != nil; {
		next := e.next
		if !yield(e.V) {
			return
		}
		e = next
	}
}
