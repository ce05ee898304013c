// Package explain says what a running meta1, or a configuration, would do with mail, and why.
//
// It decides nothing itself. Run makes a connection to a server that mta builds for this one
// dialogue, and speaks SMTP with it up to the last RCPT: the session, its limits and its checks
// are those of every client. Between the server and the other modules it only listens: each
// question to SMAR goes on, marked as a trial, and the reasons in the verdict are written down.
// For recipients that are accepted it asks SMAR for the route. Nothing is counted, greylisted or
// queued, and no message is sent: DATA is never given.
//
// Find and Replies tell what of the program and of its options is behind a reply.
package explain
