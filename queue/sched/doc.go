// Package sched is the scheduler of the active queue: it decides which mail is delivered
// next, and to which host. It is pure: time is passed in, chance follows from its
// arguments, there is no goroutine and no disk, and it knows no envelope. The caller tells
// it what is ready (Scheduler.Add) and how deliveries end (Done), and does what Ready
// decides.
//
// # Words
//
//	destination  mail that goes the same way under the same limits; has a list of hosts
//	ready queue  the mail of one sender for one destination that is ready to be delivered
//	job          the recipients of one message in a ready queue
//	slot         one of the deliveries that may be in progress at once (deliveries_max)
//	host         an address and port, or a socket; an entry of the outgoing connection cache
//	window       concurrency window: the deliveries to one host that may be in progress at once
//	closed       a host that failed as a whole until its window was zero: nothing is tried for a while
//	probe        the one delivery that finds out whether a host serves that was closed
//	new, serving a host serves after a delivery that it served, and is new before, and after it failed
//	backlog      mail that was deferred before
//	hanging      a delivery that has made no progress for Config.HangAfter
//
// # Rules
//
// The order in which deliveries start is fair, whatever the order of arrival:
//
//   - Senders take turns. A sender's turns go round its destinations, and within one of
//     these round its messages, oldest first (turns.Rounds). So a message waits at most for one
//     delivery of each other sender, times the sender's own destinations and, there,
//     messages.
//   - Fresh and deferred mail of a sender take turns apart. Of four turns the backlog has
//     one while there is fresh mail, and fresh mail three (turns.Kinds).
//   - What finds the window of a host full, or its rate used up, waits for that host. Places
//     that become free go round the destinations that wait for it, with a quarter for the
//     backlog, and within one of them round its ready queues. Later mail waits behind.
//   - What is left of a job after an attempt goes on with the next host ahead of the
//     sender's other mail for the destination.
//
// No host and no sender takes all slots, whatever hangs:
//
//   - Deliveries to new hosts have at most three quarters of the slots. So mail for serving
//     hosts finds a slot, however many others hang.
//   - Of what is left of these for new hosts, one new host may take a fiftieth, and one sender
//     as much as it leaves to others. So a list of dead addresses takes half of them, a second
//     one half of the rest. Of a sender's deliveries that hang, only as many count against its
//     share as are an eighth of the slots; so it leaves at least an eighth to others.
//   - When slots for new hosts are lacking, those senders have the next ones that use the
//     fewest, in turn. So if S senders have used them all, another one waits for less than
//     (1 + 4S/3·Slots) × (GiveUpAfter + 1 second).
//   - A serving host may take three times as much as it leaves free.
//   - A host or a sender with no delivery in progress may always start one while a slot of
//     its kind is free.
//   - A delivery that hangs for longer than Config.GiveUpAfter is given up, the longest first,
//     while mail of its sender waits because the sender has used its share, or any mail
//     waits because no slot is left at all, or none for new hosts; as many as there are ready
//     queues that wait. Tick looks for them once a second. So a sender alone with mail for H
//     hosts that never greet starts a delivery to each of its destinations within
//     (1 + 8H/3·Slots) × (GiveUpAfter + 1 second), and at once if the host serves already.
//
// Hosts that fail are found out at little cost:
//
//   - The window of a host of which nothing is known begins with Limits.Initial. It grows by
//     one with each delivery that is served, up to Limits.Max, and is halved with each
//     failure. At zero the host is closed, for a time that doubles with each further closing
//     between Retry.Min and Retry.Max, or for the time octo. Then one delivery probes it; other
//     mail goes to other hosts of its destination, if there are any, and waits for the probe
//     if not.
//   - A host that refuses one connection too many has not failed while its other connections
//     work: its window shrinks to them, does not grow for a minute, and the mail stays ready.
//   - At most Config.HostsMax hosts are remembered, more only while mail is ready for each of
//     them. Of the idle ones those go that were unused for long.
//
// A decision costs the same with one destination as with a hundred thousand: each ready
// queue is in one list at a time (queueState), and joins and leaves it in constant time.
package sched
