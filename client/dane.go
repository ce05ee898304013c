package client

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"meta1/client/metrics"
	"meta1/client/tlspolicy"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// A restart of SMAR is a pause for deliveries that need TLSA records: they ask again for a
// while, which is shorter than QMGR lets a delivery hang.
const (
	resolverPause = 20 * time.Second
	resolverAgain = 50 * time.Millisecond
)

// dane is what DNS says of the certificate of a hop (RFC 7672).
type dane struct {
	set    tlspolicy.Set
	base   string // the name to ask the host for (SNI, RFC 7672 section 8.1)
	secure bool   // DNSSEC has validated it
}

// needDANE adds what DNS demands of the hop's certificate to a policy, or answers for all
// recipients why mail must not go to the hop now.
func (d *delivery) needDANE(p *tlspolicy.Policy) bool {
	q := &d.r.Q
	if !q.Hop.DANE || p.Need == tlspolicy.None || q.Mail.TLSOptional {
		return true
	}
	a, err := d.c.askTLSA(d.r.Ctx, q)
	d.logTLSA(a.Trace)
	switch {
	case d.r.Ctx.Err() != nil || d.c.stopped():
		d.notConnected(stoppedEarly(q.Hop))
		return false
	case err != nil:
		d.refuse(msg.DeliverConnect, smtp.NewReply(451, "4.3.0", "no answer about the TLSA records of "+q.Hop.String()+": "+err.Error()))
		return false
	case !a.Reply.IsZero():
		d.c.metrics.DANE[metrics.DANEFailed].Inc()
		d.a.Stage, d.a.TLSUnmet = msg.DeliverTLS, true
		d.tlsa = &a
		d.countTLS(&seen{result: msg.TLSDNSSECInvalid, reason: a.Reply.Text()})
		d.refuse(msg.DeliverTLS, a.Reply)
		return false
	case len(a.Records) == 0:
		return true
	}
	d.tlsa = &a
	set := tlspolicy.Usable(a.Records, a.Names)
	if len(set.Records) == 0 {
		// RFC 7672 section 2.2: the host promises TLS, and no more that we could check.
		d.c.metrics.DANE[metrics.DANEUnusable].Inc()
		p.Need = max(p.Need, tlspolicy.Must)
		return true
	}
	p.Need, p.Records = tlspolicy.DANE, set.Key()
	d.dane = &dane{set: set, base: a.Base, secure: a.Secure}
	return true
}

// askTLSA asks SMAR for the TLSA records of a hop.
func (c *Client) askTLSA(ctx context.Context, q *msg.DeliverQ) (msg.TLSAA, error) {
	return asked(ctx, c, func() (msg.TLSAA, error) {
		return c.deps.Ports.TLSA.Ask(ctx, msg.TLSAQ{Hop: q.Hop, Dest: q.Dest})
	})
}

// logTLSA logs how SMAR came to its answer.
func (d *delivery) logTLSA(trace msg.Trace) {
	for _, s := range trace {
		d.c.log.LogAttrs(d.r.Ctx, slog.LevelDebug, "TLSA records", slog.String("ss_ta", d.r.Q.TA.String()), slog.String("relay", d.r.Q.Hop.String()),
			slog.String("key", s.Key), slog.String("value", s.Value), slog.String("effect", s.Effect))
	}
}

// match judges the certificate of a connection by the TLSA records. The certificate may have
// been replaced since a session was made that was resumed.
func (c *Client) match(cn *conn, want *dane, chain []*x509.Certificate) *dialFailure {
	record, ok := want.set.Match(chain, time.Now())
	if !ok {
		cn.seen.note(msg.TLSValidationFailure, "no TLSA record matches the certificate")
		cn.tls.session.forget()
		f := &dialFailure{stage: msg.DeliverTLS, tls: tlsNoMatch}
		f.reply = smtp.NewReply(451, "4.7.5", "no TLSA record of host "+cn.hop.String()+" matches its certificate")
		if cn.tls.Resumed {
			f.tls = tlsBroken // the way without a session comes next
		} else {
			c.metrics.DANE[metrics.DANENoMatch].Inc()
		}
		return f
	}
	c.metrics.DANE[metrics.DANEMatch].Inc()
	cn.tls.Record = record
	if want.secure { // without DNSSEC anybody could have made the records
		cn.tls.info.Verify, cn.tls.info.Reason = msg.VerifyDANE, ""
		cn.tls.Level, cn.tls.Verify = msg.TLSDANE, msg.VerifyDANE
	}
	return nil
}
