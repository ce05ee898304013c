// Package tlstest makes CAs, certificates and CRLs for tests. Only tests import it.
package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Cert is a certificate with its key, of a CA or of a host.
type Cert struct {
	*x509.Certificate
	Key crypto.Signer
	CA  *Cert // that signed it; nil if it did so itself
}

// Spec says what a certificate is like.
type Spec struct {
	CN    string
	Names []string // DNS names
	RSA   bool     // else P-256
	CA    bool
	Usage []x509.ExtKeyUsage // nil: server and client
	// From and To are the times of validity; zero: an hour ago, in 90 days.
	From, To time.Time
	Subject  *pkix.Name // in place of CN
}

// Root makes a CA of its own.
func Root(t testing.TB, cn string) *Cert {
	t.Helper()
	return issue(t, nil, Spec{CN: cn, CA: true})
}

// Issue makes a certificate that this CA has signed.
func (c *Cert) Issue(t testing.TB, s Spec) *Cert {
	t.Helper()
	return issue(t, c, s)
}

// SelfSigned makes a certificate of its own that is no CA's.
func SelfSigned(t testing.TB, s Spec) *Cert {
	t.Helper()
	return issue(t, nil, s)
}

func issue(t testing.TB, ca *Cert, s Spec) *Cert {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	from, to := s.From, s.To
	if from.IsZero() {
		from = time.Now().Add(-time.Hour)
	}
	if to.IsZero() {
		to = time.Now().Add(90 * 24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.CN}, DNSNames: s.Names,
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: s.Usage,
	}
	if s.Subject != nil {
		template.Subject = *s.Subject
	}
	if s.Usage == nil && !s.CA {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if s.CA {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	key := newKey(t, s.RSA)
	signer, parent := key, template
	if ca != nil {
		signer, parent = ca.Key, ca.Certificate
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Cert{cert, key, ca}
}

func newKey(t testing.TB, useRSA bool) crypto.Signer {
	t.Helper()
	if useRSA {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// PEM is the certificate in PEM format.
func (c *Cert) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Chain is the certificate and those of its CAs without the root, as ACME clients write it.
func (c *Cert) Chain() []byte {
	text := c.PEM()
	for ca := c.CA; ca != nil && ca.CA != nil; ca = ca.CA {
		text = append(text, ca.PEM()...)
	}
	return text
}

// KeyPEM is the private key in PEM format.
func (c *Cert) KeyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// CRL is a list of this CA's revoked certificates, good until then.
func (c *Cert) CRL(t testing.TB, until time.Time, revoked ...*Cert) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: until.Add(-48 * time.Hour), NextUpdate: until}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.SerialNumber, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Write writes the chain to name.pem and the key to name.key in a directory, and returns both
// paths.
func (c *Cert) Write(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	WriteFile(t, certFile, c.Chain(), 0o644)
	WriteFile(t, keyFile, c.KeyPEM(t), 0o600)
	return certFile, keyFile
}

// WriteFile writes a file with these permissions, whatever the umask is. It replaces an older
// one as a whole, as ACME clients do.
func WriteFile(t testing.TB, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
