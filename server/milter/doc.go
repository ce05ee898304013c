// Package milter is the client side of Sendmail's mail filter protocol, versions 2 to 6: it
// asks programs such as OpenDKIM, rspamd or mailfromd what becomes of a client, a sender, a
// recipient and a message, and reads which changes they want.
//
// The protocol has no specification beside libmilter; the numbers here are those of its
// header files mfapi.h and mfdef.h (Sendmail 8.14 and later).
//
// # Who does what
//
// A Filter is one program with its address, its options and the connections to it that are
// kept. A Session is what one SMTP session says to all filters, in the order of the
// configuration. The caller gives the events; each returns a Verdict. A refusal of one filter
// ends the round: filters behind it are not asked about this command. The content goes to one
// filter at a time (Session.Message), so that each sees what those before it have changed. The
// package changes nothing itself: it returns Changes, and the caller applies them.
//
// # When a filter fails
//
// A filter that cannot be connected to, does not answer in time, hangs up or says what the
// protocol does not know has failed. Its connection is given up, and Failure says what
// becomes of the client. The next transaction connects anew.
//
// # Bounds
//
// A reply has 1 MB at most and its memory grows only with what has come; all changes of a
// message but the body have 4 MB and 10,000 entries; a new body is as large as its taker lets
// it be. Each wait has a time limit, and progress notices prolong the wait at the end of a
// message up to a limit of their own.
package milter
