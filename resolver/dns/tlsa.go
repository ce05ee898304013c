package dns

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// DANE says when TLSA records count (README 14.2).
type DANE uint8

// The modes, in the order of the words of the option DANE.
const (
	DANESecure DANE = iota // if DNSSEC has validated them and all that led to them
	DANENever
	DANEAlways // without DNSSEC, too: for trials
)

// tlsaMax bounds the records of one host.
const tlsaMax = 64

// MXDomain is the domain whose mail hosts a destination stands for (Target.Dest), "" if its
// host is named in the configuration.
func MXDomain(dest string) string {
	name, ok := strings.CutPrefix(dest, "mx:")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(name, ":/"); i >= 0 {
		name = name[:i]
	}
	return name
}

// tlsaSearch is the search for the TLSA records of one hop.
type tlsaSearch struct {
	*Finder
	ctx context.Context
	a   msg.TLSAA
}

// TLSA looks the TLSA records of a mail host up, at the port that is used (RFC 7672 section
// 2.2). The MX records that led to the host must have been secure; domain is their owner, "" if
// there are none. addr tells which of the host's addresses is used.
func (f *Finder) TLSA(ctx context.Context, host string, addr netip.AddrPort, domain string) msg.TLSAA {
	s := &tlsaSearch{Finder: f, ctx: ctx}
	bases, ok := s.bases(host, addr.Addr())
	if !ok {
		return s.a
	}
	for _, base := range bases {
		owner := "_" + strconv.Itoa(int(addr.Port())) + "._tcp." + base
		t := f.dns.Lookup(ctx, owner, mdns.TypeTLSA)
		switch {
		case t.Status == Temporary:
			return s.failed(owner, t)
		case t.Status != Success:
			s.step(owner, "", t.Status.String())
		case !t.Secure && f.cfg.DANE != DANEAlways:
			s.step(owner, "", "not used: the records are not secured by DNSSEC")
		default:
			return s.found(base, t, domain)
		}
	}
	return s.a
}

// TLSACached is TLSA from the cache alone; false if the cache lacks an answer.
func (f *Finder) TLSACached(host string, addr netip.AddrPort, domain string) (msg.TLSAA, bool) {
	c := cacheOnly{dns: f.dns}
	a := (&Finder{cfg: f.cfg, dns: &c}).TLSA(context.Background(), host, addr, domain)
	return a, !c.missed
}

// bases are the names at which the records may stand (RFC 7672 section 2.2.2): if the host is an
// alias, first the name that it stands for and then its own; its own alone, if the alias is
// secure and the name that it stands for is not.
func (s *tlsaSearch) bases(host string, addr netip.Addr) (names []string, ok bool) {
	qtype := mdns.TypeA
	if addr.Is6() && !addr.Is4In6() {
		qtype = mdns.TypeAAAA
	}
	own := strings.TrimSuffix(mdns.CanonicalName(host), ".")
	a := s.dns.Lookup(s.ctx, host, qtype)
	if a.Status == Temporary {
		s.failed(host, a)
		return nil, false
	}
	target := strings.TrimSuffix(a.Name, ".")
	secure := a.Secure || s.cfg.DANE == DANEAlways
	switch {
	case secure && target != own:
		s.step(host, target, "the host is an alias")
		return []string{target, own}, true
	case secure:
		return []string{own}, true
	case target == own:
		s.step(host, "", "no TLSA record counts: the address is not secured by DNSSEC")
		return nil, true
	}
	alias := s.dns.Lookup(s.ctx, host, mdns.TypeCNAME)
	if alias.Status == Temporary {
		s.failed(host, alias)
		return nil, false
	}
	if !alias.Secure {
		s.step(host, target, "no TLSA record counts: the alias is not secured by DNSSEC")
		return nil, true
	}
	s.step(host, target, "the alias is secured by DNSSEC and what it stands for is not")
	return []string{own}, true
}

// found notes the records and the names that a certificate may have.
func (s *tlsaSearch) found(base string, t *Answer, domain string) msg.TLSAA {
	for _, rr := range t.RRs[:min(len(t.RRs), tlsaMax)] {
		r, ok := rr.(*mdns.TLSA)
		if !ok {
			continue
		}
		data, err := hex.DecodeString(r.Certificate)
		if err != nil {
			continue
		}
		s.a.Records = append(s.a.Records, msg.TLSA{Usage: r.Usage, Selector: r.Selector, Matching: r.MatchingType, Data: string(data)})
	}
	s.a.Base, s.a.Secure = base, t.Secure
	s.a.Names = []string{base}
	if domain != "" {
		s.addName(domain)
		if mx := s.dns.Lookup(s.ctx, domain, mdns.TypeMX); mx.Status == Success || mx.Status == NoData {
			s.addName(mx.Name) // that of which the domain is an alias
		}
	}
	s.step(t.Name, strconv.Itoa(len(s.a.Records))+" TLSA records", "")
	return s.a
}

func (s *tlsaSearch) addName(name string) {
	ascii, err := toASCII(name)
	if err != nil {
		return
	}
	name = strings.TrimSuffix(mdns.CanonicalName(ascii), ".")
	if !slices.Contains(s.a.Names, name) {
		s.a.Names = append(s.a.Names, name)
	}
}

// failed gives up for now: who can forge an answer must not be able to have mail go without
// the records (RFC 7672 section 2.1.1).
func (s *tlsaSearch) failed(name string, a *Answer) msg.TLSAA {
	s.step(name, "", a.Err)
	s.a = msg.TLSAA{Trace: s.a.Trace, Reply: smtp.NewReply(451, "4.7.5", "lookup of TLSA records failed: "+strings.TrimSuffix(name, ".")+": "+a.Err)}
	return s.a
}

func (s *tlsaSearch) step(key, value, effect string) {
	s.a.Trace = append(s.a.Trace, msg.Step{Check: "tlsa", Key: strings.TrimSuffix(key, "."), Value: value, Effect: effect})
}
