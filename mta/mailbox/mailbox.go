// Package mailbox hands values from many goroutines to one that does other things, too.
package mailbox

import "sync"

// Box hands values from many goroutines to one. Putting never blocks: who uses it bounds what may be
// in it. Make it with New.
type Box[T any] struct {
	Ready chan struct{} // holds a token while the box is not empty

	mu    sync.Mutex // guards items
	items []T
}

// New makes an empty box.
func New[T any]() *Box[T] {
	return &Box[T]{Ready: make(chan struct{}, 1)}
}

// Put adds items.
func (m *Box[T]) Put(items ...T) {
	if len(items) == 0 {
		return
	}
	m.mu.Lock()
	m.items = append(m.items, items...)
	m.mu.Unlock()
	select {
	case m.Ready <- struct{}{}:
	default:
	}
}

// Take empties the box. spare is a slice that the box may use from now on.
func (m *Box[T]) Take(spare []T) []T {
	clear(spare)
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = spare[:0]
	return items
}
