package resolver

import (
	"context"
	"log/slog"

	"meta1/mta/msg"
	"meta1/resolver/dns"
)

// dane says when TLSA records count. Without DNSSEC none can be secure, so none are looked up.
func (c *Config) dane() dns.DANE {
	switch {
	case c.DANE == "always":
		return dns.DANEAlways
	case c.DANE == "never" || !c.DNS.DNSSEC:
		return dns.DANENever
	}
	return dns.DANESecure
}

// warnUntrusted tells of name servers whose word on DNSSEC is not believed although it is
// asked for.
func (r *Resolver) warnUntrusted() {
	trusted, all := r.dns.Trusts()
	if !r.cfg.DNS.DNSSEC || trusted == all {
		return
	}
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "Use_DNSSEC: some name servers are not trusted and make nothing secure (trusted_nameservers)",
		slog.Int("trusted", trusted), slog.Int("nameservers", all))
}

// tlsaFast answers from the cache.
func (r *Resolver) tlsaFast(q *msg.TLSAQ) (msg.TLSAA, bool) {
	a, ok := r.finder.TLSACached(q.Hop.Host, q.Hop.Addr, dns.MXDomain(q.Dest))
	if ok {
		r.metrics.answered(&a)
	}
	return a, ok
}

// tlsaSlow asks DNS.
func (r *Resolver) tlsaSlow(ctx context.Context, q *msg.TLSAQ) msg.TLSAA {
	a := r.finder.TLSA(ctx, q.Hop.Host, q.Hop.Addr, dns.MXDomain(q.Dest))
	r.metrics.answered(&a)
	return a
}

func tlsaFailed(reason string) msg.TLSAA { return msg.TLSAA{Reply: systemFailure(reason)} }
