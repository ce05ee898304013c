package client

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"time"

	"meta1/client/metrics"
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
	err := verify(chain, cn.hop.Host, c.deps.Roots, time.Now())
	if err == nil {
		c.metrics.STS[metrics.STSTrusted].Inc()
		cn.tls.Level = max(cn.tls.Level, msg.TLSVerified)
		return nil
	}
	why := wire.CleanText([]byte(err.Error()))
	why = why[:min(len(why), handshakeErrorMax)]
	cn.seen.note(certificateResult(err), why)
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

var errOtherName = errors.New("it is not for that name")

// verify checks that a chain leads from a certificate for a host to an authority; nil roots
// are those of the system.
func verify(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("there is none")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: strings.TrimSuffix(host, "."), Roots: roots, Intermediates: between, CurrentTime: now,
	})
	if name := (x509.HostnameError{}); errors.As(err, &name) {
		return errOtherName
	}
	return err
}
