package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/access"
	"meta1/resolver/dns"
)

// tableTTL is the time to live of routes that the mailertable gives whole (README 7.2).
const tableTTL = time.Hour

// literal reads a domain that is an address literal (RFC 5321 section 4.1.3).
func literal(domain string) (netip.Addr, bool) {
	if len(domain) < 3 || domain[0] != '[' || domain[len(domain)-1] != ']' {
		return netip.Addr{}, false
	}
	text := domain[1 : len(domain)-1]
	v6, tagged := strings.CutPrefix(text, "ipv6:")
	a, err := netip.ParseAddr(v6)
	if err != nil || a.Zone() != "" || a.Is6() != tagged {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// split takes a recipient apart for lookups. One without a domain, <postmaster>, gets
// one of ours.
func (r *Resolver) split(s *set, p smtp.Path) maps.Address {
	domain := p.LowerDomain()
	if domain == "" {
		domain = s.bare
	}
	return maps.ParseAddress(p.Local, strings.TrimSuffix(domain, "."), s.cfg.Delimiter)
}

// decide finds where an address goes: a rule of the mailertable, an address
// literal, or its own MX records. An error is temporary.
func (r *Resolver) decide(ctx context.Context, s *set, a maps.Address) (*target, error) {
	rule, err := r.find(ctx, s.mailertable, a)
	if err != nil {
		return nil, err
	}
	if rule == nil {
		return r.byDomain(a.Domain), nil
	}
	if rule.hops != nil || rule.search.Name != "" {
		return rule, nil
	}
	own := *rule // a rule without host: the domain's own, with the rule's conditions
	own.search.Name = a.Domain
	own.dest = own.search.Dest(r.deps.RemotePort)
	return &own, nil
}

// byDomain is the target of a domain without a rule.
func (r *Resolver) byDomain(domain string) *target {
	if r.only != nil {
		return r.only
	}
	if addr, ok := literal(domain); ok {
		t := &target{}
		t.hops, t.dest = addrHops(msg.ProtoSMTP, []netip.Addr{addr}, r.deps.RemotePort)
		t.trace = msg.Trace{{Check: "literal", Key: domain, Effect: t.dest}}
		return t
	}
	t := &target{search: dns.Target{Name: domain, Port: r.deps.RemotePort}}
	t.dest = t.search.Dest(r.deps.RemotePort)
	return t
}

// routeFast answers what needs no waiting: rules with addresses, and routes for which DNS
// has been asked and the answers still hold.
func (r *Resolver) routeFast(q *msg.RouteQ) (msg.RouteA, bool) {
	s := r.set
	if q.Via != "" || s.mailertable.blocking() || r.looksRcptUp(s) && s.access.m.Blocking() || s.aliases != nil && s.aliases.m.Blocking() || r.hasAlias(s, q) {
		return msg.RouteA{}, false
	}
	t, err := r.decide(context.Background(), s, r.split(s, q.Rcpt))
	if err != nil {
		return r.tableFailed(err), true
	}
	if t.hops != nil {
		return r.withRcptConf(context.Background(), s, q, r.static(t)), true
	}
	found := r.finder.FindCached(t.search)
	if found == nil {
		return msg.RouteA{}, false
	}
	a := r.byDNS(t, found)
	if domain := r.policyDomain(t); domain != "" {
		f, ok := r.sts.Cached(domain)
		if !ok {
			return msg.RouteA{}, false
		}
		a = r.applySTS(q, domain, f, a)
	}
	return r.withRcptConf(context.Background(), s, q, a), true
}

// routeSlow asks DNS or a socket map.
func (r *Resolver) routeSlow(ctx context.Context, q *msg.RouteQ) msg.RouteA {
	if q.TA != (smtp.ID{}) { // mail that waits in the queue, and no client for the answer
		ctx = dns.Patient(ctx)
	}
	s := r.set
	if q.Via != "" {
		if a, ok := r.handover(ctx, s, q); ok {
			return a
		}
	}
	if a, done := r.expand(ctx, s, q); done {
		return a
	}
	t, err := r.decide(ctx, s, r.split(s, q.Rcpt))
	if err != nil {
		return r.tableFailed(err)
	}
	if t.hops != nil {
		return r.withRcptConf(ctx, s, q, r.static(t))
	}
	a := r.byDNS(t, r.finder.Find(ctx, t.search))
	if domain := r.policyDomain(t); domain != "" && len(a.Hops) > 0 {
		a = r.applySTS(q, domain, r.sts.Find(ctx, domain), a)
	}
	return r.withRcptConf(ctx, s, q, a)
}

func (r *Resolver) looksRcptUp(s *set) bool { return r.deps.RcptConf != 0 && s.access != nil }

// withRcptConf adds what smtpc_rcpt_conf: says of the recipient (README 3.11.1). An
// entry that cannot be read holds the mail back: it may demand encryption.
func (r *Resolver) withRcptConf(ctx context.Context, s *set, q *msg.RouteQ, a msg.RouteA) msg.RouteA {
	if !r.looksRcptUp(s) || len(a.Hops) == 0 {
		return a
	}
	f := s.access.address(ctx, "smtpc_rcpt_conf:", r.split(s, q.Rcpt), r.deps.RcptConf)
	if f.Word == access.None {
		return a
	}
	conf, err := msg.ParseConf(f.Text)
	if f.Word != access.Other {
		err = fmt.Errorf("%q is no configuration of a recipient", f.step.Value)
	}
	if err != nil {
		f.step.Effect = err.Error()
		r.log.LogAttrs(ctx, slog.LevelError, "access map entry cannot be used", slog.String("where", f.step.Key), slog.String("stat", err.Error()))
		return msg.RouteA{Reply: smtp.NewReply(451, "4.3.5", "configuration of the recipient cannot be read"), Trace: msg.Trace{f.step}}
	}
	a.RcptConf = &conf
	a.Trace = append(a.Trace[:len(a.Trace):len(a.Trace)], f.step)
	return a
}

// static is the route of a target that needs no DNS.
func (r *Resolver) static(t *target) msg.RouteA {
	r.metrics.routeStatic.Inc()
	return msg.RouteA{Hops: t.hops, Dest: t.dest, Expires: time.Now().Add(tableTTL), Trace: t.trace}
}

// byDNS is the route of a target for which DNS was asked. Hosts of equal preference are in
// another order each time (RFC 5321 section 5.1). It is not kept: package dns keeps the
// answers that it is made of, and QMGR the routes of its destinations.
func (r *Resolver) byDNS(t *target, found *dns.Route) msg.RouteA {
	r.metrics.routeDNS.Inc()
	a := msg.RouteA{
		Reply: found.Reply, Dest: t.dest, Expires: found.Expires,
		Trace: append(t.trace[:len(t.trace):len(t.trace)], found.Trace...),
	}
	if a.Reply.IsZero() {
		a.Hops = found.Hops(t.protocol(), t.search.Port)
	} else {
		r.log.LogAttrs(context.Background(), slog.LevelDebug, "no route", slog.String("dest", t.dest), slog.String("reply", a.Reply.String()))
	}
	return a
}

func (t *target) protocol() msg.Protocol {
	if t.local {
		return msg.ProtoLMTP
	}
	return msg.ProtoSMTP
}

func (r *Resolver) tableFailed(err error) msg.RouteA {
	r.log.LogAttrs(context.Background(), slog.LevelError, "mailertable lookup failed", slog.String("stat", err.Error()))
	return msg.RouteA{
		Reply: smtp.NewReply(451, "4.3.5", "mailertable lookup failed"),
		Trace: msg.Trace{{Check: "mailertable", Effect: err.Error()}},
	}
}

func routeFailed(reason string) msg.RouteA { return msg.RouteA{Reply: systemFailure(reason)} }

func (r *Resolver) status() msg.StatusA {
	d := r.dns.Stats()
	s := r.set
	return msg.StatusA{Module: "smar", Values: []msg.StatusValue{
		{Name: "mailertable_entries", Number: int64(s.mailertable.len())},
		{Name: "waiting_questions", Number: r.slow.Load()},
		{Name: "waiting_questions_peak", Number: r.peak.Load()},
		{Name: "dns_cache_entries", Number: int64(d.Entries)},
		{Name: "dns_cache_bytes", Number: d.Bytes},
		{Name: "dns_lookups", Number: d.Lookups},
		{Name: "dns_cache_hits", Number: d.Hits},
		{Name: "dns_queries", Number: d.Queries},
		{Name: "dns_failures", Number: d.Failures},
	}}
}
