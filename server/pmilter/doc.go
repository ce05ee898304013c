// Package pmilter is the SMTP server's side of policy milters (README 5, 3.10 item 19): it asks
// the one program of section policy_milter what becomes of a client, a sender, a recipient and
// a message. docs/pmilter.md describes the wire form; its codec is in the public package
// pmilter, with which such programs are written.
//
// # Who does what
//
// A Filter is the program with the one connection to it, on which all sessions are. A Session
// is what one SMTP session says to it; each event returns a Verdict. The package changes nothing
// itself: Message returns Changes, and the caller makes them; Header is the part of that which
// is about the header.
//
// # When the program fails
//
// It fails for one session if it does not answer in time. If it has said nothing at all in that
// time, hangs up, or says what the wire form does not have, the connection is given up, and it
// has failed for all sessions that were on it. Failure says what becomes of their clients. The
// next session connects anew; without a flag it is left alone for ten seconds first.
//
// # Bounds
//
// All that comes is bounded by the codec. The changes of one message have the bounds of the
// package for writing policy milters, those of all sessions that wait for their answer 64 MB.
// Each wait has the limit of the option timeout, and a new message a limit of 15 minutes in all.
package pmilter
