package msg

import "slices"

// Conf is what a structured right hand side of the access map or of qmgr_conf says
// (README 3.8.1, 3.10.1, 3.11.1). It is shared and never changed.
type Conf struct {
	SessionFeature   string   // session_feature=notls;
	ConnectionLimits string   // connection_limits=low;
	Source           string   // source = net10;
	Flags            []string // flags = greylisting; in lower case
	TLS              *TLSRequirements
}

// HasFlag reports whether flags has the word, which must be in lower case.
func (c *Conf) HasFlag(word string) bool { return slices.Contains(c.Flags, word) }

// TLSRequirements is a section tls_requirements (README 3.13).
type TLSRequirements struct {
	CertFingerprints []string // cert_fps
	CertIssuer       string   // cert_issuer
	CertSubject      string   // cert_subject
	CipherBitsMin    int      // cipher_bits_min
	CommonName       string   // common_name
	Verified         bool     // flags verified
	Encrypted        bool     // flags encrypted
	Hostnames        []string // hostnames
	RootCASubjects   []string // root_ca_subjects
	Violation        string   // violation: permfail, tempfail, abort, or "" for the default
	Delay            bool     // violation flag delay (README 3.11.1)
}
