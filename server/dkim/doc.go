// Package dkim signs mail and verifies signatures: DomainKeys Identified Mail (RFC 6376) with
// the algorithms of RFC 8301 and 8463, rsa-sha256 and ed25519-sha256. What it has of headers,
// bodies and keys is ARC's, too (RFC 8617).
//
// [Signer] has the keys of one section DKIM_signing (README 3.10 item 3, 8.5). [Signer.Begin]
// gives a [Message], to which content is written as it comes in; [Message.Sign] then makes the
// header fields that go on top of it. Neither keeps the body: a message of 50 MB needs the
// memory of its header, and one pass over it serves all signatures.
//
// Canonicalization and hashing are ours, since mail comes from strangers: a library that
// gathers empty lines, joins folded lines by copying, or searches the header anew for each name
// in h= makes the time for a message quadratic in its size. Here it is linear, and the numbers of
// signatures, fields and names have bounds. The tests compare with emersion/go-msgauth.
package dkim
