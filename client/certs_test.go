package client

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// certs are the certificates of the tests, by the words of dialogue files.
type certs struct {
	ca   *tlstest.Cert
	kind map[string]tls.Certificate
}

// newCerts makes them once for all tests.
var newCerts = sync.OnceValue(func() *certs {
	ca, other := tlstest.Root(forAll{}, "Test CA"), tlstest.Root(forAll{}, "Other CA")
	ago := time.Now().Add(-time.Hour)
	issue := func(by *tlstest.Cert, name string, to time.Time) tls.Certificate {
		c := by.Issue(forAll{}, tlstest.Spec{CN: name, Names: []string{name}, From: ago.AddDate(-1, 0, 0), To: to})
		return tls.Certificate{Certificate: [][]byte{c.Raw, by.Raw}, PrivateKey: c.Key, Leaf: c.Certificate}
	}
	year := time.Now().AddDate(1, 0, 0)
	return &certs{ca: ca, kind: map[string]tls.Certificate{
		"trusted":   issue(ca, "mx.example", year),
		"expired":   issue(ca, "mx.example", ago),
		"wrongname": issue(ca, "other.example", year),
		"untrusted": issue(other, "mx.example", year),
	}}
})

// forAll is the test for what is made for all of them.
type forAll struct{ testing.TB }

func (forAll) Helper()           {}
func (forAll) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// serveTLS makes the server's side of TLS: words are the kind of the certificate and
// further conditions. It returns nil if the server breaks the handshake.
func serveTLS(nc net.Conn, words []string) *tls.Conn {
	cfg := &tls.Config{}
	for _, w := range words {
		switch w {
		case "1.2":
			cfg.MaxVersion = tls.VersionTLS12
		case "1.1":
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		case "askcert":
			cfg.ClientAuth = tls.RequestClientCert
		case "needcert":
			cfg.ClientAuth = tls.RequireAnyClientCert
		default:
			cert, ok := newCerts().kind[w]
			if !ok {
				panic("no certificate " + w)
			}
			cfg.Certificates = []tls.Certificate{cert}
		}
	}
	return tls.Server(nc, cfg)
}
