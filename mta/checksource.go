package mta

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/confparse"
	"meta1/mta/settings"
	"meta1/resolver"
	"meta1/resolver/dns"
)

const (
	sourceTime = 3 * time.Second // bounds the questions about all source addresses together
	sourcesMax = 64              // addresses that are asked about
)

// sharedNet are addresses between a provider and its customers, which nobody else sees (RFC 6598).
var sharedNet = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)

// sourceAddr is one address of a section source of qmgr.smtpc.
type sourceAddr struct {
	option string // in confparse.Result
	ip     netip.Addr
}

// publicSources are the source addresses that other hosts see, each once. A proxy chooses the
// address itself.
func publicSources(c *Config) (all []sourceAddr) {
	if c.Client.ProxyPresent {
		return nil
	}
	for _, s := range c.Queue.SMTPC.Sources {
		for _, ip := range s.IPs {
			ip = ip.WithZone("").Unmap()
			if !ip.IsGlobalUnicast() || ip.IsPrivate() || sharedNet.Contains(ip) ||
				slices.ContainsFunc(all, func(a sourceAddr) bool { return a.ip == ip }) {
				continue
			}
			all = append(all, sourceAddr{"qmgr/smtpc/source " + s.Name + "/ips", ip})
		}
	}
	return all[:min(len(all), sourcesMax)]
}

// sourceNames warns of source addresses whose name in DNS is not one that has the address, or not
// the name that SMTPC says in EHLO. It takes at most sourceTime; where no name server answers it
// says nothing, for then nothing is known to be wrong.
func sourceNames(ctx context.Context, c *Config, result *confparse.Result) (warnings []confparse.Diagnostic) {
	sources := publicSources(c)
	if len(sources) == 0 {
		return nil
	}
	client, err := resolver.NewDNS(c.Resolver, resolver.Deps{ConfigDir: filepath.Dir(result.File)})
	if err != nil {
		return nil // a start tells it
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	defer context.AfterFunc(ctx, client.Close)() // a lookup ends with its client, not with ctx
	name := c.Hostname
	if name == "" {
		name = settings.OwnHostname(ctx)
	}
	lookup := func(name string, qtype uint16) *dns.Answer { return client.Lookup(ctx, name, qtype) }
	wrong := make([]string, len(sources))
	var asking sync.WaitGroup
	for i, s := range sources {
		asking.Go(func() { wrong[i] = sourceName(s.ip, name, lookup) })
	}
	asking.Wait()
	for i, why := range wrong {
		if why != "" {
			warnings = append(warnings, result.Diagnose(confparse.SeverityWarning, sources[i].option, "%s", why))
		}
	}
	return warnings
}

// sourceName says what other hosts may hold against mail from an address: that it has no name
// which has the address (what Postfix's reject_unknown_client_hostname asks for), or that the
// name in EHLO does not have it. It is "" if nothing is known to be wrong.
func sourceName(ip netip.Addr, ehlo string, lookup func(name string, qtype uint16) *dns.Answer) string {
	n, _ := dns.FindClientName(ip, "", lookup)
	switch {
	case n.Result == dns.ResolveNo:
		return fmt.Sprintf("other hosts may refuse mail from source address %v: %s (its PTR record must name a host that has the address)", ip, n.Reason)
	case n.Result != dns.ResolveOK, !strings.Contains(ehlo, "."), n.Name == mdns.CanonicalName(ehlo):
		return ""
	}
	qtype := mdns.TypeAAAA
	if ip.Is4() {
		qtype = mdns.TypeA
	}
	a := lookup(ehlo, qtype)
	if a.Status == dns.Temporary || slices.Contains(a.Addrs(), ip) {
		return ""
	}
	return fmt.Sprintf("other hosts may trust mail from source address %v less: its name is %s, and %s, which SMTPC says in EHLO, does not have that address",
		ip, strings.TrimSuffix(n.Name, "."), strings.TrimSuffix(ehlo, "."))
}
