package msg

import (
	"reflect"
	"slices"
)

// Conf is what a structured right hand side of the access map or of qmgr_conf says
// (README 3.8.1, 3.10.1, 3.11.1). It is shared and never changed.
type Conf struct {
	SessionFeature   string   // session_feature=notls;
	ConnectionLimits string   // connection_limits=low;
	Source           string   // source = net10;
	Flags            []string // flags = greylisting; in lower case
	Provider         string   // provider = big;
	TLS              *TLSRequirements
}

// HasFlag reports whether flags has the word, which must be in lower case.
func (c *Conf) HasFlag(word string) bool { return slices.Contains(c.Flags, word) }

// SharesTransaction reports whether recipients with these entries of smtpc_rcpt_conf:, nil for
// none, may share a transaction: only if the entries agree in what holds for all of it. That is
// the class of the session, and requirements whose violation ends the transaction and not the
// recipient alone (README 3.11.1); without violation the option of smtpc decides, which may say
// so. With delay the whole message is to wait, so its recipients stay together.
func (c *Conf) SharesTransaction(o *Conf) bool {
	if c.feature() != o.feature() {
		return false
	}
	return !c.endsAll() && !o.endsAll() || reflect.DeepEqual(c, o)
}

func (c *Conf) feature() string {
	if c == nil {
		return ""
	}
	return c.SessionFeature
}

// endsAll reports whether a violation of the requirements ends the transaction.
func (c *Conf) endsAll() bool {
	return c != nil && c.TLS != nil && !c.TLS.Delay && (c.TLS.Violation == "" || c.TLS.Violation == "abort")
}

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
