package queue

import "sync"

// mailbox hands values from many goroutines to one. Putting never blocks: what
// may be in it is bounded by what the active queue holds.
type mailbox[T any] struct {
	ready chan struct{} // holds a token while the box is not empty

	mu    sync.Mutex // guards items
	items []T
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{ready: make(chan struct{}, 1)}
}

// put adds items.
func (m *mailbox[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	m.mu.Lock()
	m.items = append(m.items, items...)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take empties the box. spare is a slice that the box may use from now on.
func (m *mailbox[T]) take(spare []T) []T {
	clear(spare)
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = spare[:0]
	return items
}
