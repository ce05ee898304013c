package tlspolicy

import (
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"meta1/mta/msg"
)

var errOtherName = errors.New("it is not for that name")

// Verify checks that a chain leads from a certificate for a host to an authority, as an MTA-STS policy asks
// (RFC 8461 section 4.2); nil roots are those of the system. Result tells what kind of error it is.
func Verify(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("there is none")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: strings.TrimSuffix(host, "."), Roots: roots, Intermediates: between, CurrentTime: now,
	})
	if name := (x509.HostnameError{}); errors.As(err, &name) {
		return errOtherName
	}
	return err
}

// Result is why a certificate is not trusted, of an error of Verify, as reports about TLS have it (RFC 8460
// section 4.3).
func Result(err error) msg.TLSResult {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, errOtherName):
		return msg.TLSHostMismatch
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return msg.TLSCertificateExpired
	case errors.As(err, &invalid), errors.As(err, new(x509.UnknownAuthorityError)):
		return msg.TLSCertificateUntrusted
	}
	return msg.TLSValidationFailure
}
