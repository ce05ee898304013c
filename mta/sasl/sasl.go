// Package sasl has what both ends of SMTP AUTH (RFC 4954) must say alike: the names of the
// mechanisms, and the channel bindings of SCRAM-*-PLUS. It does no I/O.
package sasl

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"

	"github.com/xdg-go/scram"
)

// The names of the mechanisms.
const (
	Plain           = "PLAIN"              // RFC 4616
	Login           = "LOGIN"              // draft-murchison-sasl-login
	CRAMMD5         = "CRAM-MD5"           // RFC 2195
	SCRAMSHA1       = "SCRAM-SHA-1"        // RFC 5802
	SCRAMSHA1Plus   = "SCRAM-SHA-1-PLUS"   // the same with channel binding
	SCRAMSHA256     = "SCRAM-SHA-256"      // RFC 7677
	SCRAMSHA256Plus = "SCRAM-SHA-256-PLUS" // the same with channel binding
	External        = "EXTERNAL"           // RFC 4422 appendix A
	XOAuth2         = "XOAUTH2"            // Google's and Microsoft's form of a token
	OAuthBearer     = "OAUTHBEARER"        // RFC 7628
	Anonymous       = "ANONYMOUS"          // RFC 4505
)

// Bindings are the types of channel binding that a connection has, with their data, the best
// first. cert is the certificate that the server showed in the handshake, nil if it is not
// known: then there is no tls-server-end-point.
func Bindings(state *tls.ConnectionState, cert *x509.Certificate) []scram.ChannelBinding {
	list := make([]scram.ChannelBinding, 0, 2)
	// RFC 9266. It fails for TLS 1.2 without the extended master secret, where it would
	// not be safe.
	if data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err == nil {
		list = append(list, scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: data})
	}
	if data := EndPoint(cert); data != nil {
		list = append(list, scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: data})
	}
	return list
}

// EndPoint is the hash of a certificate for tls-server-end-point (RFC 5929 section 4.1):
// by the hash of its signature, SHA-256 in place of MD5 and SHA-1. It is nil without a
// certificate, and if its signature has no hash, as that of Ed25519: then the type is not
// defined.
func EndPoint(cert *x509.Certificate) []byte {
	if cert == nil {
		return nil
	}
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		sum := sha512.Sum384(cert.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		sum := sha512.Sum512(cert.Raw)
		return sum[:]
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	}
	sum := sha256.Sum256(cert.Raw)
	return sum[:]
}
