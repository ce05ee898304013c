package dns

import (
	"context"
	"net/netip"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// found is what the address lookups of one host gave.
type found struct {
	a, aaaa *Answer // nil if not asked
}

// addresses looks the addresses of all hosts up, at once where they are not cached, and
// keeps the hosts that have some.
func (s *search) addresses(ctx context.Context, hosts []Host) smtp.Reply {
	answers := make([]found, len(hosts))
	g := supervise.NewGroup(ctx)
	look := func(into **Answer, name string, qtype uint16) {
		if *into = s.dns.Cached(name, qtype); *into == nil {
			g.Go(func(ctx context.Context) error { *into = s.dns.Lookup(ctx, name, qtype); return nil })
		}
	}
	for i, h := range hosts {
		if len(h.Addrs) > 0 {
			continue
		}
		if s.family() != IPv6Only {
			look(&answers[i].a, h.Name, mdns.TypeA)
		}
		if s.family() != IPv4Only {
			look(&answers[i].aaaa, h.Name, mdns.TypeAAAA)
		}
	}
	if err := g.Wait(); err != nil {
		s.step("address", s.target.Name, "", err.Error())
		return smtp.NewReply(451, "4.3.0", "internal error while looking addresses up")
	}
	return s.keep(hosts, answers)
}

// family is the selection in effect.
func (s *search) family() Family {
	switch {
	case s.target.Family != AnyFamily:
		return s.target.Family
	case s.cfg.Family != AnyFamily:
		return s.cfg.Family
	}
	return IPv4Preferred
}

// keep takes the hosts with addresses into the route. Lookups that failed for now
// matter if nothing is left; else they only shorten the life of the route.
func (s *search) keep(hosts []Host, answers []found) smtp.Reply {
	temporary, exists := false, false
	for i, h := range hosts {
		if len(h.Addrs) == 0 {
			h.Addrs = s.pick(s.addrs(h, answers[i].a), s.addrs(h, answers[i].aaaa))
		}
		temporary = temporary || answers[i].any(Temporary)
		exists = exists || answers[i].any(NoData)
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

func (f found) any(status Status) bool {
	return f.a != nil && f.a.Status == status || f.aaaa != nil && f.aaaa.Status == status
}

// addrs gives the addresses of one answer and writes the step.
func (s *search) addrs(h Host, a *Answer) []netip.Addr {
	if a == nil {
		return nil
	}
	if a.Status != Temporary {
		s.note(a)
	}
	addrs := a.Addrs()
	effect := ""
	if a.Status != Success {
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

func joinAddrs(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// pick orders the addresses of one host as IPv_Select says: the families in turn, the preferred one
// first, so that one that does not work costs one try and not one for each address (RFC 8305
// section 4). Within a family the order stays.
func (s *search) pick(v4, v6 []netip.Addr) []netip.Addr {
	switch s.family() {
	case IPv4Only:
		return v4
	case IPv6Only:
		return v6
	case IPv6Preferred:
		return inTurn(v6, v4)
	}
	return inTurn(v4, v6)
}

// inTurn takes from both lists in turn.
func inTurn(a, b []netip.Addr) []netip.Addr {
	all := make([]netip.Addr, 0, len(a)+len(b))
	for i := range max(len(a), len(b)) {
		all = append(append(all, a[min(i, len(a)):min(i+1, len(a))]...), b[min(i, len(b)):min(i+1, len(b))]...)
	}
	return all
}
