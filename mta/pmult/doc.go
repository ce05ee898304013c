// Package pmult is the multiplexer between one SMTP server that speaks pmilter and many
// filters that speak Sendmail's milter protocol: mailfromd's program pmult for meta1.
//
// # Who does what
//
// Run listens for SMTP servers. Package pmilter speaks with them and calls the callbacks of a
// session (session.go), which ask all filters in the order of the configuration by way of
// package milter. The content is kept (content.go) until its end has come; then it goes to one
// filter after the other, so that each sees what those before it have changed (message.go), and
// what has become of it is told to the server as changes of the original (changes.go).
//
// # Configuration
//
// That of mailfromd's manual, chapter "pmult", in the language of GNU Mailutils (package
// confparse/mailutils). statements.go is the table of all statements.
//
// # Bounds
//
// Package pmilter bounds servers, sessions and frames, package milter the replies of filters.
// A message has contentMax bytes at most; what is beyond memoryMax of one message, or beyond
// memoryAll of all of them, is in a temporary file without a name, which goes with the process.
//
// # When pmult ends
//
// It keeps nothing: the server takes a connection that breaks for the failure of its pmilter,
// and what becomes of its clients is what the flags of its section policy_milter say.
package pmult
