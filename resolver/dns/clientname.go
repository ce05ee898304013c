package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"
)

// maxNames bounds the names of one client address that are looked up.
const maxNames = 10

// The results of looking a client's name up (README 3.9.3, cltresolve).
const (
	ResolveOK      = "ok"      // reverse and forward lookup match
	ResolveNo      = "no"      // they do not
	ResolveTempPTR = "tempptr" // the reverse lookup failed for now
	ResolveTempA   = "tempa"   // the forward lookup failed for now
)

// ClientName is what the address of a client says about its name.
type ClientName struct {
	Name   string // with trailing dot; "" unless Result is ResolveOK
	Result string
	Reason string // why there is no name
}

// FindClientName finds the name of a client: one that the address has, and that has
// the address (README 3.9.3). The name of a loopback address is localhost, without a
// question to the DNS (RFC 6303 section 3, RFC 6761 section 6.3). own is the name of this
// host: it and localhost are no other client's name, even if DNS confirms them. lookup may
// give nil when it must not wait; then ok is false.
func FindClientName(ip netip.Addr, own string, lookup func(name string, qtype uint16) *Answer) (n ClientName, ok bool) {
	ip = ip.WithZone("").Unmap()
	if ip.IsLoopback() {
		return ClientName{Name: "localhost.", Result: ResolveOK}, true
	}
	zone := "ip6.arpa."
	if ip.Is4() {
		zone = "in-addr.arpa."
	}
	ptr := lookup(Reversed(ip)+zone, mdns.TypePTR)
	switch {
	case ptr == nil:
		return ClientName{}, false
	case ptr.Status == Temporary:
		return ClientName{Result: ResolveTempPTR, Reason: ptr.Err}, true
	case ptr.Status != Success:
		return ClientName{Result: ResolveNo, Reason: "the address has no name"}, true
	}
	return confirm(ip, ptr, mdns.CanonicalName(own), lookup)
}

// isReserved recognises names that only this host has.
func isReserved(name, own string) bool {
	return name == own || isLocalhost(name) || name == "localdomain." || strings.HasSuffix(name, ".localdomain.")
}

// confirm looks the names of an address up until one has the address.
func confirm(ip netip.Addr, ptr *Answer, own string, lookup func(string, uint16) *Answer) (ClientName, bool) {
	qtype := mdns.TypeA
	if ip.Is6() {
		qtype = mdns.TypeAAAA
	}
	n := ClientName{Result: ResolveNo, Reason: "no name of the address has that address"}
	for i, rr := range ptr.RRs {
		p, ok := rr.(*mdns.PTR)
		if !ok || i >= maxNames {
			continue
		}
		if isReserved(mdns.CanonicalName(p.Ptr), own) {
			n.Reason = "the address has a name that only this host has: " + p.Ptr
			continue
		}
		a := lookup(p.Ptr, qtype)
		switch {
		case a == nil:
			return ClientName{}, false
		case a.Status == Temporary:
			n.Result, n.Reason = ResolveTempA, a.Err
		case slices.Contains(a.Addrs(), ip):
			return ClientName{Name: mdns.CanonicalName(p.Ptr), Result: ResolveOK}, true
		}
	}
	return n, true
}

// Addrs gives the addresses of an answer to a question for A or AAAA.
func (a *Answer) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range a.RRs {
		switch r := rr.(type) {
		case *mdns.A:
			addrs = appendAddr(addrs, r.A)
		case *mdns.AAAA:
			addrs = appendAddr(addrs, r.AAAA)
		}
	}
	return addrs
}

// appendAddr leaves out addresses that no host can have.
func appendAddr(addrs []netip.Addr, raw []byte) []netip.Addr {
	a, ok := netip.AddrFromSlice(raw)
	if !ok || a.Unmap().IsUnspecified() {
		return addrs
	}
	return append(addrs, a.Unmap())
}

// Reversed is an address in the order of reverse zones and blocklists, with a
// trailing dot: D.C.B.A., or the 32 nibbles of IPv6 (RFC 5782).
func Reversed(ip netip.Addr) string {
	ip = ip.Unmap()
	var b []byte
	if ip.Is4() {
		raw := ip.As4()
		for i := 3; i >= 0; i-- {
			b = append(strconv.AppendUint(b, uint64(raw[i]), 10), '.')
		}
		return string(b)
	}
	raw := ip.As16()
	const hexDigits = "0123456789abcdef"
	for i := 15; i >= 0; i-- {
		b = append(b, hexDigits[raw[i]&15], '.', hexDigits[raw[i]>>4], '.')
	}
	return string(b)
}

// Texts are the TXT records of an answer, each with its strings joined (RFC 6376 section
// 3.6.2.2).
func (a *Answer) Texts() []string {
	var all []string
	for _, rr := range a.RRs {
		if t, ok := rr.(*mdns.TXT); ok {
			all = append(all, Unescaped(strings.Join(t.Txt, "")))
		}
	}
	return all
}

// Unescaped is a text of package dns as it is in DNS: there octets are written \DDD or \X.
func Unescaped(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b = append(b, s[i])
		case i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]):
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
		default:
			i++
			b = append(b, s[i])
		}
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
