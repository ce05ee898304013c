package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/dns"
	"meta1/resolver/mtasts"
)

// policyDomain is the domain whose MTA-STS policy counts for a target, "" for none. It is the
// domain whose MX records lead to the hosts (RFC 8461 section 3.4), also if the
// configuration names it.
func (r *Resolver) policyDomain(t *target) string {
	if r.sts == nil || t.hops != nil || t.local || t.search.NoMX {
		return ""
	}
	return t.search.Name
}

// withSTS leaves out hosts that an enforced policy does not name and tells SMTPC what it asks
// of the others. If it names none of them the mail waits (RFC 8461 section 5). For optional mail,
// which no policy keeps back (RFC 8689 section 4.1), such hosts are used, and the destination is
// another one than that of other mail.
func (r *Resolver) withSTS(f mtasts.Found, a msg.RouteA, optional bool) msg.RouteA {
	if len(a.Hops) == 0 {
		return a
	}
	a.Trace = slices.Concat(a.Trace, f.Trace)
	if !f.Expires.IsZero() && f.Expires.Before(a.Expires) {
		a.Expires = f.Expires
	}
	if f.Policy == nil || f.Policy.Mode == mtasts.None {
		return a
	}
	enforce := f.Policy.Mode == mtasts.Enforce
	hops := make([]msg.Hop, 0, len(a.Hops))
	var strange []string // hosts that the policy does not name
	for _, h := range a.Hops {
		switch named := f.Policy.Matches(h.Host); {
		case named && enforce:
			h.STS = msg.STSEnforce
		case named:
			h.STS = msg.STSTesting
		default:
			if !slices.Contains(strange, h.Host) {
				strange = append(strange, h.Host)
			}
			if enforce && !optional {
				continue
			}
			if !enforce {
				h.STS = msg.STSUnnamed
			}
		}
		hops = append(hops, h)
	}
	effect := "the policy does not name this host: left out"
	switch {
	case !enforce:
		effect = "the policy does not name this host: used, since it is for testing"
	case optional:
		effect = "the policy does not name this host: used, since the message has TLS-Required: no"
	}
	for _, host := range strange {
		a.Trace = append(a.Trace, msg.Step{Check: "mta-sts", Key: host, Effect: effect})
	}
	a.Hops = hops
	if enforce && optional && len(strange) > 0 {
		a.Dest += msg.DestTLSOptional
		return a
	}
	if len(strange) > 0 {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "MX hosts that the MTA-STS policy does not name",
			slog.String("dest", a.Dest), slog.Any("hosts", strange), slog.String("mode", string(f.Policy.Mode)))
	}
	if len(hops) == 0 {
		a.Hops = nil
		a.Reply = smtp.NewReply(451, "4.7.0", "no MX host of the domain is one that its MTA-STS policy names")
	}
	return a
}

// stsNames asks DNS for package mtasts, as the configuration in effect has it.
type stsNames struct{ *hall }

func (n stsNames) TXT(ctx context.Context, name string) mtasts.TXT {
	return txt(n.now.Load().dns.Lookup(ctx, name, mdns.TypeTXT))
}

func (n stsNames) CachedTXT(name string) (t mtasts.TXT, ok bool) {
	a := n.now.Load().dns.Cached(name, mdns.TypeTXT)
	if a == nil {
		return mtasts.TXT{}, false
	}
	return txt(a), true
}

func txt(a *dns.Answer) mtasts.TXT {
	t := mtasts.TXT{Expires: a.Expires}
	if a.Status == dns.Temporary {
		t.Err = fmt.Errorf("no answer: %s", a.Err)
	}
	for _, rr := range a.RRs {
		if rr, ok := rr.(*mdns.TXT); ok {
			t.Texts = append(t.Texts, strings.Join(rr.Txt, ""))
		}
	}
	return t
}

func (n stsNames) Addrs(ctx context.Context, host string) (addrs []netip.Addr, err error) {
	for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA} {
		a := n.now.Load().dns.Lookup(ctx, host, qtype)
		if a.Status == dns.Temporary {
			err = fmt.Errorf("looking %s up: %s", host, a.Err)
		}
		addrs = append(addrs, a.Addrs()...)
	}
	switch {
	case len(addrs) > 0:
		return addrs, nil
	case err == nil:
		err = fmt.Errorf("%s has no address", host)
	}
	return nil, err
}
