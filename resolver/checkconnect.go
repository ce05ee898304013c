package resolver

import (
	"context"
	"net/netip"
	"strings"

	mdns "github.com/miekg/dns"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/resolver/access"
	"meta1/resolver/dns"
)

// cltaddr looks the client's address up.
func (c *checker) cltaddr() bool {
	ip := c.q.Client.IP
	if c.access == nil || !ip.IsValid() {
		return false
	}
	return c.apply(c.access.keys(c.ctx, "cltaddr:", maps.FullIP(ip), maps.IPKeys(ip)))
}

// lookup asks DNS, or only its cache if the checker must not wait; then it may give
// nil.
func (c *checker) lookup(name string, qtype uint16) *dns.Answer {
	if !c.fast {
		return c.dns.Lookup(c.ctx, name, qtype)
	}
	a := c.dns.Cached(name, qtype)
	if a == nil {
		c.wait()
	}
	return a
}

// clientName finds the verified name of the client (README 3.9.3).
func (c *checker) clientName() bool {
	if c.access == nil || !c.q.Client.IP.IsValid() {
		return false
	}
	if given := &c.q.Client; given.Resolve != "" {
		c.v.ClientName, c.v.ClientResolve = given.Name, given.Resolve
		c.step(msg.Step{Check: "client name", Key: maps.FullIP(given.IP), Value: given.Name, Effect: "given by XCLIENT"})
		return false
	}
	n, ok := dns.FindClientName(c.q.Client.IP, c.deps.Hostname, c.lookup)
	if !ok {
		return false // it must wait
	}
	c.v.ClientName, c.v.ClientResolve = n.Name, n.Result
	c.step(msg.Step{
		Check: "client name", Key: maps.FullIP(c.q.Client.IP), Value: n.Name,
		Effect: strings.TrimSuffix(n.Result+": "+n.Reason, ": "),
	})
	return false
}

// cltresolve looks the result of clientName up.
func (c *checker) cltresolve() bool {
	if c.access == nil || c.v.ClientResolve == "" {
		return false
	}
	return c.apply(c.access.exact(c.ctx, "cltresolve:", c.v.ClientResolve))
}

// cltname looks the client's name up, with its trailing dot (README 3.9.3).
func (c *checker) cltname() bool {
	if c.access == nil || c.v.ClientName == "" {
		return false
	}
	return c.apply(c.access.keys(c.ctx, "cltname:", c.v.ClientName, maps.DomainKeys(c.v.ClientName, maps.DotSubdomain)))
}

// dnsbl asks all lists at once, and looks the results up in the order of the lists
// (README 3.9.2, item 5): the first entry that is found decides.
func (c *checker) dnsbl() bool {
	if c.access == nil || len(c.cfg.DNSBLs) == 0 || !c.q.Client.IP.IsValid() {
		return false
	}
	answers := c.askLists(dns.Reversed(c.q.Client.IP))
	if c.unknown {
		return false
	}
	for i, a := range answers {
		for _, key := range listKeys(a) {
			f := c.access.keys(c.ctx, c.cfg.DNSBLs[i].Tag+":", key, keysOfList(key))
			if f.Word == access.None {
				c.step(f.step)
				continue
			}
			if c.apply(f) {
				return true
			}
		}
	}
	return false
}

// askLists looks the client up in every list.
func (c *checker) askLists(client string) []*dns.Answer {
	answers := make([]*dns.Answer, len(c.cfg.DNSBLs))
	if c.fast {
		for i, l := range c.cfg.DNSBLs {
			answers[i] = c.lookup(client+l.Domain, mdns.TypeA)
		}
		return answers
	}
	g := supervise.NewGroup(c.ctx)
	for i, l := range c.cfg.DNSBLs {
		g.Go(func(ctx context.Context) error {
			answers[i] = c.dns.Lookup(ctx, client+l.Domain, mdns.TypeA)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		c.step(msg.Step{Check: "dnsbl", Effect: err.Error()})
	}
	return answers
}

// listKeys are the keys that a list's answer stands for: addresses, temp or perm.
func listKeys(a *dns.Answer) []string {
	switch {
	case a == nil || a.Status == dns.NoData || a.Status == dns.NXDomain:
		return nil
	case a.Status == dns.Temporary && a.Refused:
		return []string{"perm"}
	case a.Status == dns.Temporary:
		return []string{"temp"}
	}
	var keys []string
	for _, ip := range a.Addrs() {
		keys = append(keys, ip.String())
	}
	return keys
}

// keysOfList gives the keys for one result: an address and its nets, or the word.
func keysOfList(key string) func(func(string) bool) {
	if ip, err := netip.ParseAddr(key); err == nil {
		return maps.IPKeys(ip)
	}
	return func(yield func(string) bool) { yield(key) }
}

// sessionConf looks the configuration of the session up: by address, and if there
// is no entry by name (README 3.10.1).
func (c *checker) sessionConf() bool {
	ip := c.q.Client.IP
	if c.access == nil || !c.rules.SessionConf || !ip.IsValid() {
		return false
	}
	f := c.access.keys(c.ctx, "smtps_session_conf:", maps.FullIP(ip), maps.IPKeys(ip))
	if name := c.v.ClientName; f.Word == access.None && name != "" {
		c.step(f.step)
		f = c.access.keys(c.ctx, "smtps_se_conf:", name, maps.DomainKeys(name, maps.DotSubdomain))
	}
	switch f.Word {
	case access.Other:
		conf, err := msg.ParseConf(f.Text)
		if err != nil {
			return c.broken(f.step, err)
		}
		c.v.SessionConf = &conf
	case access.Error:
		return c.apply(f)
	}
	c.step(f.step)
	return false
}
