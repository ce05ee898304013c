// Package client is SMTPC, the module that delivers mail by SMTP (RFC 5321) and
// LMTP (RFC 2033). It owns the connections to other hosts; it knows neither the
// queue nor routes. QMGR asks for one transaction over one hop on port Deliver,
// and gets one reply for each recipient, whatever happened.
//
// # How it works
//
// Workers, at most threads_max, take requests straight from the port, so that no
// single goroutine stands between the queue and the wire. A worker takes an idle
// connection of the hop from the pool or has one made, speaks the dialogue,
// returns the connection, and answers. Where the peer offers PIPELINING
// (RFC 2920) a transaction is two writes: MAIL, all RCPT and DATA in the first,
// the content and its final dot in the second.
//
// # What is guaranteed
//
//   - Every recipient of the question has a reply in the answer.
//   - A 2xx reply of a recipient is the peer's own reply to the final dot. It is
//     never made up, and what the peer said before the dot was sent is not taken for it.
//   - If the connection is lost after the final dot was sent and before its reply,
//     the answer says so (Unknown); nothing is sent a second time by this package.
//   - The one repetition is over a new connection, for recipients whose message was not
//     sent: if a connection that had been open turns out to be closed, or if its session
//     refuses what a new one may take (a 4xx to MAIL, 421, a limit on recipients).
//   - A host that refuses one connection too many, while others work, has not failed, and
//     the mail is not to blame (HostBusy).
//   - A delivery that has given way to other mail (msg.Progress) sends no final dot.
//   - Mail that needs TLS is sent over TLS that meets what it demands, or not at all; a
//     connection that was made under one policy serves no other (tlspolicy.Policy).
//   - A password or token goes only over a connection that is protected as section auth demands,
//     and a connection that was made for one account serves no other (package auth).
//   - What a peer may make us read, keep and wait for is bounded, see limits.go.
package client
