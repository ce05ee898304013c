package tlspolicy

import (
	"crypto/x509"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/tlsconf/tlstest"
)

// TestVerify: a chain leads to an authority that is trusted, for the name, now; else it is said why not.
func TestVerify(t *testing.T) {
	root, now := tlstest.Root(t, "root"), time.Now()
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	between := root.Issue(t, tlstest.Spec{CN: "between", CA: true})
	host := root.Issue(t, tlstest.Spec{CN: "mx.example", Names: []string{"mx.example"}}).Certificate
	below := between.Issue(t, tlstest.Spec{CN: "mx.example", Names: []string{"mx.example"}}).Certificate
	stranger := tlstest.SelfSigned(t, tlstest.Spec{CN: "mx.example", Names: []string{"mx.example"}}).Certificate
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		host  string
		after time.Duration
		ok    bool
		want  msg.TLSResult // if not ok
	}{
		{name: "trusted", chain: []*x509.Certificate{host}, host: "mx.example.", ok: true},
		{name: "by one between", chain: []*x509.Certificate{below, between.Certificate}, host: "mx.example", ok: true},
		{name: "one between is missing", chain: []*x509.Certificate{below}, host: "mx.example", want: msg.TLSCertificateUntrusted},
		{name: "other name", chain: []*x509.Certificate{host}, host: "mx2.example", want: msg.TLSHostMismatch},
		{name: "expired", chain: []*x509.Certificate{host}, host: "mx.example", after: 400 * 24 * time.Hour, want: msg.TLSCertificateExpired},
		{name: "unknown authority", chain: []*x509.Certificate{stranger}, host: "mx.example", want: msg.TLSCertificateUntrusted},
		{name: "none", host: "mx.example", want: msg.TLSValidationFailure},
	} {
		err := Verify(c.chain, c.host, roots, now.Add(c.after))
		if (err == nil) != c.ok || !c.ok && Result(err) != c.want {
			t.Errorf("%s: %v, result %v", c.name, err, Result(err))
		}
	}
}
