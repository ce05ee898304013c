package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Trust is what a peer's certificate is checked against. It is not changed after it was
// made; any goroutine may use it.
type Trust struct {
	roots    *x509.CertPool
	hasRoots bool
	crls     []*CRL
	checkCRL bool
	depth    int
}

// NewTrust makes a Trust. depth is how many CAs may stand between a certificate and the
// root (SSL_CTX_set_verify_depth(3)). With checkCRL every certificate but the root must have a
// list of its issuer.
func NewTrust(roots []*x509.Certificate, crls []*CRL, checkCRL bool, depth int) *Trust {
	t := &Trust{roots: x509.NewCertPool(), hasRoots: len(roots) > 0, crls: crls, checkCRL: checkCRL, depth: depth}
	for _, c := range roots {
		t.roots.AddCert(c)
	}
	return t
}

// Verify checks a peer's certificates, its own first, and returns the ways to a trusted root
// that are good; there is one or an error. Names are not checked. The words of the error hold
// nothing that the peer has written.
func (t *Trust) Verify(peer []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	if len(peer) == 0 {
		return nil, errors.New("there is no certificate")
	}
	if !t.hasRoots {
		return nil, errors.New("no CA is trusted: neither CAcert_file nor CAcert_directory has one")
	}
	between := x509.NewCertPool()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{
		Roots: t.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, words(err, peer[0], now)
	}
	var good [][]*x509.Certificate
	var last error
	for _, chain := range chains {
		if err := t.check(chain, now); err != nil {
			last = err
			continue
		}
		good = append(good, chain)
	}
	if len(good) == 0 {
		return nil, last
	}
	return good, nil
}

// check checks what Go's Verify does not: length and revocation.
func (t *Trust) check(chain []*x509.Certificate, now time.Time) error {
	if between := len(chain) - 2; between > t.depth {
		return fmt.Errorf("%d CAs stand between the certificate and the root, verify_depth is %d", between, t.depth)
	}
	if !t.checkCRL {
		return nil
	}
	for i := range len(chain) - 1 {
		if err := revokedBy(t.crls, chain[i], chain[i+1], now); err != nil {
			if i == 0 {
				return fmt.Errorf("the certificate: %w", err)
			}
			return fmt.Errorf("the certificate of CA %d: %w", i, err)
		}
	}
	return nil
}

// words puts an error of Verify into words of our own: its text may have names that the
// peer chose.
func words(err error, c *x509.Certificate, now time.Time) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown) && SelfSigned(c):
		return errors.New("the certificate is self-signed and not trusted")
	case errors.As(err, &unknown):
		return errors.New("no trusted CA has signed the certificate")
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			if now.Before(c.NotBefore) {
				return errors.New("the certificate is not yet valid")
			}
			return errors.New("the certificate or that of a CA has expired")
		case x509.IncompatibleUsage:
			return errors.New("the certificate is not for this use (extended key usage)")
		case x509.NotAuthorizedToSign:
			return errors.New("a certificate of the chain is not that of a CA")
		case x509.TooManyIntermediates:
			return errors.New("the chain is longer than one of its CAs allows")
		case x509.CANotAuthorizedForThisName, x509.TooManyConstraints, x509.UnconstrainedName, x509.NameConstraintsWithoutSANs:
			return errors.New("a CA may not sign for a name of the certificate (name constraints)")
		}
	}
	var critical x509.UnhandledCriticalExtension
	if errors.As(err, &critical) {
		return errors.New("a certificate has a critical extension that is not understood")
	}
	return errors.New("the certificate cannot be verified")
}
