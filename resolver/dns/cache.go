package dns

import (
	"container/list"
	"time"

	mdns "github.com/miekg/dns"
)

// cache keeps answers until they expire, within a bound of memory; the least
// recently used go first. It is not safe for concurrent use.
type cache struct {
	limit   int64 // bytes, estimated
	size    int64
	entries map[key]*list.Element // of *cached
	used    *list.List            // most recently used first
}

type cached struct {
	key    key
	answer *Answer
	cost   int64
}

func newCache(limit int64) cache {
	return cache{limit: limit, entries: map[key]*list.Element{}, used: list.New()}
}

func (c *cache) get(k key, now time.Time) *Answer {
	e, ok := c.entries[k]
	if !ok {
		return nil
	}
	got := e.Value.(*cached)
	if !now.Before(got.answer.Expires) {
		c.remove(e)
		return nil
	}
	c.used.MoveToFront(e)
	return got.answer
}

func (c *cache) put(k key, a *Answer, now time.Time) {
	if old, ok := c.entries[k]; ok {
		c.remove(old)
	}
	cost := costOf(k, a)
	if !now.Before(a.Expires) || cost > c.limit {
		return
	}
	c.entries[k] = c.used.PushFront(&cached{k, a, cost})
	c.size += cost
	c.shrink()
}

// shrink holds the bound of memory.
func (c *cache) shrink() {
	for c.size > c.limit {
		c.remove(c.used.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	got := c.used.Remove(e).(*cached)
	delete(c.entries, got.key)
	c.size -= got.cost
}

// costOf estimates the memory of an entry: map, list and answer take about 400
// bytes, and a record about three times its length on the wire.
func costOf(k key, a *Answer) int64 {
	cost := 400 + int64(len(k.name)+len(a.Name)+len(a.Err))
	for _, rr := range a.RRs {
		cost += 64 + 3*int64(mdns.Len(rr))
	}
	return cost
}
