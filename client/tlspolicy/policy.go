package tlspolicy

import (
	"crypto/tls"
	"slices"
)

import "meta1/mta/msg"

// Need is what a delivery needs of the TLS of its connection.
type Need uint8

// The needs, each stricter than the one before.
const (
	// None: TLS is not used, because the class of the session turns it off, or because the
	// connection does not leave this machine (LMTP over a Unix socket).
	None Need = iota
	// May: TLS is used where it is offered, whatever the certificate (RFC 7435). If it fails
	// the mail goes without.
	May
	// Must: mail goes over TLS or not at all. Whether the certificate fits is judged by those
	// who demand it.
	Must
	// DANE: as Must, and the certificate must be the one that the TLSA records name.
	DANE
)

// String is the need in words of the log.
func (n Need) String() string {
	return [...]string{"none", "may", "must", "dane"}[n]
}

// Policy is under what a connection is made. It is comparable: equal policies may share
// connections and TLS sessions.
type Policy struct {
	Need Need
	// Implicit: the handshake comes before the greeting (flag smtps, RFC 8314).
	Implicit bool
	// Records is Set.Key of what the certificate must match; "" without DANE.
	Records string
	// STS is what the MTA-STS policy of the domain asks of the certificate; with DANE nothing.
	STS msg.STS
}

// WithSTS adds what an MTA-STS policy asks (RFC 8461 section 5). DANE goes before it (section
// 2), and a class of sessions that turns TLS off before both.
func (p Policy) WithSTS(sts msg.STS) Policy {
	if p.Need == None || p.Need == DANE || sts == msg.STSUnnamed {
		return p
	}
	if p.STS = sts; sts == msg.STSEnforce {
		p.Need = Must
	}
	return p
}

// Way is one way to make a connection.
type Way uint8

// The ways in the order in which they are tried (README 14.1).
const (
	// Resume: as configured. A TLS session is resumed if one is remembered.
	Resume Way = iota
	// Full: as configured, without a remembered session. It is tried only if one was offered.
	Full
	// Reduced: TLS 1.2 with elliptic curves that every server knows, and without a client
	// certificate: for servers that break at what is newer, or at the size of the first message.
	Reduced
	// Plain: without TLS.
	Plain
)

// String is the way in words of the log.
func (w Way) String() string {
	return [...]string{"resume", "full", "reduced", "plain"}[w]
}

// First is the way with which to begin under a policy, if known is how the last connections
// to the host had to be made. A host that is known to break TLS gets mail without it only if
// nothing needs TLS; else all ways are tried anew.
func (p Policy) First(known Way) Way {
	switch {
	case known == Plain && !p.mayPlain():
		return Resume
	default:
		return known
	}
}

// Next is the way to try after one has failed in the handshake; false: there is none. offered
// says that it offered a session to the host.
func (p Policy) Next(failed Way, offered bool) (Way, bool) {
	switch {
	case failed == Resume && offered:
		return Full, true
	case failed == Resume, failed == Full:
		return Reduced, true
	case failed == Reduced && p.mayPlain():
		return Plain, true
	}
	return 0, false
}

// mayPlain reports whether mail may go without TLS.
func (p Policy) mayPlain() bool { return p.Need <= May && !p.Implicit }

// Reduce makes a configuration that of the way Reduced, within what the operator allows.
func Reduce(c *tls.Config) {
	if c.MinVersion <= tls.VersionTLS12 {
		c.MaxVersion = tls.VersionTLS12
	}
	known := []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	allowed := slices.DeleteFunc(slices.Clone(c.CurvePreferences), func(id tls.CurveID) bool { return !slices.Contains(known, id) })
	switch {
	case len(c.CurvePreferences) == 0:
		c.CurvePreferences = known
	case len(allowed) > 0:
		c.CurvePreferences = allowed
	}
	c.Certificates = nil
}
