package sched

import (
	"time"

	"meta1/mta/lists"
	"meta1/queue/turns"
)

// waiting is the ready queues that wait for a place in a host's window, or for slots.
type waiting struct {
	lists map[waitKey]*waitList
	order [classes]lists.List[*waitList] // the lists, which have a place in turn
	turns turns.Kinds
}

type waitKey struct {
	dest  *Destination
	class Class
}

// waitList is the ready queues of one destination and class that wait for a host.
type waitList struct {
	queues lists.List[*readyQueue]
	turn   lists.Elem[*waitList]
}

// waitFor makes a ready queue wait for a host.
func (s *Scheduler) waitFor(now time.Time, q *readyQueue, h *Host, first bool) {
	if h.waiting == nil {
		h.waiting = &waiting{lists: map[waitKey]*waitList{}}
		h.order = s.next()
	}
	k := waitKey{dest: q.dest, class: q.sender.key.class}
	w := h.waiting.lists[k]
	if w == nil {
		w = &waitList{}
		w.turn.V = w
		h.waiting.lists[k] = w
		h.waiting.order[k.class].PushBack(&w.turn)
	}
	q.state, q.host, q.resumed = queueAtHost, h, false
	if first {
		w.queues.PushFront(&q.place)
		h.order = 0 // it came too late, and is the next again
	} else {
		w.queues.PushBack(&q.place)
	}
	s.block(now, h)
	s.arm(now, h)
}

// left ends what a ready queue that has left its waiting list leaves empty.
func (h *Host) left(q *readyQueue) {
	k := waitKey{dest: q.dest, class: q.sender.key.class}
	if w := h.waiting.lists[k]; w.queues.Len() == 0 {
		w.turn.Remove()
		if delete(h.waiting.lists, k); len(h.waiting.lists) == 0 {
			h.waiting = nil
		}
	}
}

// nextWaiting takes out the ready queue that has the next place.
func (s *Scheduler) nextWaiting(h *Host) *readyQueue {
	order := &h.waiting.order
	from := &order[Fresh]
	if h.waiting.turns.Deferred(order[Fresh].Len() > 0, order[Deferred].Len() > 0) {
		from = &order[Deferred]
	}
	w := from.PopFront()
	from.PushBack(&w.turn)
	q := w.queues.Front()
	s.leave(q)
	return q
}

// wake looks at a host for which mail may wait, after something has changed: relax gives
// it places, unless it is closed. Then its mail looks for another host.
func (s *Scheduler) wake(now time.Time, h *Host) {
	if h.window.closed(now) {
		s.resumeAllLimited(h)
		for h.waits() {
			order := &h.waiting.order[Fresh]
			if order.Len() == 0 {
				order = &h.waiting.order[Deferred]
			}
			q := order.Last().queues.Last() // the last one first, so that they keep their order
			s.leave(q)
			s.openFirst(q)
		}
	}
	s.block(now, h)
	s.arm(now, h)
}

// block has relax look at a host if slots are all that its mail waits for, or slots and its
// provider.
func (s *Scheduler) block(now time.Time, h *Host) {
	s.unblock(h)
	if h.waits() && h.ownFree(now) > 0 {
		kind := newHosts
		if h.serves {
			kind = servingHosts
		}
		h.blocked = &s.blocked[kind]
		if h.provider != nil {
			h.blocked = &h.provider.blocked[kind]
		}
		h.blocked.Push(h)
	}
	s.offer(now, h.provider)
}

// unblock is the opposite of block. Of a provider's host the caller calls block, or wake, next.
func (s *Scheduler) unblock(h *Host) {
	if h.blocked == nil {
		return
	}
	h.blocked.Remove(h)
	h.blocked = nil
	if p := h.provider; p != nil {
		for kind := range p.first {
			if p.first[kind] == h {
				s.blocked[kind].Remove(h)
				p.first[kind] = nil
			}
		}
	}
}

// relax lets mail go on that waits for slots, after some became free: so it comes to its
// turn however much mail has turns already. Mail that waits for slots for new hosts because
// of its sender takes turns with mail that waits because of its host.
func (s *Scheduler) relax(now time.Time) {
	n := s.slots.freeForNew()
	if s.limitedFirst = !s.limitedFirst; s.limitedFirst && s.resumeLimited() {
		n--
	}
	s.reserve(now, s.slots.free(), n)
	if !s.limitedFirst {
		s.resumeLimited()
	}
}

// reserve reserves places in windows for ready queues that wait only for slots, and gives
// these queues turns: up to some at serving and at new hosts, where those hosts go first
// that use the fewest slots. It reports whether a queue went on.
func (s *Scheduler) reserve(now time.Time, serving, toNew int) (some bool) {
	for i, n := range [...]int{newHosts: toNew, servingHosts: serving} {
		for h := s.blocked[i].First(); h != nil && n > 0 && s.slots.forHost(h.used(), !h.serves); h = s.blocked[i].First() {
			s.unblock(h)
			if h.free(now) <= 0 { // it, or its provider, had a place for a while
				s.wake(now, h)
				continue
			}
			q := s.nextWaiting(h)
			h.order = s.next() // hosts that use as many take turns
			if !h.serves && s.slots.forSender(q.sender.share) == 0 {
				s.limit(q, h)
			} else {
				n--
				q.host = h
				h.reserve(1)
				s.openFirst(q)
				some = true
			}
			s.block(now, h)
		}
	}
	return some
}
