// Package aq is the active queue: the recipients that are being worked on, and every
// decision about them. It is pure. Events go in (Step, Tick, Advance), decisions come
// out (Ready); there is no goroutine, no disk, no clock and no channel in it, so a test
// is a list of events and the decisions that follow (testdata). The model is
// etcd-io/raft: what must be written (Save) is in the same value as what may happen now,
// and what must happen only after a write comes out when Advance has been told of it. When
// deliveries start is decided in package sched, what deferred mail is loaded in package intake,
// whose routes are looked up in package lookup, what an alias or a list stands for in expand, and what
// the answer to a delivery means in verdict.
//
// # Glossary
//
//	message       an accepted message of which recipients are in the active queue
//	recipient     one of them; its state is one field (RcptState)
//	fresh         accepted and neither deferred nor ended; always in the active queue
//	deferred      it has a record in the store with its next time to try, and is
//	              loaded into the active queue when that has come
//	destination   where recipients go the same way (package sched)
//	host          an address or socket of a destination, with a concurrency window
//	slot          one of the deliveries_max deliveries that may run at once
//	ready queue   recipients with a route, which wait for a slot and a window
//	backlog       mail beyond the share of the active queue that a destination may take
//	parked        deferred not by a time but by a destination: all its hosts are closed,
//	              its route fails, or it has a backlog (intake.Park)
//	probe         one parked recipient, loaded to find out whether a destination serves
//	held          deferred until an operator releases it
//	set aside     its record cannot be decoded; it is kept, listed, and never touched
//	scan          one reading of deferred records from the store (intake.Scan); one at a time
//	notice        what a sender is told of a recipient (package dsn makes the message)
//
// # Recipient states
//
//	Routing ──> Ready ──> Delivering ──> Saving ──> out of the active queue
//	   │          ^  │          │  │        ^
//	   │          └──┼──────────┘  └─> Noticing
//	   └─────────────┴──────────────────────┘
//
// A delivery that failed for its host alone goes back to Ready for the next host. From
// every state but Delivering a recipient may be saved: deferred, parked, held, ended. In
// Noticing a notice or the expansion that replaces the recipient is being made, or is
// held back to be merged (merge_delay_max). In Saving its move is being written; it
// leaves when that is done, so no scan can bring an older state of it.
//
// # What the queue can do
//
// All of it is in Ready: write (Save), look routes up (Lookup), deliver (Delivery) or
// cancel a delivery, make a message of its own (Make), read deferred mail (Scan), forget
// content, answer an operator, and log.
//
// # How full the active queue may be
//
// Package budget has the rules: fresh mail may take three quarters of AQ_entries_max and deferred
// mail three quarters, so each has a quarter to itself. Deferred mail is loaded in the
// order of its due times, and takes at least one of four turns for a slot where fresh mail
// waits too (package sched). So however much mail arrives, a recipient that has become due
// is tried after at most N + AQ_entries_max/4 other deferred recipients, where N is the number
// of those that were due before it, at no less than a quarter of the rate at which the
// queue delivers. No recipient stays in the active queue longer than scheduler_timeout
// without an attempt, so nothing holds the quarter for longer than that.
//
// A sender's newer mail does not overtake that sender's parked mail for the same
// destination while that comes back: it is parked behind it. Mail of other senders goes on
// in its turn. So what overtakes is bounded by what the destination has in the active queue.
package aq
