// Package spf checks whether a client may send for the domain that it names (RFC 7208). The
// evaluation is blitiri.com.ar/go/spf; this package gives it SMAR's answers of DNS, bounds its
// time, and chooses the identities.
package spf

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"blitiri.com.ar/go/spf"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/authn"
)

// Lookup gives records of DNS; authn.DNS.Lookup is one.
type Lookup func(ctx context.Context, name string, t msg.RecordType) msg.DNSA

// Limits bound an evaluation (RFC 7208 section 4.6.4).
type Limits struct {
	Lookups     uint // terms of records that need DNS
	VoidLookups uint // of those, how many may find nothing
}

// Query is what is known of a client.
type Query struct {
	IP   netip.Addr
	Helo string
	From smtp.Path // of MAIL; the null path for bounces
}

// Check evaluates the identity of MAIL, or for the null sender that of HELO, of which the sender
// is then postmaster (RFC 7208 section 2.4). The result is temperror if ctx ends first.
func Check(ctx context.Context, lookup Lookup, q Query, l Limits) authn.Result {
	if q.From.IsNull() {
		return CheckHelo(ctx, lookup, q, l)
	}
	r := evaluate(ctx, lookup, q, q.From, l)
	// The domain alone: it is what was evaluated, and the local part is nobody else's business.
	r.Props = []authn.Prop{{Type: "smtp", Name: "mailfrom", Value: domainOf(q.From)}}
	return r
}

// CheckHelo evaluates the identity of HELO (RFC 7208 section 2.3).
func CheckHelo(ctx context.Context, lookup Lookup, q Query, l Limits) authn.Result {
	r := evaluate(ctx, lookup, q, smtp.Path{Local: "postmaster", Domain: q.Helo}, l)
	r.Props = []authn.Prop{{Type: "smtp", Name: "helo", Value: q.Helo}}
	return r
}

// Domain is the domain that a result is about, "" for none.
func Domain(r *authn.Result) string {
	d := r.Prop("smtp", "mailfrom")
	if d == "" {
		d = r.Prop("smtp", "helo")
	}
	return strings.ToLower(d)
}

// domainOf is the domain of a sender as DNS knows it, else as it is.
func domainOf(p smtp.Path) string {
	if d, err := smtp.ASCIIDomain(p.Domain); err == nil {
		return d
	}
	return p.Domain
}

func evaluate(ctx context.Context, lookup Lookup, q Query, from smtp.Path, l Limits) authn.Result {
	r := authn.Result{Method: authn.SPF, Value: authn.None}
	domain := strings.TrimSuffix(domainOf(from), ".")
	switch {
	case !q.IP.IsValid():
		r.Reason = "the client has no address"
		return r
	case !isDomain(domain):
		r.Reason = "no domain name" // RFC 7208 section 4.3
		return r
	}
	local := from.Local
	if local == "" {
		local = "postmaster"
	}
	// The library takes what follows the first at sign for the domain.
	sender := strings.ReplaceAll(local, "@", "%40") + "@" + domain
	ip := q.IP.WithZone("").Unmap()
	result, err := spf.CheckHostWithSender(ip.AsSlice(), q.Helo, sender,
		spf.WithContext(ctx), spf.WithResolver(names{lookup, ip}),
		spf.OverrideLookupLimit(l.Lookups), spf.OverrideVoidLookupLimit(l.VoidLookups))
	r.Value = string(result)
	if ctx.Err() != nil && result != spf.Pass {
		r.Value, r.Reason = authn.TempError, "it took too long"
		return r
	}
	if err != nil {
		r.Reason = err.Error()
	}
	return r
}

// isDomain reports whether SPF applies to a domain: several labels of a usual length (RFC 7208
// section 4.3).
func isDomain(s string) bool {
	if len(s) > 253 || strings.HasPrefix(s, "[") {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return len(labels) > 1
}

// names answers the library's questions.
type names struct {
	lookup Lookup
	ip     netip.Addr
}

// failure is an answer as an error of package net, nil if it is none.
func failure(name string, a *msg.DNSA) error {
	switch a.Status {
	case msg.DNSUnavailable:
		return &net.DNSError{Err: a.Err, Name: name, IsTemporary: true}
	case msg.DNSNoName:
		return &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	return nil
}

func (n names) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a := n.lookup(ctx, name, msg.RecordTXT)
	if err := failure(name, &a); err != nil {
		return nil, err
	}
	for _, text := range a.Texts {
		if err := check(text); err != nil {
			return nil, err // which the library takes for a permerror
		}
	}
	return a.Texts, nil
}

func (n names) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a := n.lookup(ctx, name, msg.RecordMX)
	hosts := make([]*net.MX, 0, len(a.Hosts))
	for _, h := range a.Hosts {
		hosts = append(hosts, &net.MX{Host: h.Host, Pref: h.Pref})
	}
	return hosts, failure(name, &a)
}

// LookupIPAddr asks for the addresses that can match: of an IPv4 client those alone (RFC 7208
// section 5), else both kinds, because the mechanism exists wants IPv4 always.
func (n names) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	four := n.lookup(ctx, name, msg.RecordA)
	if n.ip.Is4() || four.Status == msg.DNSUnavailable {
		return appendAddrs(nil, &four), failure(name, &four)
	}
	six := n.lookup(ctx, name, msg.RecordAAAA)
	if four.Status == msg.DNSFound && six.Status == msg.DNSNoName {
		six.Status = msg.DNSNoData // which cannot be true of both
	}
	return appendAddrs(appendAddrs(nil, &four), &six), failure(name, &six)
}

func appendAddrs(list []net.IPAddr, a *msg.DNSA) []net.IPAddr {
	for _, ip := range a.Addrs {
		list = append(list, net.IPAddr{IP: ip.AsSlice()})
	}
	return list
}

// LookupAddr asks for the names of an address.
func (n names) LookupAddr(ctx context.Context, _ string) ([]string, error) {
	name := reverseName(n.ip)
	a := n.lookup(ctx, name, msg.RecordPTR)
	return a.Names, failure(name, &a)
}

// reverseName is the name of an address in the reverse zone.
func reverseName(ip netip.Addr) string {
	var b strings.Builder
	raw := ip.AsSlice()
	for i := len(raw) - 1; i >= 0; i-- {
		if ip.Is4() {
			b.WriteString(strconv.Itoa(int(raw[i])) + ".")
			continue
		}
		const digits = "0123456789abcdef"
		b.WriteString(string([]byte{digits[raw[i]&15], '.', digits[raw[i]>>4], '.'}))
	}
	if ip.Is4() {
		return b.String() + "in-addr.arpa."
	}
	return b.String() + "ip6.arpa."
}
