package sched

import (
	"time"

	"meta1/mta/lists"
	"meta1/queue/turns"
)

// senderKey tells senders apart: fresh and deferred mail of one are two.
type senderKey struct {
	from  string
	class Class
}

// sender is whose mail waits.
type sender struct {
	key     senderKey
	queues  int                     // ready queues
	toNew   int                     // deliveries in progress to hosts that were new when they began
	hanging int                     // of these, those that hang
	hung    lists.List[*Delivery]   // of these, those that are not given up, as in Scheduler.hanging
	givenUp int                     // deliveries that are deliveryGivenUp
	share   int                     // slots.share of these
	open    lists.List[*readyQueue] // queueOpen
	limited lists.List[*readyQueue] // queueLimited
	round   lists.Elem[*sender]     // in Scheduler.rounds
	place   int                     // in Scheduler.limited
	order   uint64                  // when it was limited, or had its last turn
}

// readyQueue is the mail of one sender for one destination that is ready to be
// delivered, or one job by itself that goes on after an attempt.
type readyQueue struct {
	sender *sender
	dest   *Destination
	own    bool // it is of one job and not in Scheduler.queues
	state  queueState
	slot   int // in dest.queues
	jobs   turns.Rounds[*Job]
	// host is the one that it waits for, or, while it has its turns, the one that reserves
	// a place in its window for it.
	host    *Host
	resumed bool                    // it was limited before
	place   lists.Elem[*readyQueue] // in the list that its state says
	atNew   lists.Elem[*readyQueue] // in host.limited
}

// queueState says where a ready queue is.
type queueState uint8

const (
	queueIdle    queueState = iota // in no list: it is new
	queueOpen                      // in sender.open: it has turns
	queueAtHost                    // in a waiting list of its host, which has no place or no slot for it
	queueLimited                   // in sender.limited and host.limited: its sender has used its share of slots for new hosts
	queueDecided                   // in no list: the caller acts on a decision
	queueGone                      // forgotten
)

type queueKey struct {
	sender *sender
	dest   *Destination
}

func (s *Scheduler) sender(k senderKey) *sender {
	f := s.senders[k]
	if f == nil {
		f = &sender{key: k}
		f.round.V = f
		s.senders[k] = f
	}
	return f
}

// forgetSender forgets a sender that has no mail and no delivery that counts.
func (s *Scheduler) forgetSender(f *sender) {
	if f.queues == 0 && f.toNew == 0 && s.senders[f.key] == f {
		delete(s.senders, f.key)
	}
}

// recount changes what counts against a sender's share.
func (s *Scheduler) recount(f *sender, change func()) {
	waits := f.place > 0
	s.limited.Remove(f)
	change()
	f.share = s.slots.share(f.toNew, f.hanging)
	if waits {
		s.limited.Push(f)
	}
}

// queue finds or makes the ready queue of a sender for a destination.
func (s *Scheduler) queue(f *sender, d *Destination) *readyQueue {
	k := queueKey{sender: f, dest: d}
	q := s.queues[k]
	if q == nil {
		q = s.newQueue(f, d)
		s.queues[k] = q
	}
	return q
}

func (s *Scheduler) newQueue(f *sender, d *Destination) *readyQueue {
	q := &readyQueue{sender: f, dest: d, slot: len(d.queues)}
	q.place.V, q.atNew.V = q, q
	d.queues = append(d.queues, q)
	f.queues++
	return q
}

// drop forgets a ready queue that has no mail, and what only it needed.
func (s *Scheduler) drop(q *readyQueue) {
	s.leave(q)
	q.state = queueGone
	d, last := q.dest, len(q.dest.queues)-1
	d.queues[q.slot] = d.queues[last]
	d.queues[q.slot].slot = q.slot
	d.queues[last] = nil
	d.queues = d.queues[:last]
	if !q.own {
		delete(s.queues, queueKey{sender: q.sender, dest: d})
	}
	q.sender.queues--
	s.forgetSender(q.sender)
	s.forgetDestination(d)
}

// abandon is drop outside of the queue's turn: a place that is reserved for it goes to
// another.
func (s *Scheduler) abandon(now time.Time, q *readyQueue) {
	h := q.host
	s.drop(q)
	if h != nil {
		s.wake(now, h)
	}
}

// goOnOrDrop ends a turn.
func (s *Scheduler) goOnOrDrop(q *readyQueue) {
	if q.jobs.Len() > 0 {
		s.open(q)
	} else {
		s.drop(q)
	}
}

// nextJob returns the job whose turn it is in a ready queue, nil if there is none. Jobs
// that have no mail any more are dropped.
func (s *Scheduler) nextJob(q *readyQueue) *Job {
	for q.jobs.Len() > 0 {
		if j := q.jobs.Next(); j.Mail.Waiting() > 0 {
			return j
		}
		q.jobs.Take()
		s.stats.Jobs.add(-1)
	}
	return nil
}

// open gives a ready queue turns.
func (s *Scheduler) open(q *readyQueue) {
	q.state = queueOpen
	q.sender.open.PushBack(&q.place)
	s.openQueues++
	s.enlist(q.sender)
}

// openFirst is open for a ready queue that has waited already.
func (s *Scheduler) openFirst(q *readyQueue) {
	q.state = queueOpen
	q.sender.open.PushFront(&q.place)
	s.openQueues++
	s.enlist(q.sender)
}

func (s *Scheduler) enlist(f *sender) {
	if !f.round.Listed() && f.open.Len() > 0 {
		s.rounds[f.key.class].PushBack(&f.round)
	}
}

// nextSender takes out the sender whose turn it is, nil if none has one.
func (s *Scheduler) nextSender() *sender {
	fresh, deferred := s.rounds[Fresh].Len() > 0, s.rounds[Deferred].Len() > 0
	if !fresh && !deferred {
		return nil
	}
	if s.turns.Deferred(fresh, deferred) {
		return s.rounds[Deferred].PopFront()
	}
	return s.rounds[Fresh].PopFront()
}

// limit makes a ready queue wait until its sender may use another slot for new hosts, or
// the host serves or closes. One that was resumed, but came too late, is the next again.
func (s *Scheduler) limit(q *readyQueue, h *Host) {
	f := q.sender
	s.limited.Remove(f)
	switch {
	case q.resumed:
		f.limited.PushFront(&q.place)
		f.order = 0
	case f.limited.Len() == 0:
		f.order = s.next()
		fallthrough
	default:
		f.limited.PushBack(&q.place)
	}
	s.limited.Push(f)
	h.limited.PushBack(&q.atNew)
	q.state, q.host = queueLimited, h
	s.limitedQueues++
}

// resumeLimited gives turns to a ready queue of the limited sender with the smallest share
// of the slots for new hosts, if it may use another. Senders with equal shares take turns.
func (s *Scheduler) resumeLimited() bool {
	f := s.limited.First()
	if f == nil || s.slots.forSender(f.share) == 0 {
		return false
	}
	q := f.limited.Front()
	s.leave(q)
	s.openFirst(q)
	s.recount(f, func() { f.order = s.next() })
	return true
}

// next numbers those that begin to wait.
func (s *Scheduler) next() uint64 {
	s.order++
	return s.order
}

// leave takes a ready queue out of the list in which it is. A place that a host reserves
// for it is free then; the caller lets others have it.
func (s *Scheduler) leave(q *readyQueue) {
	h := q.host
	q.place.Remove()
	switch q.state {
	case queueOpen:
		s.openQueues--
		if q.sender.open.Len() == 0 {
			q.sender.round.Remove()
		}
		if h != nil {
			h.reserve(-1)
		}
	case queueAtHost:
		h.left(q)
		if !h.waits() {
			s.unblock(h)
		}
	case queueLimited:
		q.resumed = true
		q.atNew.Remove()
		s.limitedQueues--
		if q.sender.limited.Len() == 0 {
			s.limited.Remove(q.sender)
		}
	}
	q.state, q.host = queueIdle, nil
}
