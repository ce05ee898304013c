package tlsconf

import (
	"crypto/tls"
	"strings"
)

// chooser chooses the certificate for a client. It does not change.
type chooser struct {
	names  map[string][]*tls.Certificate // by lower case name, "*.example.org" for a wildcard
	others []*tls.Certificate            // for any other name: cert_file and EC_cert_file, or the first section certificate
}

func newChooser(l *loaded) *chooser {
	c := &chooser{names: map[string][]*tls.Certificate{}}
	anyName := l.pairs[:l.byName]
	if len(anyName) == 0 {
		anyName = l.pairs[:1]
	}
	for _, p := range inOrder(anyName) {
		c.others = append(c.others, p.cert)
	}
	for _, p := range inOrder(l.pairs) {
		for _, name := range p.names() {
			c.names[name] = append(c.names[name], p.cert)
		}
	}
	return c
}

// names are the names that a certificate is for, in lower case.
func (p *pair) names() []string {
	leaf := p.chain[0]
	list := leaf.DNSNames
	if len(list) == 0 && leaf.Subject.CommonName != "" {
		list = []string{leaf.Subject.CommonName}
	}
	names := make([]string, 0, len(list))
	for _, name := range list {
		names = append(names, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return names
}

// A witness is a connection that wants to know which certificate was shown on it: channel
// binding of the type tls-server-end-point needs it (RFC 5929), and crypto/tls does not tell.
type witness interface{ ShownCertificate(*tls.Certificate) }

// show is choose, and tells a connection that is a witness.
func (c *chooser) show(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := c.choose(hello)
	if w, ok := hello.Conn.(witness); ok && err == nil {
		w.ShownCertificate(cert)
	}
	return cert, err
}

// choose is GetCertificate of crypto/tls. A client that names none of our names, as mail
// servers often do, gets the certificate for all others; one that cannot use a key on an elliptic
// curve gets that of an RSA key if there is one.
func (c *chooser) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	nameless := *hello // which certificate a name leads to is decided here alone
	nameless.ServerName = ""
	if name := strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")); name != "" {
		if cert := fitting(&nameless, c.names[name]); cert != nil {
			return cert, nil
		}
		if _, parent, ok := strings.Cut(name, "."); ok {
			if cert := fitting(&nameless, c.names["*."+parent]); cert != nil {
				return cert, nil
			}
		}
	}
	if len(c.others) == 1 {
		return c.others[0], nil
	}
	if cert := fitting(&nameless, c.others); cert != nil {
		return cert, nil
	}
	return c.others[0], nil // the handshake tells the client what is missing
}

// fitting is the first certificate that a client can use, or nil.
func fitting(hello *tls.ClientHelloInfo, certs []*tls.Certificate) *tls.Certificate {
	for _, cert := range certs {
		if hello.SupportsCertificate(cert) == nil {
			return cert
		}
	}
	return nil
}
