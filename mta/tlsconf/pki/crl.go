package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// CRL is a list of revoked certificates (RFC 5280 section 5).
type CRL struct {
	list    *x509.RevocationList
	revoked map[string]time.Time // by the bytes of the serial number
}

// CRLs reads all lists of a PEM text.
func CRLs(text []byte) (all []*CRL, errs []error) {
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		n++
		crl, err := newCRL(block.Bytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("CRL %d: %w", n, err))
			continue
		}
		all = append(all, crl)
	}
	return all, errs
}

func newCRL(der []byte) (*CRL, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	// Two extensions change what a list means: a list of changes only, and one of some
	// certificates only, perhaps of other issuers. Both are critical (RFC 5280 sections 5.2.4
	// and 5.2.5).
	for _, e := range list.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("it has the critical extension %s: lists of changes and lists of some certificates are not supported", e.Id)
		}
	}
	crl := &CRL{list: list, revoked: make(map[string]time.Time, len(list.RevokedCertificateEntries))}
	for _, e := range list.RevokedCertificateEntries {
		crl.revoked[string(e.SerialNumber.Bytes())] = e.RevocationTime
	}
	return crl, nil
}

// Issuer is the name of the CA that it is of.
func (c *CRL) Issuer() string { return OneLine(c.list.RawIssuer) }

// NextUpdate is when its successor is due; the zero time if it does not say that.
func (c *CRL) NextUpdate() time.Time { return c.list.NextUpdate }

// Expired reports that its successor is due.
func (c *CRL) Expired(now time.Time) bool {
	return !c.list.NextUpdate.IsZero() && now.After(c.list.NextUpdate)
}

// errNoCRL says that nobody can tell whether a certificate was revoked.
var errNoCRL = errors.New("there is no CRL of its issuer")

// revokedBy checks one certificate against the lists of its issuer. It must be in none,
// and there must be a valid one: as OpenSSL does with X509_V_FLAG_CRL_CHECK_ALL, a certificate of
// which nothing is known is not good.
func revokedBy(lists []*CRL, c, issuer *x509.Certificate, now time.Time) error {
	err := errNoCRL
	valid := false
	for _, crl := range lists {
		if !bytes.Equal(crl.list.RawIssuer, c.RawIssuer) {
			continue
		}
		if e := crl.list.CheckSignatureFrom(issuer); e != nil {
			if !valid {
				err = errors.New("the CRL of its issuer has a wrong signature")
			}
			continue
		}
		if when, found := crl.revoked[string(c.SerialNumber.Bytes())]; found {
			return fmt.Errorf("it was revoked at %s", when.UTC().Format(time.RFC3339))
		}
		switch {
		case valid:
		case now.Before(crl.list.ThisUpdate):
			err = errors.New("the CRL of its issuer is not yet valid")
		case crl.Expired(now):
			err = errors.New("the CRL of its issuer has expired")
		default:
			valid, err = true, nil
		}
	}
	return err
}
