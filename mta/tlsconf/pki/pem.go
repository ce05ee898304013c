// Package pki reads certificates, keys and lists of revoked certificates in PEM format,
// checks a peer's certificates against them, and writes names as OpenSSL and README 3.10
// do. It reads no files, has no state and logs nothing.
package pki

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Certificates reads all certificates of a PEM text, in order. Each that cannot be read
// is an error, and the others count all the same: bundles of CAs have odd ones.
func Certificates(text []byte) (list []*x509.Certificate, errs []error) {
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		n++
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate %d: %w", n, err))
			continue
		}
		list = append(list, c)
	}
	return list, errs
}

// PrivateKey reads the first private key of a PEM text. Encrypted ones are refused: nobody
// types a passphrase when a server starts (README 11.1).
func PrivateKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, errors.New("the private key is encrypted: store it without a passphrase, readable by root alone")
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			continue
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of type %T cannot sign", key)
		}
		return signer, nil
	}
	return nil, errors.New("there is no private key in PEM format")
}

func parseKey(der []byte) (any, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read: %w", err)
	}
	return key, nil
}

// ErrKeyMismatch says that a key is not that of a certificate.
var ErrKeyMismatch = errors.New("the private key is not that of the certificate")

// Pair joins a certificate with those of its CAs, in the order in which they are sent, and
// its key.
func Pair(chain []*x509.Certificate, key crypto.Signer) (*tls.Certificate, error) {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, ErrKeyMismatch
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// Complete adds the certificates of CAs that lead from the last one of a chain towards a
// root, as OpenSSL does with those that it trusts if it is not told the chain. The root itself
// is left out: whoever trusts it has it.
func Complete(chain, cas []*x509.Certificate) []*x509.Certificate {
	for range len(cas) {
		last := chain[len(chain)-1]
		issuer := issuerOf(last, cas)
		if issuer == nil || SelfSigned(last) || SelfSigned(issuer) {
			break
		}
		chain = append(chain[:len(chain):len(chain)], issuer)
	}
	return chain
}

// issuerOf finds the certificate that signed another one, or nil.
func issuerOf(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, ca := range among {
		if bytes.Equal(ca.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// SelfSigned reports that a certificate names itself as its issuer.
func SelfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// CheckOrder says what is wrong with a chain as it is sent: each certificate must be signed
// by the next (RFC 5246 section 7.4.2).
func CheckOrder(chain []*x509.Certificate) error {
	for i := 1; i < len(chain); i++ {
		if err := chain[i-1].CheckSignatureFrom(chain[i]); err != nil {
			return fmt.Errorf("certificate %d (%s) is not signed by number %d (%s)",
				i, OneLine(chain[i-1].RawSubject), i+1, OneLine(chain[i].RawSubject))
		}
	}
	return nil
}
