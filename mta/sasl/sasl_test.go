package sasl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"testing"
)

// TestEndPoint: RFC 5929 section 4.1 says which hash.
func TestEndPoint(t *testing.T) {
	for algorithm, size := range map[x509.SignatureAlgorithm]int{
		x509.SHA1WithRSA: 32, x509.MD5WithRSA: 32, x509.SHA256WithRSA: 32, x509.ECDSAWithSHA384: 48, x509.SHA512WithRSAPSS: 64, x509.PureEd25519: 0,
	} {
		if data := EndPoint(&x509.Certificate{Raw: []byte("x"), SignatureAlgorithm: algorithm}); len(data) != size {
			t.Errorf("%v: %d bytes, want %d", algorithm, len(data), size)
		}
	}
	want := sha256.Sum256([]byte("x"))
	if data := EndPoint(&x509.Certificate{Raw: []byte("x"), SignatureAlgorithm: x509.SHA256WithRSA}); !bytes.Equal(data, want[:]) {
		t.Error("not the hash of the certificate")
	}
}

// TestNoCertificate: a resumed session shows none, and then there is no tls-server-end-point.
func TestNoCertificate(t *testing.T) {
	if data := EndPoint(nil); data != nil {
		t.Errorf("%x", data)
	}
}
