// Package auth is SMTP AUTH (RFC 4954) from the client's side, without the dialogue: section
// auth of smtpc, the entries of maps with accounts, the mechanisms, and what is remembered of
// failures.
//
// A [Login] is an account at a host, read from an entry of a map by [ParseEntry]. It is
// comparable, so that a connection that was made for one serves no other. [Config.Choose] says
// which mechanisms to try with what the host offers, and [New] begins one of them: a pure state
// machine, which takes challenges and gives responses.
//
// # What a host cannot do
//
//   - Have us hand a password to whoever took its place: the configuration says how far TLS
//     must protect the connection, see [Level].
//   - Have us accept a proof that is none: SCRAM's server must prove that it knows the
//     password, too.
//   - Make us calculate for long: iterationsMax and [RoundsMax] bound an exchange.
//   - Get a password or token into our log by quoting it: see [Scrub].
//
// # Secrets
//
// No password and no token gets into a log, a reply, a trace or an error. The text of a
// [Secret] in any format is a placeholder.
package auth
