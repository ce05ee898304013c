package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/dns"
	"meta1/resolver/mailertable"
)

// table is the mailertable: either rules read from a flat file, made ready for use,
// or a map whose values are read at each lookup.
type table struct {
	steps  maps.Steps
	rules  map[string]*target // by key; nil if lookup is set
	lookup maps.Map
	name   string // of the map, for traces
	// firstLocal is the first domain of the file that is local, or "".
	firstLocal string
}

// target is where mail goes, made ready: hops that are known, or what to search.
type target struct {
	source string // "file:line" or the map's name
	trace  msg.Trace
	local  bool // lmtp: mail for it is local (README 4.3.1)

	hops   []msg.Hop // shared, never changed; nil if DNS has to be asked
	dest   string
	search dns.Target
}

func (m *MailertableConfig) steps() maps.Steps {
	steps := maps.BareDomain
	for _, f := range []struct {
		on   bool
		step maps.Steps
	}{
		{m.FullAddress, maps.FullAddress},
		{m.DetailPlus, maps.DetailPlus},
		{m.DetailStar, maps.DetailStar},
		{m.Star, maps.Star},
		{m.Domain, maps.Domain},
		{m.DotSubdomain, maps.DotSubdomain},
		{m.Dot, maps.Dot},
	} {
		if f.on {
			steps |= f.step
		}
	}
	return steps
}

func (r *Resolver) addRule(t *table, path string, e maps.Entry) error {
	key := asciiKey(e.Key)
	rule, errRule := mailertable.Parse(e.Value)
	if err := errors.Join(mailertable.CheckKey(key), errRule); err != nil {
		return err
	}
	source := path + ":" + strconv.Itoa(e.Line)
	if old, ok := t.rules[key]; ok {
		return fmt.Errorf("key %q stands already at %s", key, old.source)
	}
	t.rules[key] = r.newTarget(rule, source, key, e.Value)
	if t.firstLocal == "" && t.rules[key].local && smtp.CheckDomain(key) == nil {
		t.firstLocal = key
	}
	return nil
}

// asciiKey is a key as addresses are looked up: in lower case, its domain in ASCII. One
// whose domain cannot be written so stays, for CheckKey to judge.
func asciiKey(key string) string {
	key = maps.Lower(key)
	if smtp.IsASCII(key) {
		return key
	}
	local, domain := "", key
	if at := strings.LastIndexByte(key, '@'); at >= 0 {
		local, domain = key[:at+1], key[at+1:]
	}
	name := strings.TrimPrefix(domain, ".")
	a, err := smtp.ASCIIDomain(name)
	if err != nil {
		return key
	}
	return local + domain[:len(domain)-len(name)] + a
}

func (t *table) len() int { return len(t.rules) }

// newTarget makes a rule ready for use. A rule that leaves the host out stands for
// the recipient's own domain: its search has no name yet.
func (r *Resolver) newTarget(rule mailertable.Rule, source, key, value string) *target {
	t := &target{source: source, local: rule.Protocol == msg.ProtoLMTP}
	port := cmp.Or(rule.Port, r.deps.RemotePort)
	switch {
	case rule.IsSocket():
		t.hops = []msg.Hop{{Protocol: msg.ProtoLMTP, Socket: r.deps.LMTPSocket}}
		t.dest = "lmtp:" + r.deps.LMTPSocket
	case r.only != nil && rule.Protocol == msg.ProtoSMTP:
		t.hops, t.dest = r.only.hops, r.only.dest
	case len(rule.Addrs) > 0:
		t.hops, t.dest = addrHops(rule.Protocol, rule.Addrs, port)
	default:
		t.search = dns.Target{Name: rule.Host, Port: port, NoMX: rule.NoMX, Family: dns.Family(rule.Select), Given: rule.Host != ""}
		if t.local {
			t.dest = "lmtp:" + rule.Host + ":" + strconv.Itoa(int(port))
		} else if rule.Host != "" {
			t.dest = t.search.Dest(r.deps.RemotePort)
		}
	}
	t.trace = msg.Trace{{Check: "mailertable", Map: source, Key: key, Value: value, Effect: t.dest}}
	return t
}

// addrHops are the hops to addresses that need no DNS, and their name.
func addrHops(proto msg.Protocol, addrs []netip.Addr, port uint16) ([]msg.Hop, string) {
	hops := make([]msg.Hop, len(addrs))
	var dest strings.Builder
	dest.WriteString(proto.String() + ":")
	for i, a := range addrs {
		hops[i] = msg.Hop{Protocol: proto, Addr: netip.AddrPortFrom(a, port)}
		dest.WriteString("[" + a.String() + "]")
	}
	dest.WriteString(":" + strconv.Itoa(int(port)))
	return hops, dest.String()
}

// onlyTarget is the route of connect_only_to (README 8.6).
func (r *Resolver) onlyTarget() *target {
	t := &target{source: "connect_only_to"}
	t.hops, t.dest = addrHops(msg.ProtoSMTP, []netip.Addr{r.deps.ConnectOnlyTo.Unmap()}, r.deps.RemotePort)
	t.trace = msg.Trace{{Check: "connect_only_to", Key: r.deps.ConnectOnlyTo.String(), Effect: t.dest}}
	return t
}

// find gives the rule for an address, nil if there is none. An error is a lookup
// that failed or a value that cannot be read.
func (r *Resolver) find(ctx context.Context, t *table, a maps.Address) (*target, error) {
	if t.lookup != nil {
		return r.findInMap(ctx, t, a)
	}
	if t.steps&(maps.FullAddress|maps.DetailPlus|maps.DetailStar|maps.Star) != 0 {
		for key := range a.Keys(t.steps) {
			if rule, ok := t.rules[maps.Lower(key)]; ok {
				return rule, nil
			}
		}
		return nil, nil
	}
	return t.findDomain(a.Domain), nil
}

// findDomain is the common case without allocation: domain, .subdomains and dot.
func (t *table) findDomain(domain string) *target {
	if t.steps&maps.Domain != 0 {
		for key := range maps.DomainKeys(domain, t.steps) {
			if rule, ok := t.rules[key]; ok {
				return rule
			}
		}
		return nil
	}
	if t.steps&maps.Dot != 0 {
		return t.rules["."]
	}
	return nil
}

func (r *Resolver) findInMap(ctx context.Context, t *table, a maps.Address) (*target, error) {
	key, _, value, res := maps.FindAddress(ctx, t.lookup, "", a, t.steps)
	switch {
	case res.Failed():
		return nil, fmt.Errorf("mailertable %s: lookup of %q: %s %s", t.name, key, res, value)
	case res != maps.OK:
		return nil, nil
	}
	rule, err := mailertable.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("mailertable %s: entry %q: %w", t.name, key, err)
	}
	return r.newTarget(rule, t.name, key, value), nil
}

// blocking reports whether a lookup may wait.
func (t *table) blocking() bool { return t.lookup != nil && t.lookup.Blocking() }
