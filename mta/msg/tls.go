package msg

import "time"

// TLS is what a TLS handshake with a peer, a client or a server, gave. It is shared and never
// changed. Its texts are printable ASCII.
type TLS struct {
	Version string // as OpenSSL writes it: TLSv1.3
	Cipher  string // as OpenSSL writes it: TLS_AES_128_GCM_SHA256
	Bits    int    // effective length of the symmetric key
	// Verify is what the peer's certificate is worth, one of the words below; with
	// VerifyFail for the Reason.
	Verify, Reason string
	Resumed        bool   // an earlier session was resumed
	ServerName     string // that the client asked for (SNI); "" for none

	// Subject and Issuer are the names in the peer's certificate as OpenSSL writes them on
	// one line, /C=US/CN=client.example; CN and IssuerCN their common names, or one of the
	// texts that begin with BadCert: (README 3.10, item 24o). "" without a certificate.
	Subject, Issuer string
	CN, IssuerCN    string
	Fingerprint     string // of the certificate, 01:23:AB… by the option Digest
	// Names are the DNS names in the certificate, in lower case; NotAfter is when it expires.
	Names    []string
	NotAfter time.Time
	// RootCNs are the common names of the roots that VerifyOK rests on; several if there are
	// several ways to a root.
	RootCNs []string
}

// The words of TLS.Verify (README 10.5, 14.2).
const (
	VerifyOK   = "OK"       // the certificate was verified
	VerifyNo   = "NO"       // the peer presented none
	VerifyNot  = "NOT"      // none was asked for
	VerifyFail = "FAIL"     // it could not be verified
	VerifyDANE = "DANE_SEC" // a TLSA record that DNSSEC secures has it
)
