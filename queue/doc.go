// Package queue is QMGR: it owns every envelope and decides what is sent when.
//
// # States
//
// A message that was acknowledged is always in exactly one of these states. What
// is listed was synced before the state was entered, so a crash at any moment
// leaves one of them, and a start goes on from there.
//
//	accepted   IBDB e TA; content in IBDB c TA, or as a durable CDB file
//	           guarantee: each recipient without IBDB d TA INDEX, and without a
//	           record in the DEFEDB, is delivered, bounced or deferred
//	spilled    accepted, and the content is a durable CDB file; c TA goes after
//	           that. Both present: c TA counts, the file is a rest
//	deferred   DEFEDB t TA, r TA INDEX, n TIME TA INDEX; content is a durable CDB
//	           file. The recipient's record in the IBDB ends after that. Both
//	           present: the DEFEDB counts
//	replaced   a bounce, or all that an expansion makes (one transaction for each
//	           list with an owner of its own), is accepted in one commit; the
//	           recipient that it replaces ends after that
//	ended      d TA INDEX, or no record at all; a crash before this is durable
//	           makes another attempt: delivery is at least once
//	forgotten  no record of TA. The content file goes after that. A file that no
//	           record names was never acknowledged, or is such a rest: litter
//
// Each content file also holds its envelope (package cdb), which is read only when a
// database was lost: a start on databases that do not belong together (join) refuses
// to take mail for litter, and meta1 fsck makes the envelopes anew.
//
// # Who does what
//
// One goroutine, the loop, owns the active queue and all decisions; it never waits
// for a disk or for another module. The journal is the only writer of the IBDB and
// the deferrer the only one of the DEFEDB and of files that outlive an attempt;
// each gathers what is asked for while it syncs. Goroutines of the Run's group ask
// the resolver and the client and bring the answers back as events.
//
// # Which host is tried
//
// The first of the route that is not closed; if its window is full or its rate is used
// up, it is waited for. A host that fails as a whole closes after some failures, and
// the mail goes to the next one at once, up to hosts_per_attempt_max: no connection, a
// greeting or a reply to EHLO that is not 2xx, a 421, a connection that is lost or
// times out. After any other 4xx before the content one more host is tried. A 4xx to
// the final dot and every 5xx hold for all hosts. After an attempt the recipient waits
// in the DEFEDB, and begins with the first host again (RFC 5321 section 5.1). Mail that
// waits for a host stays with it, even if one before it in the route opens again.
//
// # In which order
//
// Places for deliveries go round: senders, then the destinations of a sender, then his
// messages there, oldest first; fresh mail has three of four turns where deferred mail
// waits, too. flow.go gives the rules and their bounds, sched.Share says how much of
// deliveries_max anyone may take. Mail that needs a route is asked about in turns of
// the senders, too (route.go).
//
// # What waits as a whole
//
// Mail for a destination all of whose hosts are closed, for a domain whose route fails,
// and beyond a destination's share of the active queue waits in the DEFEDB in an index
// by destination, without attempts of its own: one recipient probes, and if that is
// served, the others follow in batches (waits.go). What a host or a name server said of
// one message or recipient alone defers that one only. A route is used again until it
// expires; it is asked for anew after a reload or a start, and when all of its hosts
// have failed.
//
// # When the clock is set
//
// The clock of the machine may be set forward or back by any amount, while the queue
// runs or not. It is read once for all that the queue waits for, when the queue is
// opened; from then on these times are measured (clock). So while the queue runs a
// new time changes no retry time, no closed host, no count of connections and no
// age; that it was set is a warning in the log. Over a restart:
//
//   - set back: recipients whose next time is more than retry_delay_max ahead are due
//     at once, so none waits longer than retry_delay_max after the start
//   - set forward: recipients are due early
//   - queue_return and queue_delay: the age of a recipient is kept with it, and grows
//     by at most half of queue_return for the time between its last attempt and the
//     start, because nobody can tell what that was: a queue that did not run, or a
//     clock that was set
package queue
