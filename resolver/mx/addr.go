package mx

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/resolver/dns"
	"meta1/resolver/mailertable"
)

// found is what the address lookups of one host gave.
type found struct {
	a, aaaa *dns.Answer // nil if not asked
}

// addresses looks the addresses of all hosts up at once and keeps the hosts that
// have some.
func (s *search) addresses(ctx context.Context, hosts []Host) smtp.Reply {
	answers := make([]found, len(hosts))
	g := supervise.NewGroup(ctx)
	for i, h := range hosts {
		if len(h.Addrs) > 0 {
			continue
		}
		if s.family() != mailertable.IPv6Only {
			g.Go(func(ctx context.Context) error { answers[i].a = s.dns.Lookup(ctx, h.Name, mdns.TypeA); return nil })
		}
		if s.family() != mailertable.IPv4Only {
			g.Go(func(ctx context.Context) error {
				answers[i].aaaa = s.dns.Lookup(ctx, h.Name, mdns.TypeAAAA)
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		s.step("address", s.target.Name, "", err.Error())
		return smtp.NewReply(451, "4.3.0", "internal error while looking addresses up")
	}
	return s.keep(hosts, answers)
}

// family is the selection in effect.
func (s *search) family() mailertable.Select {
	switch {
	case s.target.Select != mailertable.Unset:
		return s.target.Select
	case s.cfg.Select != mailertable.Unset:
		return s.cfg.Select
	}
	return mailertable.IPv4Preferred
}

// keep takes the hosts with addresses into the route. Lookups that failed for now
// matter if nothing is left; else they only shorten the life of the route.
func (s *search) keep(hosts []Host, answers []found) smtp.Reply {
	temporary, exists := false, false
	for i, h := range hosts {
		if len(h.Addrs) == 0 {
			h.Addrs = s.pick(s.addrs(h, answers[i].a), s.addrs(h, answers[i].aaaa))
		}
		temporary = temporary || answers[i].any(dns.Temporary)
		exists = exists || answers[i].any(dns.NoData)
		if len(h.Addrs) > 0 {
			s.route.Hosts = append(s.route.Hosts, h)
		}
	}
	if temporary {
		if soon := time.Now().Add(partialTTL); soon.Before(s.route.Expires) {
			s.route.Expires = soon
		}
	}
	switch {
	case len(s.route.Hosts) > 0:
		return smtp.Reply{}
	case temporary:
		return smtp.NewReply(451, "4.4.3", "name server failure, try again")
	case len(hosts) == 1 && mdns.CanonicalName(hosts[0].Name) == s.name && !exists:
		return smtp.NewReply(550, "5.1.2", "host does not exist")
	}
	return smtp.NewReply(550, "5.4.4", "mail hosts have no address")
}

func (f found) any(status dns.Status) bool {
	return f.a != nil && f.a.Status == status || f.aaaa != nil && f.aaaa.Status == status
}

// addrs gives the addresses of one answer and writes the step.
func (s *search) addrs(h Host, a *dns.Answer) []netip.Addr {
	if a == nil {
		return nil
	}
	if a.Status != dns.Temporary {
		s.note(a)
	}
	var addrs []netip.Addr
	for _, rr := range a.RRs {
		switch r := rr.(type) {
		case *mdns.A:
			addrs = appendAddr(addrs, r.A)
		case *mdns.AAAA:
			addrs = appendAddr(addrs, r.AAAA)
		}
	}
	effect := ""
	if a.Status != dns.Success {
		effect = a.Status.String()
		if a.Err != "" {
			effect += ": " + a.Err
		}
	}
	s.step("address", h.Name, joinAddrs(addrs), effect)
	if s.cfg.AddrMax > 0 && len(addrs) > s.cfg.AddrMax {
		addrs = addrs[:s.cfg.AddrMax]
	}
	return addrs
}

func appendAddr(addrs []netip.Addr, raw []byte) []netip.Addr {
	a, ok := netip.AddrFromSlice(raw)
	if !ok || a.Unmap().IsUnspecified() {
		return addrs
	}
	return append(addrs, a.Unmap())
}

func joinAddrs(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// pick orders the families of one host as IPv_Select says.
func (s *search) pick(v4, v6 []netip.Addr) []netip.Addr {
	switch s.family() {
	case mailertable.IPv4Only:
		return v4
	case mailertable.IPv6Only:
		return v6
	case mailertable.IPv6Preferred:
		return slices.Concat(v6, v4)
	}
	return slices.Concat(v4, v6)
}
