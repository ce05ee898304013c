package client

import (
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// requiresTLS reports mail that may go on by TLS alone, to hosts that keep to that, too (RFC
// 8689 section 4.2.1). For a bounce it is a wish: it must not be lost for it (section 5).
// Delivery by LMTP is the end of the way.
func requiresTLS(q *msg.DeliverQ) bool {
	return q.Mail.RequireTLS && !q.Mail.From.IsNull() && q.Hop.Protocol == msg.ProtoSMTP
}

// keepsTLS answers for mail that demands REQUIRETLS where the connection does not give it:
// the way to the host is secured by DNSSEC or is the operator's own, and its certificate is
// verified or is the one that DNS names, or an MTA-STS policy is enforced, which is both; and
// it offers REQUIRETLS. It reports whether there
// is something to send.
func (d *delivery) keepsTLS() bool {
	cn, q := d.conn, &d.r.Q
	if !requiresTLS(q) {
		return true
	}
	unmet, policy := "", cn.line.tls.STS == msg.STSEnforce // there is no connection that breaks it
	if cn.tls.Level < msg.TLSDANE && !policy {
		unmet = cn.lacks(&msg.TLSRequirements{Verified: true, Hostnames: []string{q.Hop.Host}})
	}
	switch {
	case !q.Hop.DANE && !policy:
		d.lacksRequireTLS("5.7.30", "the way to it is not secured by DNSSEC, nor by an MTA-STS policy")
	case unmet != "":
		d.lacksRequireTLS("5.7.30", unmet)
	case !cn.ext.RequireTLS:
		d.lacksRequireTLS("5.7.30", "it does not offer REQUIRETLS")
	default:
		return true
	}
	return false
}

// lacksRequireTLS answers for all recipients. Another host of the route may do better; if
// none does the message comes back (RFC 8689 section 4.2.1).
func (d *delivery) lacksRequireTLS(code, why string) {
	d.a.Own, d.a.Stage = true, max(d.a.Stage, msg.DeliverTLS)
	d.refuse(msg.DeliverTLS, smtp.NewReply(550, code, "the sender demands REQUIRETLS, and host "+d.r.Q.Hop.String()+" cannot give it: "+why))
}
