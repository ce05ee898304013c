// Package auth is SMTP AUTH (RFC 4954) without the dialogue: the SASL mechanisms, where
// accounts and passwords come from, and what follows from failures.
//
// A mechanism is a pure state machine: it takes responses of the client and says what it
// wants next (a challenge sent, an account's entry, a password checked). Exchange runs
// one, asks the source of accounts, and is what the server talks to.
//
// There is one source for each section auth:
//
//	password_map   an entry of a map of SMAR's for each account (Secret has its forms)
//	dovecot        Dovecot's auth socket, to which mechanisms are passed through
//	saslauthd      saslauthd's socket, for PLAIN and LOGIN
//
// # Bounds
//
// An exchange has exchangeMax rounds, and each question to a source a time limit; one that
// does not answer costs its own session only. Passwords are hashed by a few sessions at a
// time, since a hash may take a processor and much memory. Failures are remembered in
// tables of tableMax entries.
//
// # Secrets
//
// No password and no entry of a map gets into a log, a reply, a trace or an error. Who
// guesses cannot tell an account that does not exist from a wrong password, neither by the
// reply nor by the time that it takes.
package auth
