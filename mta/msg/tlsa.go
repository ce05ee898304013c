package msg

import "meta1/mta/smtp"

// TLSA is a TLSA record (RFC 6698).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      string // the bytes as they are
}

// TLSAQ asks SMAR for the TLSA records of a hop whose field DANE is set.
type TLSAQ struct {
	Hop  Hop
	Dest string // RouteA.Dest of the route that led to the hop
}

// TLSAA answers TLSAQ.
type TLSAA struct {
	// Reply is a temporary failure to find out whether there are records: mail must not go to
	// the hop now (RFC 7672 section 2.1.1). Zero: it was found out.
	Reply smtp.Reply
	// Records are all that there are, usable or not; none: DANE does not apply to the hop.
	Records []TLSA
	// Base is the name at which they stand, without a dot at its end: the name to ask the
	// server for (SNI). Names are those that a certificate may have which a CA of DANE-TA(2)
	// has signed, Base among them (RFC 7672 section 3.2.2).
	Base  string
	Names []string
	// Secure: DNSSEC has validated the records. Without, they are used only if the option
	// DANE of smar is always.
	Secure bool
	Trace  Trace
}
