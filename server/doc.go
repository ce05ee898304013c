// Package server is SMTPS, the SMTP server (README 3.10, 6.3): it accepts
// connections, speaks SMTP with clients, and hands complete messages to QMGR.
//
// It decides nothing about policy or storage. QMGR admits sessions and
// transactions and gives them their ids (port Admit), SMAR judges each stage of
// the dialogue (port Check), and a message is acknowledged only after QMGR has said
// that content and envelope are durable (port Commit).
//
// # Sessions
//
// A session is one goroutine and two structs: session lives as long as the
// connection, transaction from MAIL to the end of the message or to RSET. The
// commands are the rows of one table (verbs.go); a handler returns a reply, only
// the loop in session.go writes, by a wire.Conn, and only session.enter changes the phase.
// Replies are collected and written when the input holds no further command
// (RFC 2920), so there is one write for each group of commands.
//
// # Strictness
//
// Only CR LF ends a line and only CR LF "." CR LF ends a message (README 6.3.1). A
// bare CR or LF in the dialogue ends the session, because what follows could have
// been smuggled past a relay that reads lines otherwise. A bare CR or LF inside a
// message is read to the end of the message and refused there with 554 5.6.0, so
// that the message cannot mean two things to us and to a next hop.
//
// NUL in a message is refused with 550 5.6.0, unless the option nul says otherwise: RFC
// 5322 forbids it, and a host that drops it could find a final dot that we did not see.
//
// Lines of a message may be longer than the 998 octets of RFC 5321 section
// 4.5.3.1.6, up to the option line_length_max, since much mail that people want
// breaks that rule.
//
// # Bounds
//
// A client may hold up a session for IO_timeout for each line and each block of a message, and
// for data_grace plus one second for each data_rate_min bytes in the whole of a message. When
// sessions grow scarce idle clients have less time, and make room for others (package
// crowd). An idle session has no buffers, and one goroutine. The
// numbers of bad commands, of commands without effect, of recipients, of sessions
// and the size of messages are options. Content (package content) beyond what QMGR lets a
// transaction hold in memory goes to a file.
package server
