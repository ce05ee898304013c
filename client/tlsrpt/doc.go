// Package tlsrpt makes reports about the TLS of outgoing mail (RFC 8460): it counts the
// sessions to the mail hosts of domains that want to know, and sends each of them a report a
// day, by mail or by HTTPS.
//
// # How it works
//
// SMTPC counts each session (CountTLS), and SMAR mail that finds no host because of an MTA-STS
// policy. Whether a domain wants reports is asked of SMAR in the background; until that is
// known its sessions wait in memory, and those of a domain that wants none are forgotten. What
// is counted is written to a file for each day (UTC) every minute, and at the end.
//
// The reports on a day are sent in the morning of the next one, each at a time of its own. One
// that is refused is tried again for a day, at longer and longer intervals. Mail goes into our own
// queue, marked so that no policy about TLS holds it back, and is not counted: there are no
// reports about reports.
//
// # What is guaranteed
//
//   - Nothing here stops mail, or makes it wait: CountTLS holds a mutex for a moment and drops
//     what there is no room for, which is counted.
//   - A file that cannot be written is logged, and counting goes on in memory. One that cannot
//     be read is put aside, and a new one begun.
//   - A crash loses the counts of the last minute, and may send a report a second time, under the
//     same report-id.
package tlsrpt
