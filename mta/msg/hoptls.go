package msg

// TLSLevel is how far TLS protects a connection.
type TLSLevel uint8

// The levels, each better than the one before.
const (
	TLSNone      TLSLevel = iota // not at all
	TLSEncrypted                 // against those who only listen
	TLSVerified                  // the certificate is one of a CA that we trust
	TLSDANE                      // the certificate is the one that DNS names (RFC 7672)
)

// String is the level in logs and metrics.
func (l TLSLevel) String() string {
	return [...]string{"none", "encrypted", "verified", "dane"}[l]
}

// HopTLS is what TLS gave to a connection to a hop. The zero HopTLS is one without.
type HopTLS struct {
	Level   TLSLevel
	Version string // "TLSv1.3"
	Cipher  string // the name of RFC 8446 or RFC 5246
	Bits    int    // effective length of the cipher's key
	Verify  string // what is known of the certificate: OK, FAIL, or DANE_SEC (README 14.2)
	Resumed bool   // an earlier session was resumed
	Record  string // the kind of TLSA record that matched, such as 3 1 1; "" without DANE
}

// STS is what an MTA-STS policy asks of the connection to a host that it names (RFC 8461
// section 5).
type STS uint8

// The modes of a policy.
const (
	STSNone    STS = iota
	STSTesting     // that it be noted if the certificate does not fit
	STSEnforce     // TLS with a certificate for Host of an authority that is trusted
	STSUnnamed     // nothing: the policy is for testing, and does not name the host
)

// DestTLSOptional ends the name of a destination with hosts that only mail goes to which no
// policy of the recipient's side keeps back (Mail.TLSOptional).
const DestTLSOptional = "/tls-optional"
