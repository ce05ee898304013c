// Package smtp holds the words of RFC 5321 as plain values: identifiers, paths,
// replies, enhanced status codes and command parameters, with their parsers and
// printers. It does no I/O and keeps no state, so every other package may use it
// from any goroutine.
package smtp
