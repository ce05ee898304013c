package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"meta1/resolver/dns"
)

// NewDNS makes a client that asks the name servers of section DNS as SMAR does. Close it.
func NewDNS(cfg Config, deps Deps) (*dns.Client, error) {
	cfg, deps = withDefaults(cfg, deps)
	asks, err := dnsConfig(&cfg, &deps)
	if err != nil {
		return nil, err
	}
	return newDNS(asks, &deps)
}

// dnsConfig says how name servers are asked, and which.
func dnsConfig(cfg *Config, deps *Deps) (dns.Config, error) {
	servers, err := nameServers(cfg, deps)
	d := &cfg.DNS
	return dns.Config{
		Servers: servers, Retries: d.Retries, Timeout: d.Timeout,
		TCP: d.TCP, Connect: d.Connect, DNSSEC: d.DNSSEC, Trusted: d.Trusted, MixCase: d.MixCase, CacheSize: d.CacheSize,
	}, err
}

func newDNS(asks dns.Config, deps *Deps) (*dns.Client, error) {
	client, err := dns.New(asks, dns.Deps{Dial: deps.Dial, Log: deps.Log})
	if err != nil {
		return nil, fmt.Errorf("smar: %w", err)
	}
	return client, nil
}

// nameServers are those of the configuration, of resolv.conf, or 127.0.0.1.
func nameServers(cfg *Config, deps *Deps) ([]netip.AddrPort, error) {
	addrs := cfg.DNS.Servers
	if len(addrs) == 0 && cfg.DNS.ResolvConf {
		var err error
		if addrs, err = dns.ReadResolvConf(deps.ResolvConf); err != nil {
			deps.Log.LogAttrs(context.Background(), slog.LevelWarn, "name servers unknown: using 127.0.0.1",
				slog.String("stat", err.Error()))
		}
	}
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	if len(addrs) > 4 {
		return nil, fmt.Errorf("smar: DNS.nameservers has %d addresses, at most 4 are possible", len(addrs))
	}
	servers := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		servers[i] = netip.AddrPortFrom(a, uint16(cfg.DNS.Port))
	}
	return servers, nil
}
