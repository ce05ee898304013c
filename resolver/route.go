package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/access"
	"meta1/resolver/dns"
)

const (
	tableTTL  = time.Hour // README 7.2: mailertable routes count as having a TTL of 3600 s
	maxRoutes = 20000     // routes found by DNS that are kept ready
	shuffles  = 4         // orders of hosts of equal preference that are kept ready
)

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

// split takes a recipient apart for lookups. One without a domain, such as
// <postmaster>, belongs to this host.
func (r *Resolver) split(s *set, p smtp.Path) maps.Address {
	domain := p.Domain
	if domain == "" {
		domain = s.home
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

// routeFast answers what memory knows: rules with addresses, and routes that DNS
// gave before and that still hold.
func (r *Resolver) routeFast(q *msg.RouteQ) (msg.RouteA, bool) {
	s := r.set.Load()
	if s.mailertable.blocking() || r.looksRcptUp(s) && s.access.m.Blocking() || s.aliases != nil && (s.aliases.m.Blocking() || r.hasAlias(s, q)) {
		return msg.RouteA{}, false
	}
	t, err := r.decide(context.Background(), s, r.split(s, q.Rcpt))
	if err != nil {
		return r.tableFailed(err), true
	}
	now := time.Now()
	if t.hops != nil {
		r.metrics.routeStatic.Inc()
		a := msg.RouteA{Hops: t.hops, Dest: t.dest, Expires: now.Add(tableTTL), Trace: t.trace}
		return r.withRcptConf(context.Background(), s, q, a), true
	}
	a, ok := r.routes.get(routeKey{t.dest, t.source}, now)
	if !ok {
		return msg.RouteA{}, false
	}
	r.metrics.routeCached.Inc()
	return r.withRcptConf(context.Background(), s, q, a), true
}

// routeSlow asks DNS or a socket map.
func (r *Resolver) routeSlow(ctx context.Context, q *msg.RouteQ) msg.RouteA {
	s := r.set.Load()
	if a, done := r.expand(ctx, s, q); done {
		return a
	}
	t, err := r.decide(ctx, s, r.split(s, q.Rcpt))
	if err != nil {
		return r.tableFailed(err)
	}
	if t.hops != nil {
		r.metrics.routeStatic.Inc()
		a := msg.RouteA{Hops: t.hops, Dest: t.dest, Expires: time.Now().Add(tableTTL), Trace: t.trace}
		return r.withRcptConf(ctx, s, q, a)
	}
	r.metrics.routeDNS.Inc()
	return r.withRcptConf(ctx, s, q, r.search(ctx, t))
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

// search finds the hosts of a target by DNS and keeps the route.
func (r *Resolver) search(ctx context.Context, t *target) msg.RouteA {
	found := r.finder.Find(ctx, t.search)
	a := msg.RouteA{
		Reply: found.Reply, Dest: t.dest, Expires: found.Expires, Secure: found.Secure && found.Reply.IsZero(),
		Trace: append(t.trace[:len(t.trace):len(t.trace)], found.Trace...),
	}
	if !a.Reply.IsZero() {
		r.log.LogAttrs(ctx, slog.LevelDebug, "no route", slog.String("dest", t.dest), slog.String("reply", a.Reply.String()))
		r.routes.put(routeKey{t.dest, t.source}, []msg.RouteA{a})
		return a
	}
	orders := make([]msg.RouteA, shuffles)
	for i := range orders {
		orders[i] = a
		orders[i].Hops = found.Hops(t.protocol(), t.search.Port)
	}
	r.routes.put(routeKey{t.dest, t.source}, orders)
	return orders[0]
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

// routeKey tells routes apart: a rule of the mailertable belongs to the reasons.
type routeKey struct{ dest, source string }

// routeCache keeps answers ready that DNS gave, with their hops in several orders.
type routeCache struct {
	max int

	mu      sync.RWMutex // guards entries
	entries map[routeKey][]msg.RouteA
}

func newRouteCache(limit int) routeCache {
	return routeCache{max: limit, entries: map[routeKey][]msg.RouteA{}}
}

func (c *routeCache) get(k routeKey, now time.Time) (msg.RouteA, bool) {
	c.mu.RLock()
	orders := c.entries[k]
	c.mu.RUnlock()
	if len(orders) == 0 || !now.Before(orders[0].Expires) {
		return msg.RouteA{}, false
	}
	return orders[rand.IntN(len(orders))], true
}

// put keeps an answer. When the cache is full, what has expired goes first, then
// anything.
func (c *routeCache) put(k routeKey, orders []msg.RouteA) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, old := c.entries[k]; !old && len(c.entries) >= c.max {
		c.evictLocked(time.Now())
	}
	c.entries[k] = orders
}

func (c *routeCache) evictLocked(now time.Time) {
	for k, orders := range c.entries {
		if !now.Before(orders[0].Expires) {
			delete(c.entries, k)
		}
	}
	for k := range c.entries {
		if len(c.entries) <= c.max*9/10 {
			return
		}
		delete(c.entries, k)
	}
}

func (c *routeCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}

func (c *routeCache) len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

func (r *Resolver) status() msg.StatusA {
	d := r.dns.Stats()
	s := r.set.Load()
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	return msg.StatusA{Module: "smar", Values: []msg.StatusValue{
		{Name: "mailertable_entries", Value: num(int64(s.mailertable.len()))},
		{Name: "waiting_questions", Value: num(r.slow.Load())},
		{Name: "routes_cached", Value: num(int64(r.routes.len()))},
		{Name: "dns_cache_entries", Value: num(int64(d.Entries))},
		{Name: "dns_cache_bytes", Value: num(d.Bytes)},
		{Name: "dns_lookups", Value: num(d.Lookups)},
		{Name: "dns_cache_hits", Value: num(d.Hits)},
		{Name: "dns_queries", Value: num(d.Queries)},
		{Name: "dns_failures", Value: num(d.Failures)},
	}}
}
