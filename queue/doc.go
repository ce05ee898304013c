// Package queue is QMGR: it owns every envelope and decides what is sent when.
//
// The decisions are in package aq, the active queue, which is pure; its comment has the
// glossary, and says how full the active queue may be and in which order mail goes. When
// deliveries start is decided in package sched, which deferred mail is loaded in intake, and
// whose routes are looked up in lookup. What is written is in package records, what is configured
// in conf, and package content has the content of messages, watches the disks, and removes orphaned
// files. Package ids hands out ids, and metrics has the numbers for Prometheus. Here is what joins them:
//
//	loop       hands events to the core, and has done what comes out
//	journal    joins package journal, the only writer of the store: group commit
//	admission  answers the servers: ids, back-pressure; package admit has the limits of clients
//	make       builds the messages of the queue's own: notices, expansions
//	scan       reads deferred mail for the core
//	spill      moves content from the store to files
//	recover    what a start finds
//	show       tells the metrics how things stand
//	conf       the settings in effect, and what a reload does to them
//
// # States
//
// A message that was acknowledged exists as long as its envelope is in the store. Each of
// its recipients is in exactly one of these states; package records has the keys.
//
//	fresh      accepted, and neither deferred nor ended. All of them are in the active queue;
//	           a start takes them in again and tries them
//	deferred   its record says when it is due, or for what it is parked, or that it is held
//	set aside  its record cannot be decoded: it is kept and listed, and everything else goes on
//	ended      delivered, or replaced by a notice or an expansion, or removed by an operator
//
// A move of a recipient from one state to another is one batch of the store, which is
// written whole or not at all: together with the message that replaces it, if there is
// one, and with the end of its message if it was the last. So a crash leaves each recipient
// in one state, and a start goes on from there. Before the end of a delivery is durable a
// crash makes another attempt: delivery is at least once.
//
// Content of up to IBDB.content_max is in the store from the acceptance of its message to
// its end; but when a message is deferred, content of more than 4 KB is spilled: it becomes a
// file in the background, and leaves the store when that is durable. Larger content is a file
// from the start, synced before the message is accepted. A file is unlinked after the end of its
// message is durable. One of which the store knows no message was never acknowledged, or its
// unlinking was interrupted: it is an orphan, and removed after a grace time. Behind the
// content in a file stands the envelope (package cdb), so that it can be sent if the store
// is lost; a new store beside such files refuses to start.
//
// # Restarts inside the process
//
// The queue is crash-only: to restart it, mta makes a new one on the same directory, while
// sessions and deliveries of the other modules live on. What the former instance has granted
// ends with it. Ids ascend over restarts, so an id tells who has granted it: a transaction, a
// session or a content file of a former instance is refused with 451, or not counted. While
// SMAR or SMTPC is down, work for it pauses; that is no failed attempt.
//
// # Which host is tried
//
// The first of the route that is not closed; if its window is full or its rate is used up,
// mail waits for it. A host that fails as a whole closes after some failures, and the mail
// goes to the next one at once, up to hosts_per_attempt_max: no connection, a greeting or a
// reply to EHLO that is not 2xx, a 421, a connection that is lost or times out. After any
// other 4xx before the content one more host is tried. A 4xx to the final dot and every 5xx
// hold for all hosts. After an attempt the recipient is deferred, and begins with the first
// host again (RFC 5321 section 5.1). A host that refuses one connection too many while others
// to it work has not failed, and it was no attempt: its window goes down to what works.
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
