// Package dmarcrpt makes aggregate reports about DMARC (RFC 9990): it counts the messages of domains
// that want to know, and mails each of them a report a day.
//
// # How it works
//
// SMTPS counts each message that DMARC was evaluated for (Count), under the domain whose policy
// applied. What is counted is written to a file for each day (UTC) every minute, and at the end.
//
// The reports on a day are sent in the morning of the next one, each at a time of its own, to the
// addresses that the policy record then has: those of another organization only if that says in
// DNS that it wants them (RFC 9990 section 4), and those with a size limit only if the report fits.
// One that is not taken is tried again for a day, at longer and longer intervals. It goes through
// our own queue, signed by DKIM.
//
// # What is guaranteed
//
//   - Nothing here stops mail, or makes it wait: Count holds a mutex for a moment and drops what
//     there is no room for, which is counted.
//   - A file that cannot be written is logged, and counting goes on in memory. One that cannot
//     be read is put aside, and a new one begun.
//   - A crash loses the counts of the last minute, and may send a report a second time, under the
//     same Report-ID and file name.
//   - A report holds domains, addresses of clients and results; no address of a person, and no
//     domain of a recipient.
package dmarcrpt
