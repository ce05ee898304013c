// Package dmarc evaluates DMARC (RFC 9989): it reads policy records, finds the one that applies
// to a message by the DNS tree walk, compares the identifiers that SPF and DKIM have
// authenticated with the domain of From:, and says which policy its owner asks for.
//
// It opens no connection and starts no goroutine; TXT records come from a function that the
// caller passes in. What a stranger can send is bounded: at most eight queries for one tree walk
// (RFC 9989 section 4.10), and AuthorsMax domains of From: and IdentifiersMax identifiers are
// looked at.
//
// # What is decided here where the RFC leaves it open
//
//   - From: with several addresses in one domain is like one address. With several domains each is
//     evaluated, as section 5.3.1 allows, and the worst result counts: otherwise a second address
//     would be a way around every policy. Several From: fields are read as if they were one.
//   - A From: without a domain gives the result none: there is nothing that DMARC protects.
//   - An address whose domain cannot be a domain name gives permerror.
//   - A failure of DNS while the policy is looked up gives temperror, and so does one of SPF or
//     DKIM, unless another identifier is aligned and has passed (section 5.3.6). Only a failure of
//     an identifier that would be aligned counts, so that a signature of a domain with broken DNS
//     is no way around a policy.
//   - A record without a valid p, or with an sp or np that is not valid, counts as p=none if it has
//     an address for reports, and is not applied without one (section 4.10.1): permerror if a tag
//     was not valid, none if there just is no p.
//   - pct, rf and ri are historic, and ignored. t=y takes one step off the policy (section 4.7).
//   - A domain that does not exist is one for which DNS answers NXDOMAIN (appendix A.4).
package dmarc
