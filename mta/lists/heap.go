package lists

// Heap gives the least of its things first. A thing that knows its place can be moved
// when its key has changed, and taken out. It is not safe for concurrent use.
type Heap[T any] struct {
	items []T
	less  func(a, b T) bool
	place func(T) *int // where a thing keeps its place, which is 0 while it is not in the heap; nil: nowhere
}

// NewHeap makes an empty heap. place may be nil; then Fix and Remove may not be called.
func NewHeap[T any](less func(a, b T) bool, place func(T) *int) Heap[T] {
	return Heap[T]{less: less, place: place}
}

// Len is the number of things.
func (h *Heap[T]) Len() int { return len(h.items) }

// First is the least thing, or the zero T.
func (h *Heap[T]) First() (v T) {
	if len(h.items) > 0 {
		v = h.items[0]
	}
	return v
}

// Push adds a thing.
func (h *Heap[T]) Push(v T) {
	h.items = append(h.items, v)
	h.set(len(h.items)-1, v)
	h.up(len(h.items) - 1)
}

// Pop takes the least thing out.
func (h *Heap[T]) Pop() (v T, ok bool) {
	if len(h.items) == 0 {
		return v, false
	}
	v = h.items[0]
	h.removeAt(0)
	return v, true
}

// Remove takes a thing out if it is in the heap.
func (h *Heap[T]) Remove(v T) {
	if p := *h.place(v); p > 0 {
		h.removeAt(p - 1)
	}
}

// All are the things in no order. The slice is valid until the next change.
func (h *Heap[T]) All() []T { return h.items }

// Reset takes all things out and puts those back for which keep is true.
func (h *Heap[T]) Reset(keep func(T) bool) {
	kept := h.items[:0]
	for _, v := range h.items {
		if keep(v) {
			kept = append(kept, v)
		} else if h.place != nil {
			*h.place(v) = 0
		}
	}
	clear(h.items[len(kept):])
	h.items = kept
	for i, v := range kept {
		h.set(i, v)
	}
	for i := len(kept)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *Heap[T]) removeAt(i int) {
	last := len(h.items) - 1
	v := h.items[i]
	h.set(i, h.items[last])
	var zero T
	h.items[last] = zero
	h.items = h.items[:last]
	if h.place != nil {
		*h.place(v) = 0
	}
	if i < last {
		h.up(i)
		h.down(i)
	}
}

func (h *Heap[T]) set(i int, v T) {
	h.items[i] = v
	if h.place != nil {
		*h.place(v) = i + 1
	}
}

func (h *Heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *Heap[T]) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.items); c++ {
			if h.less(h.items[c], h.items[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *Heap[T]) swap(i, j int) {
	a, b := h.items[i], h.items[j]
	h.set(i, b)
	h.set(j, a)
}
