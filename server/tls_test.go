package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/server/crowd"
	"meta1/server/wire"
)

// pki are the certificates of the tests. They are good from 1999 on, because time begins
// in 2000 inside a bubble of synctest.
type pki struct {
	roots                    *x509.CertPool
	server, client, stranger tls.Certificate
}

// testPKI makes the certificates once for all tests.
var testPKI = sync.OnceValue(func() *pki {
	ca, caKey := newCert("ca.test", nil, nil)
	other, otherKey := newCert("other.test", nil, nil)
	p := &pki{roots: x509.NewCertPool()}
	p.roots.AddCert(ca)
	for _, c := range []struct {
		into   *tls.Certificate
		name   string
		issuer *x509.Certificate
		key    *ecdsa.PrivateKey
	}{{&p.server, "mx.example.org", ca, caKey}, {&p.client, "client.example", ca, caKey}, {&p.stranger, "stranger.example", other, otherKey}} {
		cert, key := newCert(c.name, c.issuer, c.key)
		*c.into = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
	return p
})

// newCert makes a certificate, that of a CA if it has no issuer.
func newCert(name string, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: issuer == nil, BasicConstraintsValid: true,
	}
	if issuer == nil {
		issuer, issuerKey = t, key
		t.KeyUsage = x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert, key
}

// fakeTLS is a TLSSource with the certificates of the tests.
type fakeTLS struct{ config *tls.Config }

func newFakeTLS(s *tlsconf.Section) *fakeTLS {
	p := testPKI()
	c := &tls.Config{Certificates: []tls.Certificate{p.server}, MinVersion: tls.VersionTLS12}
	if s.Flags.RequestCert {
		c.ClientAuth = tls.RequestClientCert
	}
	return &fakeTLS{c}
}

func (f *fakeTLS) ServerConfig() *tls.Config { return f.config }

func (f *fakeTLS) Describe(s *tls.ConnectionState) *msg.TLS {
	t := &msg.TLS{
		Version: strings.ReplaceAll(tls.VersionName(s.Version), "TLS 1", "TLSv1"),
		Cipher:  tls.CipherSuiteName(s.CipherSuite), Bits: 128, Resumed: s.DidResume, ServerName: s.ServerName, Verify: "NOT",
	}
	if f.config.ClientAuth == tls.NoClientCert {
		return t
	}
	t.Verify = "NO"
	if len(s.PeerCertificates) == 0 {
		return t
	}
	cert := s.PeerCertificates[0]
	t.Subject, t.Issuer, t.Fingerprint = "/CN="+cert.Subject.CommonName, "/CN="+cert.Issuer.CommonName, hex.EncodeToString(cert.Signature[:0])
	t.Verify = msg.VerifyOK
	if _, err := cert.Verify(x509.VerifyOptions{Roots: testPKI().roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Verify, t.Reason = "FAIL", "unknown authority"
	}
	return t
}

func (f *fakeTLS) Unmet(need *msg.TLSRequirements, t *msg.TLS) string {
	switch {
	case need.Verified && t.Verify != msg.VerifyOK:
		return "no verified certificate"
	case t.Bits < need.CipherBitsMin:
		return fmt.Sprintf("cipher_bits %d are less than %d", t.Bits, need.CipherBitsMin)
	}
	return ""
}

// feed is the raw connection of a client whose input is read by another goroutine already.
type feed struct {
	net.Conn
	c *client
}

func (f *feed) Read(p []byte) (int, error) { return f.c.read(p) }

// clientTLS makes TLS of a client's connection. words are of 1.1, 1.2, 1.3, cert, stranger.
func clientTLS(c *client, g *supervise.Group, words []string) (*client, error) {
	p := testPKI()
	cfg := &tls.Config{RootCAs: p.roots, ServerName: "mx.example.org"}
	for _, w := range words {
		switch w {
		case "1.1":
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		case "1.2":
			cfg.MaxVersion = tls.VersionTLS12
		case "1.3":
			cfg.MinVersion = tls.VersionTLS13
		case "cert":
			cfg.Certificates = []tls.Certificate{p.client}
		case "stranger":
			cfg.Certificates = []tls.Certificate{p.stranger}
		case "untrusting":
			cfg.RootCAs = x509.NewCertPool()
		}
	}
	conn := tls.Client(&feed{c.conn, c}, cfg)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	return newClient(conn, g), nil
}

// TestTurns checks that a handshake that waits for the network has no turn.
func TestTurns(t *testing.T) {
	stop := make(chan struct{})
	ts := newTurns(1, stop)
	a, b := net.Pipe()
	defer b.Close()
	c := &turnConn{Conn: a, turns: ts, guest: &crowd.Guest{}, by: time.Now().Add(time.Hour)}
	go func() { _, _ = b.Write([]byte("x")) }()
	if _, err := c.Read(make([]byte, 1)); err != nil || len(ts.places) != 1 {
		t.Fatalf("%v, %d turns taken after a read, want 1", err, len(ts.places))
	}
	if err := ts.take(time.Now()); err != errBusy {
		t.Errorf("a second turn: %v, want %v", err, errBusy)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(context.Context) error { _, err := c.Read(make([]byte, 1)); return err })
	if err := ts.take(time.Now().Add(time.Minute)); err != nil {
		t.Errorf("no turn while the other one waits for its client: %v", err)
	}
	ts.give()
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	c.end()
	c.end()
	if len(ts.places) != 0 {
		t.Errorf("%d turns are taken after the end", len(ts.places))
	}
	close(stop)
	ts.places <- struct{}{}
	if err := ts.take(time.Now().Add(time.Hour)); err != wire.ErrHalted {
		t.Errorf("%v when the server stops, want %v", err, wire.ErrHalted)
	}
}
