package server

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	"meta1/mta/msg"
)

// BenchmarkHandshake measures both sides of a STARTTLS, from the connection to the reply to EHLO.
// As in any run over loopback the client takes some half of it.
func BenchmarkHandshake(b *testing.B) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	t := *testPKI().server.Leaf
	t.SignatureAlgorithm, t.PublicKey, t.PublicKeyAlgorithm = x509.UnknownSignatureAlgorithm, nil, x509.UnknownPublicKeyAlgorithm
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, &rsaKey.PublicKey, rsaKey)
	if err != nil {
		b.Fatal(err)
	}
	rsaCert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: rsaKey}
	for _, bb := range []struct {
		name  string
		cert  tls.Certificate
		cache tls.ClientSessionCache
		max   uint16
	}{
		{"EC", testPKI().server, nil, 0},
		{"EC-1.2", testPKI().server, nil, tls.VersionTLS12},
		{"RSA", rsaCert, nil, 0},
		{"resumed", testPKI().server, tls.NewLRUClientSessionCache(10), 0},
		{"resumed-1.2", testPKI().server, tls.NewLRUClientSessionCache(10), tls.VersionTLS12},
	} {
		b.Run(bb.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			cfg, fake := loadConfig(b, "tls { }"), newFakeMTA()
			deps := fake.deps(l)
			deps.Log = nil
			deps.TLS = benchTLS{&tls.Config{Certificates: []tls.Certificate{bb.cert}, ClientAuth: tls.RequestClientCert}}
			s := startDeps(b, cfg, fake, deps)
			client := &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.org", ClientSessionCache: bb.cache, MaxVersion: bb.max}
			for b.Loop() {
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				c := newTalker(b, conn)
				c.startTLS()
				secured := tls.Client(conn, client)
				if err := secured.Handshake(); err != nil {
					b.Fatal(err)
				}
				c = newTalker(b, secured)
				c.say("EHLO client", "250")
				c.say("QUIT", "221")
				_ = secured.Close()
			}
			s.end(b)
		})
	}
}

// benchTLS describes handshakes as little as possible.
type benchTLS struct{ config *tls.Config }

func (f benchTLS) ServerConfig() *tls.Config { return f.config }

func (f benchTLS) Describe(s *tls.ConnectionState) *msg.TLS {
	return &msg.TLS{Version: tls.VersionName(s.Version), Verify: msg.VerifyNo, Resumed: s.DidResume}
}

func (f benchTLS) Unmet(*msg.TLSRequirements, *msg.TLS) string { return "" }
