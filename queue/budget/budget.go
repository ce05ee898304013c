// Package budget bounds the active queue, so that neither new mail nor deferred mail can take
// all of it.
package budget

import (
	"sync"
	"time"

	"meta1/mta/lists"
	"meta1/mta/smtp"
)

// Budget is the one budget of the active queue, in recipients. Admission takes from it when
// it grants a transaction, the journal when a message is accepted, and the core for what it
// loads. Its parts, of Max:
//
//	granted + fresh    at most three quarters, or no transaction is granted
//	deferred           at most three quarters; a quarter is its own even then
//	all                at most Max; only a message with more recipients than are free
//	                   exceeds it, until the core has deferred what does not fit
//
// Its methods may be called from any goroutine.
type Budget struct {
	mu       sync.Mutex // guards all below
	max      int        // AQ_entries_max
	grants   map[smtp.ID]time.Time
	order    lists.FIFO[smtp.ID] // grants in their order; some are gone
	fresh    int
	deferred int
	most     int // the highest total so far
}

// GrantLife is how long a grant counts before its message has come: a client that says MAIL
// and then nothing must not keep others out.
const GrantLife = 20 * time.Second

// New makes the budget of an active queue for most recipients.
func New(most int) *Budget {
	return &Budget{max: most, grants: map[smtp.ID]time.Time{}}
}

// Max is the bound.
func (b *Budget) Max() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.max
}

// SetMax sets another bound. If more is in the active queue it stays there; nothing is granted or
// loaded until it fits.
func (b *Budget) SetMax(most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max = most
}

// partLocked is what fresh mail, or deferred mail, may take at most.
func (b *Budget) partLocked() int { return b.max - b.max/4 }

// Grant counts a transaction that may begin, or reports that there is no room for it.
func (b *Budget) Grant(ta smtp.ID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked(now)
	taken := len(b.grants) + b.fresh
	if taken >= b.partLocked() || taken+b.deferred >= b.max {
		return false
	}
	b.grants[ta] = now
	b.order.Push(ta)
	return true
}

// expireLocked ends grants that have lived too long.
func (b *Budget) expireLocked(now time.Time) {
	for b.order.Len() > 0 {
		first := b.order.First()
		if since, ok := b.grants[first]; ok && now.Sub(since) < GrantLife {
			return
		}
		delete(b.grants, first)
		b.order.Pop()
	}
}

// Revoke ends a grant whose transaction will not be committed. Others are left alone.
func (b *Budget) Revoke(ta smtp.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.grants, ta)
}

// Accept turns the grant of a message, if it has one, into n fresh recipients.
func (b *Budget) Accept(ta smtp.ID, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.grants, ta)
	b.fresh += n
	b.most = max(b.most, b.fresh+b.deferred)
}

// Load counts n deferred recipients that come into the active queue.
func (b *Budget) Load(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deferred += n
	b.most = max(b.most, b.fresh+b.deferred)
}

// Leave counts a recipient that has left.
func (b *Budget) Leave(fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if fresh {
		b.fresh--
	} else {
		b.deferred--
	}
}

// Room is how many deferred recipients may be loaded.
func (b *Budget) Room(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked(now)
	return max(min(b.partLocked()-b.deferred, b.max-len(b.grants)-b.fresh-b.deferred), 0)
}

// Over is by how many recipients the active queue exceeds its bound.
func (b *Budget) Over() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.fresh+b.deferred-b.max, 0)
}

// Used is how many recipients are in the active queue, of them deferred ones, how many
// transactions are granted, and the highest number of recipients so far.
func (b *Budget) Used() (total, deferred, granted, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fresh + b.deferred, b.deferred, len(b.grants), b.most
}
