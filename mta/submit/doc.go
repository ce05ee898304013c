// Package submit is the logic of meta1 sendmail: it takes a message as programs have
// given it to sendmail(8) for decades, completes its header, and hands it to an SMTP
// server. A message is either taken by the server
// for all its recipients, or not at all; the exit status says which (sysexits(3)). What becomes of one that no
// server takes for now is for the caller to say: meta1 sendmail leaves it in the maildrop.
//
// What is done to a message: a line of a single dot ends it unless IgnoreDots is set;
// lines end in CRLF, whatever they ended in; a bare CR becomes a space, because no SMTP
// server may take it (RFC 5321 section 2.3.8); a leading "From " line of a mailbox file
// is dropped, as are Bcc, Resent-Bcc and Return-Path; From, Date and Message-ID are
// added if missing (RFC 6409 section 8).
package submit
