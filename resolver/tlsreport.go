package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"meta1/mta/msg"
	"meta1/resolver/mtasts"
)

// Bounds of what a domain may ask for.
const (
	ruaMax  = 5    // URIs of one record that count
	uriMax  = 1000 // bytes of one of them
	hostMax = 253
)

// reportFast answers nothing: the question is rare, and DNS has a cache of its own.
func (r *Resolver) reportFast(*msg.TLSReportQ) (msg.TLSReportA, bool) { return msg.TLSReportA{}, false }

// reportSlow finds out where a domain wants reports about TLS (RFC 8460 section 3), and what is
// known of its MTA-STS policy, which the search for routes has fetched.
func (r *Resolver) reportSlow(ctx context.Context, q *msg.TLSReportQ) (a msg.TLSReportA) {
	names := stsNames{r.hall}
	t := names.TXT(ctx, "_smtp._tls."+q.Domain)
	if t.Err != nil {
		return reportFailed(t.Err.Error())
	}
	var err error
	if a.RUA, err = parseTLSRPT(t.Texts); err != nil || len(a.RUA) == 0 {
		return msg.TLSReportA{}
	}
	if r.sts != nil {
		known := r.sts.Known(q.Domain)
		a.STSFailure, a.STSReason = known.Failure, known.Reason
		if known.Policy != nil {
			a.STSLines, a.STSHosts = known.Policy.Lines(), known.Policy.MX
		}
	}
	if !q.Hosts {
		return a
	}
	for _, uri := range a.RUA {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "https" || a.Addrs[u.Hostname()] != nil {
			continue
		}
		addrs, err := names.Addrs(ctx, u.Hostname())
		if err != nil {
			continue // whoever connects finds no address
		}
		if a.Addrs == nil {
			a.Addrs = map[string][]netip.Addr{}
		}
		a.Addrs[u.Hostname()] = addrs
	}
	return a
}

func reportFailed(reason string) msg.TLSReportA { return msg.TLSReportA{Err: reason} }

// parseTLSRPT reads the TXT records at _smtp._tls (RFC 8460 section 3). Records of other kinds
// do not count; if there is not exactly one of this kind, or it is not well formed, the domain
// gets no reports. URIs of other schemes are left out.
func parseTLSRPT(texts []string) (rua []string, err error) {
	record := ""
	for _, t := range texts {
		first, _, _ := strings.Cut(t, ";")
		if key, value, _ := strings.Cut(first, "="); strings.TrimSpace(key) != "v" || strings.TrimSpace(value) != "TLSRPTv1" {
			continue
		}
		if record != "" {
			return nil, errors.New("there are several TLSRPT records")
		}
		record = t
	}
	for i, field := range strings.Split(record, ";") {
		key, value, ok := strings.Cut(field, "=")
		if i == 0 || strings.TrimSpace(key) != "rua" {
			continue
		}
		if !ok || rua != nil {
			return nil, errors.New("the TLSRPT record is malformed")
		}
		for uri := range strings.SplitSeq(value, ",") {
			if uri = strings.TrimSpace(uri); len(rua) < ruaMax && isReportURI(uri) {
				rua = append(rua, uri)
			}
		}
	}
	return rua, nil
}

// isReportURI tells a URI to which a report can go.
func isReportURI(s string) bool {
	if len(s) > uriMax || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return false
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return false
	case u.Scheme == "mailto":
		return u.Opaque != ""
	case u.Scheme == "https":
		return u.User == nil && u.Hostname() != "" && len(u.Hostname()) <= hostMax && net.ParseIP(u.Hostname()) == nil
	}
	return false
}

// applySTS is withSTS for a question, and counts mail that finds no host because the enforced
// policy names none of those that DNS does. A client that only wants to know whether there is
// a route sends no mail.
func (r *Resolver) applySTS(q *msg.RouteQ, domain string, f mtasts.Found, a msg.RouteA) msg.RouteA {
	before := a.Hops
	a = r.withSTS(f, a, q.TLSOptional)
	if r.deps.TLSReports != nil && !q.TA.IsZero() && len(before) > 0 && len(a.Hops) == 0 {
		r.deps.TLSReports.CountTLS(&msg.TLSSession{
			Domain: domain, Policy: msg.TLSPolicySTS, MX: before[0].Host,
			Result: msg.TLSValidationFailure, Reason: "the policy does not name this MX host",
		})
	}
	return a
}
