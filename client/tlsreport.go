package client

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/msg"
)

// seen is what a report about TLS tells of one connection (RFC 8460 section 4.4).
type seen struct {
	helo    string     // name in the greeting
	local   netip.Addr // ours; zero behind a proxy
	result  msg.TLSResult
	reason  string
	counted []string // domains for which the session has been counted
}

// domainsCountedMax is for how many domains one session counts.
const domainsCountedMax = 100

// note notes what became of TLS.
func (s *seen) note(r msg.TLSResult, reason string) { s.result, s.reason = r, reason }

// notePeer notes who greets us, if anybody wants to know.
func (c *Client) notePeer(cn *conn) {
	if c.deps.TLSReports == nil {
		return
	}
	cn.seen.helo = wire.CleanText([]byte(cn.Reply.FirstWord()))
	if a, ok := cn.LocalAddr().(*net.TCPAddr); ok && !c.cfg.ProxyPresent {
		cn.seen.local = a.AddrPort().Addr().Unmap()
	}
}

// countTLS counts a session, or one that was not made because of TLS. A session that serves
// several domains counts for each of them, once. Mail to which no policy applies, such as a
// report, is not counted (RFC 8460 section 3), and nor is what never leaves for an MX host.
func (d *delivery) countTLS(s *seen) {
	q := &d.r.Q
	domain := reportDomain(q.Dest)
	if d.c.deps.TLSReports == nil || domain == "" || q.Mail.TLSOptional || q.Hop.Protocol != msg.ProtoSMTP ||
		d.conn != nil && d.line.tls.Need == tlspolicy.None ||
		len(s.counted) >= domainsCountedMax || slices.Contains(s.counted, domain) {
		return
	}
	s.counted = append(s.counted, domain)
	t := msg.TLSSession{
		Domain: domain, MX: strings.TrimSuffix(q.Hop.Host, "."), Helo: s.helo, Local: s.local,
		Result: s.result, Reason: s.reason,
	}
	if s.result != msg.TLSDNSSECInvalid { // then there was no connection
		t.Remote = q.Hop.Addr.Addr().Unmap()
	}
	if d.tlsa != nil {
		byDNS := t
		byDNS.Policy, byDNS.Base, byDNS.Records = msg.TLSPolicyTLSA, cmp.Or(d.tlsa.Base, t.MX), d.tlsa.Records
		if unusable := d.dane == nil && len(d.tlsa.Records) > 0; unusable && (t.Result == msg.TLSSuccess || q.Hop.STS != msg.STSNone) {
			byDNS.Result, byDNS.Reason = msg.TLSTLSAInvalid, "none of the TLSA records can be used"
		}
		d.c.deps.TLSReports.CountTLS(&byDNS)
		if d.dane != nil || len(d.tlsa.Records) == 0 {
			return // DANE goes before MTA-STS (RFC 8461 section 2)
		}
	}
	switch {
	case q.Hop.STS == msg.STSUnnamed:
		t.Policy, t.Result, t.Reason = msg.TLSPolicySTS, msg.TLSValidationFailure, "the policy does not name this MX host"
	case q.Hop.STS != msg.STSNone:
		t.Policy = msg.TLSPolicySTS
	case d.tlsa != nil:
		return
	}
	d.c.deps.TLSReports.CountTLS(&t)
}

// reportDomain is the domain whose hosts a destination stands for, or the host that stands in
// the configuration instead (RFC 8460 section 1.1, Policy Domain); "" for none.
func reportDomain(dest string) string {
	kind, name, _ := strings.Cut(dest, ":")
	if i := strings.IndexAny(name, ":/"); i >= 0 {
		name = name[:i]
	}
	if kind != "mx" && kind != "esmtp" || !strings.Contains(name, ".") || strings.ContainsAny(name, "[]") {
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}
