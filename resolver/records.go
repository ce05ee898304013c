package resolver

import (
	"context"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
	"meta1/resolver/dns"
)

// recordsFast answers from the cache.
func (r *Resolver) recordsFast(q *msg.DNSQ) (msg.DNSA, bool) {
	a := r.dns.Cached(q.Name, wireType(q.Type))
	if a == nil {
		return msg.DNSA{}, false
	}
	return records(a), true
}

// recordsSlow asks DNS.
func (r *Resolver) recordsSlow(ctx context.Context, q *msg.DNSQ) msg.DNSA {
	return records(r.dns.Lookup(ctx, q.Name, wireType(q.Type)))
}

func recordsFailed(reason string) msg.DNSA {
	return msg.DNSA{Status: msg.DNSUnavailable, Err: "resolver: " + reason}
}

// wireType is the number of a type in DNS.
func wireType(t msg.RecordType) uint16 {
	return [...]uint16{
		msg.RecordTXT: mdns.TypeTXT, msg.RecordMX: mdns.TypeMX, msg.RecordA: mdns.TypeA,
		msg.RecordAAAA: mdns.TypeAAAA, msg.RecordPTR: mdns.TypePTR,
	}[t]
}

// records is an answer as other modules get it.
func records(a *dns.Answer) msg.DNSA {
	out := msg.DNSA{Secure: a.Secure}
	switch a.Status {
	case dns.NoData:
		out.Status = msg.DNSNoData
	case dns.NXDomain:
		out.Status = msg.DNSNoName
	case dns.Temporary:
		out.Status, out.Err = msg.DNSUnavailable, a.Err
	}
	if a.Status != dns.Success {
		return out
	}
	shown := *a
	shown.RRs = a.RRs[:min(len(a.RRs), msg.RecordsMax)]
	out.Texts, out.Addrs = shown.Texts(), shown.Addrs()
	for _, rr := range shown.RRs {
		switch rr := rr.(type) {
		case *mdns.MX:
			out.Hosts = append(out.Hosts, msg.MXHost{Pref: rr.Preference, Host: rr.Mx})
		case *mdns.PTR:
			out.Names = append(out.Names, rr.Ptr)
		}
	}
	return out
}
