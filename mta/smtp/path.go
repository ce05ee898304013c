package smtp

import "strings"

// Path is an envelope address (RFC 5321 section 4.1.2, Reverse-path and
// Forward-path) without its angle brackets. The zero Path is the null
// reverse-path <>. Local holds the local part as it was written, quotes included;
// Domain is a domain name or an address literal in brackets. A Path with Local
// and without Domain is a bare mailbox such as <postmaster>.
type Path struct {
	Local  string
	Domain string
}

// IsNull reports the null reverse-path.
func (p Path) IsNull() bool { return p == Path{} }

// Addr prints the path without angle brackets: "user@host", or "" if it is null.
func (p Path) Addr() string {
	if p.Domain == "" {
		return p.Local
	}
	return p.Local + "@" + p.Domain
}

// String prints the path with angle brackets.
func (p Path) String() string { return "<" + p.Addr() + ">" }

// LowerDomain is the domain as maps and DNS want it, and as domains are compared: in
// lower case, and labels beyond ASCII as A-labels.
func (p Path) LowerDomain() string {
	d, err := ASCIIDomain(p.Domain)
	if err != nil { // no path that was parsed has such a domain
		return strings.ToLower(p.Domain)
	}
	return d
}

// ToASCII is the address with its domain in ASCII. Its local part stays as it is.
func (p Path) ToASCII() Path {
	if d, err := ASCIIDomain(p.Domain); err == nil && !IsASCII(p.Domain) {
		p.Domain = d
	}
	return p
}
