//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/smtp"
	"os"
	"time"
)

// tlsUse says what of TLS a scenario uses, on both sides of the MTA.
type tlsUse uint8

const (
	noTLS tlsUse = iota
	useTLS
	resumeTLS // sessions are resumed when the source connects again
)

// keys are a certificate of its own of all that take part, and the TLS of source and sink. The
// key is on a curve, as those of ACME clients are by default.
type keys struct {
	cert, key []byte // in PEM
	source    *tls.Config
	sink      *tls.Config
}

func makeKeys(use tlsUse) (*keys, error) {
	if use == noTLS {
		return nil, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mta.test"}, DNSNames: []string{"mta.test", "sink.test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	k := &keys{
		cert:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		source: &tls.Config{InsecureSkipVerify: true, ServerName: "mta.test"}, // the sink and the source trust anybody: MTAs do so, too
		sink:   &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}},
	}
	if use == resumeTLS {
		k.source.ClientSessionCache = tls.NewLRUClientSessionCache(1000)
	}
	return k, nil
}

// write leaves the files for an MTA, and returns their names.
func (k *keys) write(dir string) (cert, key string, err error) {
	cert, key = dir+"/mta.crt", dir+"/mta.key"
	if err = os.WriteFile(cert, k.cert, 0o644); err == nil {
		err = os.WriteFile(key, k.key, 0o644) // of a directory that is removed after the run
	}
	return cert, key, err
}

// section is the section tls of meta1's server; its client uses TLS wherever it is offered.
func (k *keys) section(dir string) (string, error) {
	if k == nil {
		return "", nil
	}
	cert, key, err := k.write(dir)
	return fmt.Sprintf("tls { cert_file = %q; key_file = %q; }", cert, key), err
}

// lines are those of Postfix's main.cf.
func (k *keys) lines(dir string) (string, error) {
	if k == nil {
		return "smtp_tls_security_level = none", nil
	}
	cert, key, err := k.write(dir)
	return "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = " + cert + "\nsmtpd_tls_key_file = " + key + "\nsmtp_tls_security_level = may", err
}

// startTLS makes TLS of the source's connection, if the scenario wants it. It reports whether
// an earlier session was resumed.
func (k *keys) startTLS(c *smtp.Client) (resumed bool, err error) {
	if k == nil {
		return false, nil
	}
	if err := c.StartTLS(k.source); err != nil {
		return false, err
	}
	s, _ := c.TLSConnectionState()
	return s.DidResume, nil
}
