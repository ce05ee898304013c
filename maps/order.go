package maps

import (
	"context"
	"iter"
	"net/netip"
	"strconv"
	"strings"
)

// Steps selects steps of the lookup orders of README 3.12.1.
type Steps uint16

// The steps. DotSubdomain and Dot also select for domains; the others are for
// addresses.
const (
	FullAddress  Steps = 1 << iota // user+detail@sub and user@sub (items 1a, 1e)
	DetailPlus                     // user++@sub (1b)
	DetailStar                     // user+*@sub (1c)
	Star                           // user*@sub (1d)
	Domain                         // @sub (1f); sub itself with BareDomain
	DotSubdomain                   // iterate through .sub1.tld, .tld
	Dot                            // the default entry "."
	LocalPart                      // the local part alone, when nothing else was found (2)
	MatchDetail                    // user@sub also stands for user+detail@sub (implicitly_match_detail)
	BareDomain                     // keys of a domain are written without @, as in mailertable

	// AllAddress are the steps of a generic lookup of an address.
	AllAddress = FullAddress | DetailPlus | DetailStar | Star | Domain | DotSubdomain | LocalPart
	// Mailertable are the default steps of the mailertable (README 3.9.2, item 9c).
	Mailertable = Domain | DotSubdomain | Dot | BareDomain
)

// DomainKeys gives the keys under which name is looked up: sub2.sub1.tld,
// .sub1.tld, .tld and . (the subdomains with DotSubdomain, the last with Dot). name
// must be in lower case already if the map needs that.
func DomainKeys(name string, steps Steps) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(name) {
			return
		}
		if steps&DotSubdomain != 0 && !strings.HasPrefix(name, "[") {
			// A dot at the very end is that of a fully qualified client name
			// (cltname:), not a subdomain.
			for i := 1; i < len(name)-1; i++ {
				if name[i] == '.' && !yield(name[i:]) {
					return
				}
			}
		}
		if steps&Dot != 0 {
			yield(".")
		}
	}
}

// IPKeys gives the keys of an IP address and its nets: A.B.C.D, A.B.C., A.B., A.;
// and likewise for IPv6 in its full form without "::" and without leading zeros.
// An IPv4 address that is mapped into IPv6 is looked up as IPv4.
func IPKeys(ip netip.Addr) iter.Seq[string] {
	return func(yield func(string) bool) {
		text := FullIP(ip)
		if text == "" || !yield(text) {
			return
		}
		for i := len(text) - 1; i > 0; i-- {
			if (text[i] == '.' || text[i] == ':') && !yield(text[:i+1]) {
				return
			}
		}
	}
}

// FullIP prints an address as the keys of maps want it: IPv4 dotted, IPv6 as eight
// hexadecimal numbers. It is "" for the zero Addr; a zone is left out.
func FullIP(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid():
		return ""
	case ip.Is4():
		return ip.String()
	}
	raw := ip.As16()
	b := make([]byte, 0, 39)
	for i := 0; i < 16; i += 2 {
		if i > 0 {
			b = append(b, ':')
		}
		b = strconv.AppendUint(b, uint64(raw[i])<<8|uint64(raw[i+1]), 16)
	}
	return string(b)
}

// Address is an RFC 5321 address taken apart for lookups.
type Address struct {
	User      string // local part without extension
	Delimiter string // one character, or "" if there is no extension
	Detail    string // what follows the delimiter; may be empty
	Domain    string // in lower case; "" for a local part alone
}

// ParseAddress splits an address. delimiters is address_delimiter (README 3.9.2,
// item 2): the first of its characters that occurs in the local part divides it. A
// delimiter at the very begin divides nothing. Quotes around the local part are
// removed, so that "user"@dom is found as user@dom.
func ParseAddress(local, domain, delimiters string) Address {
	local = unquote(local)
	a := Address{User: local, Domain: Lower(domain)}
	if delimiters == "" || len(local) < 2 {
		return a
	}
	if i := strings.IndexAny(local[1:], delimiters); i >= 0 {
		a.User, a.Delimiter, a.Detail = local[:i+1], local[i+1:i+2], local[i+2:]
	}
	return a
}

// unquote removes the quotes and backslashes of a quoted-string (RFC 5321 4.1.2).
func unquote(local string) string {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return local
	}
	inner := local[1 : len(local)-1]
	if strings.IndexByte(inner, '\\') < 0 {
		return inner
	}
	b := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b = append(b, inner[i])
	}
	return string(b)
}

// Local is the local part with its extension.
func (a Address) Local() string { return a.User + a.Delimiter + a.Detail }

// String is the address without angle brackets.
func (a Address) String() string {
	if a.Domain == "" {
		return a.Local()
	}
	return a.Local() + "@" + a.Domain
}

// Keys gives the keys under which the address is looked up, in the order of README
// 3.12.1, and with each the part of the domain that a leading dot in the key stands
// for ("host" when .domain was made of host.domain), which is the macro subdomain
// of README 3.12.3.
func (a Address) Keys(steps Steps) iter.Seq2[string, string] {
	return func(yield func(key, sub string) bool) {
		a.parts(steps, func(p keyParts) bool { return yield(p.user+p.extension+p.at+p.domain, a.sub(p)) })
	}
}

// keyParts is a key that is not put together yet.
type keyParts struct{ user, extension, at, domain string }

// sub is the part of the domain that a leading dot in the key stands for.
func (a *Address) sub(p keyParts) string {
	if p.domain == "" {
		return ""
	}
	return strings.TrimSuffix(a.Domain, p.domain)
}

// parts gives the keys in their order until yield returns false.
func (a *Address) parts(steps Steps, yield func(keyParts) bool) {
	if a.Domain != "" {
		for domain := range DomainKeys(a.Domain, steps) {
			if !a.domainParts(domain, steps, yield) {
				return
			}
		}
	}
	if steps&LocalPart != 0 {
		a.localParts("", "", steps|FullAddress|DetailPlus|DetailStar|Star, yield)
	}
}

func (a *Address) domainParts(domain string, steps Steps, yield func(keyParts) bool) bool {
	if !a.localParts("@", domain, steps, yield) {
		return false
	}
	switch {
	case domain == ".", steps&BareDomain != 0 && steps&Domain != 0:
		return yield(keyParts{domain: domain})
	case steps&Domain != 0 && steps&BareDomain == 0:
		return yield(keyParts{at: "@", domain: domain})
	}
	return true
}

// localParts gives items a to e with at and domain ("@", "domain", or nothing)
// appended. Where the second character of "++" and "+*" stands, detail does in the
// address itself.
func (a *Address) localParts(at, domain string, steps Steps, yield func(keyParts) bool) bool {
	extended := a.Delimiter != ""
	switch {
	case steps&FullAddress != 0 && extended && !yield(keyParts{a.User, a.extension(a.Detail), at, domain}),
		steps&DetailPlus != 0 && extended && a.Detail != "" && !yield(keyParts{a.User, a.extension("+"), at, domain}),
		steps&DetailStar != 0 && extended && !yield(keyParts{a.User, a.extension("*"), at, domain}),
		steps&Star != 0 && !yield(keyParts{a.User, "*", at, domain}),
		steps&FullAddress != 0 && (!extended || steps&MatchDetail != 0) && !yield(keyParts{a.User, "", at, domain}):
		return false
	}
	return true
}

func (a *Address) extension(s string) string { return a.Delimiter + s }

// finder looks keys up with a prefix. For maps in memory it makes no strings of them;
// it asks for the types, not for an interface, so that its buffer stays on the stack.
type finder struct {
	m      Map
	prefix string
	buf    [256]byte
}

func (f *finder) lookup(ctx context.Context, p keyParts) (string, Result) {
	switch m := f.m.(type) {
	case *Text:
		return m.lookupBytes(f.key(p))
	case *CDB:
		return m.lookupBytes(f.key(p))
	}
	return f.m.Lookup(ctx, f.prefix+p.user+p.extension+p.at+p.domain)
}

func (f *finder) key(p keyParts) []byte {
	b := append(f.buf[:0], f.prefix...)
	return append(append(append(append(b, p.user...), p.extension...), p.at...), p.domain...)
}

// Find looks prefix and each key up until one is found or the map says NoMore or
// fails. It returns the key (without prefix) at which it stopped.
func Find(ctx context.Context, m Map, prefix string, keys iter.Seq[string]) (key, value string, r Result) {
	f := finder{m: m, prefix: prefix}
	r = NotFound
	for key = range keys {
		if value, r = f.lookup(ctx, keyParts{user: key}); r != NotFound {
			return key, value, r
		}
	}
	return "", "", r
}

// FindAddress is Find for the keys of an address; sub is the part of the domain that
// a leading dot in the key stood for.
func FindAddress(ctx context.Context, m Map, prefix string, a Address, steps Steps) (key, sub, value string, r Result) {
	f := finder{m: m, prefix: prefix}
	r = NotFound
	a.parts(steps, func(p keyParts) bool {
		if value, r = f.lookup(ctx, p); r == NotFound {
			return true
		}
		key, sub = p.user+p.extension+p.at+p.domain, a.sub(p)
		return false
	})
	return key, sub, value, r
}
