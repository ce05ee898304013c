// Package tlspolicy decides about the TLS of outgoing connections, without I/O: what a
// delivery needs of it (Policy), in which order ways to get it are tried when a handshake
// fails (Way), and whether a certificate is the one that TLSA records name (DANE, RFC 6698,
// 7671, 7672). It also keeps, within bounds, what is remembered from one connection to the
// next: TLS sessions (Sessions) and hosts whose handshake failed (Failures).
package tlspolicy
