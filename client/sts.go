package client

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"meta1/client/metrics"
	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// trust judges the certificate of a connection if the MTA-STS policy of the domain asks for
// it: it must be one for the host's name of an authority that is trusted (RFC 8461 section
// 4.2).
func (c *Client) trust(cn *conn, chain []*x509.Certificate) *dialFailure {
	sts := cn.line.tls.STS
	if sts == msg.STSNone {
		return nil
	}
	err := tlspolicy.Verify(chain, cn.hop.Host, c.deps.Roots, time.Now())
	if err == nil {
		c.metrics.STS[metrics.STSTrusted].Inc()
		cn.tls.Level = max(cn.tls.Level, msg.TLSVerified)
		return nil
	}
	why := wire.CleanText([]byte(err.Error()))
	why = why[:min(len(why), handshakeErrorMax)]
	cn.seen.note(tlspolicy.Result(err), why)
	if sts == msg.STSTesting {
		c.metrics.STS[metrics.STSTesting].Inc()
		c.log.LogAttrs(context.Background(), slog.LevelInfo, "an enforced MTA-STS policy would keep mail back",
			append(hopAttrs(cn.hop), slog.String("da_se", cn.id), slog.String("reason", why))...)
		return nil
	}
	c.metrics.STS[metrics.STSUntrusted].Inc()
	cn.tls.session.forget()
	return &dialFailure{stage: msg.DeliverTLS, tls: tlsUntrusted, reply: smtp.NewReply(451, "4.7.5",
		"the MTA-STS policy of the domain does not allow the certificate of host "+cn.hop.String()+": "+why)}
}
