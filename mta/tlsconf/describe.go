package tlsconf

import (
	"crypto"
	_ "crypto/sha1" // a Digest
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/tlsconf/ciphers"
	"meta1/mta/tlsconf/pki"
)

// maxAltNames bounds the names of a certificate that are looked at.
const maxAltNames = 1000

// Describe says what a complete handshake gave. The certificate is verified now, also when a
// session is resumed: its CA may have revoked it meanwhile.
func (p *Provider) Describe(s *tls.ConnectionState) *msg.TLS {
	c := p.now.Load()
	suite := p.suites[s.CipherSuite]
	t := &msg.TLS{
		Version: ciphers.Version(s.Version), Cipher: suite.Name, Bits: suite.Bits, Resumed: s.DidResume,
		ServerName: pki.Printable(s.ServerName),
	}
	if len(s.PeerCertificates) == 0 {
		t.Verify = msg.VerifyNo
		if c.server != nil && c.server.ClientAuth == tls.NoClientCert {
			t.Verify = msg.VerifyNot
		}
		return t
	}
	describe(t, s.PeerCertificates[0], c.section.Digest)
	usage := x509.ExtKeyUsageServerAuth
	if p.deps.Role == Server {
		usage = x509.ExtKeyUsageClientAuth
	}
	chains, err := c.trust.Verify(s.PeerCertificates, usage, p.deps.Now())
	if err != nil {
		t.Verify, t.Reason = msg.VerifyFail, err.Error()
		return t
	}
	t.Verify = msg.VerifyOK
	for _, chain := range chains {
		t.RootCNs = append(t.RootCNs, pki.CommonName(chain[len(chain)-1].RawSubject))
	}
	return t
}

// describe notes what the peer's certificate says.
func describe(t *msg.TLS, c *x509.Certificate, digest string) {
	t.Subject, t.Issuer = pki.OneLine(c.RawSubject), pki.OneLine(c.RawIssuer)
	t.CN, t.IssuerCN = pki.CommonName(c.RawSubject), pki.CommonName(c.RawIssuer)
	t.Fingerprint, t.NotAfter = Fingerprint(c, digest), c.NotAfter
	for _, name := range c.DNSNames[:min(len(c.DNSNames), maxAltNames)] {
		t.Names = append(t.Names, strings.ToLower(pki.Printable(name)))
	}
}

// Fingerprint is that of a certificate, as openssl x509 -fingerprint prints it: pairs of
// hexadecimal digits with colons. digest is a value of the option Digest.
func Fingerprint(c *x509.Certificate, digest string) string {
	hash := map[string]crypto.Hash{
		"sha224": crypto.SHA224, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
	}[digest]
	if hash == 0 {
		hash = crypto.SHA1
	}
	h := hash.New()
	h.Write(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", h.Sum(nil)), " ", ":")
}
