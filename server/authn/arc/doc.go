// Package arc verifies and makes ARC sets (RFC 8617), by which hosts that forward mail say what
// they found when it came in, and vouch for it by their signature.
//
// [Chain] verifies: it finds the sets in a header while the content of the message is read for
// DKIM (dkim.NewVerification), so that one pass serves both, and then judges them. [Seal] makes a
// set for a message as it is to be sent; [Sealer] does so with the keys of a section ARC_sealing.
//
// What strangers can make of a message costs little: 50 sets, fields of 64 KB in a header of 1 MB,
// one lookup for each key, and nothing is verified of a chain whose structure is wrong.
package arc
