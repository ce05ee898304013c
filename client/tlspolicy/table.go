package tlspolicy

import (
	"container/list"
	"time"
)

// table keeps values for a while, counted from when they were put, not from their last use
// (README 11.3). It is bounded: the oldest go first. It is not safe for concurrent use.
type table[K comparable, V any] struct {
	max     int
	ttl     time.Duration
	entries map[K]*list.Element
	order   *list.List // of tableEntry[K, V], the oldest first
}

type tableEntry[K comparable, V any] struct {
	key   K
	value V
	until time.Time
}

func newTable[K comparable, V any](max int, ttl time.Duration) table[K, V] {
	return table[K, V]{max: max, ttl: ttl, entries: map[K]*list.Element{}, order: list.New()}
}

// get returns what is kept under a key at a time.
func (t *table[K, V]) get(k K, now time.Time) (v V, ok bool) {
	el := t.entries[k]
	if el == nil {
		return v, false
	}
	e := el.Value.(tableEntry[K, V])
	if !now.Before(e.until) {
		t.delete(k)
		return v, false
	}
	return e.value, true
}

// put keeps a value under a key from now on.
func (t *table[K, V]) put(k K, v V, now time.Time) {
	t.delete(k)
	if t.max <= 0 {
		return
	}
	for el := t.order.Front(); el != nil; el = t.order.Front() {
		old := el.Value.(tableEntry[K, V])
		if len(t.entries) < t.max && now.Before(old.until) {
			break
		}
		t.delete(old.key)
	}
	t.entries[k] = t.order.PushBack(tableEntry[K, V]{k, v, now.Add(t.ttl)})
}

func (t *table[K, V]) delete(k K) {
	if el := t.entries[k]; el != nil {
		t.order.Remove(el)
		delete(t.entries, k)
	}
}
