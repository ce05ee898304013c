package msg

import "net/netip"

// TLSPolicy is the kind of policy under which mail goes out (RFC 8460 section 4.4,
// policy-type).
type TLSPolicy uint8

// The kinds.
const (
	TLSPolicyNone TLSPolicy = iota // the domain has none, or none that could be found out
	TLSPolicyTLSA                  // DANE
	TLSPolicySTS                   // MTA-STS
)

// String is the word of RFC 8460.
func (p TLSPolicy) String() string { return [...]string{"no-policy-found", "tlsa", "sts"}[p] }

// TLSResult is what became of the TLS of a session (RFC 8460 section 4.3). dane-required is not
// among them: no option demands DANE of a domain that has none.
type TLSResult uint8

// The results.
const (
	TLSSuccess              TLSResult = iota
	TLSNotSupported                   // the host does not offer STARTTLS, or refuses it
	TLSHostMismatch                   // the certificate is not for the name of the host
	TLSCertificateExpired             // its time is over, or has not come
	TLSCertificateUntrusted           // no authority that we trust vouches for it
	TLSValidationFailure              // anything else
	TLSTLSAInvalid                    // none of the TLSA records can be used
	TLSDNSSECInvalid                  // DNS gives no answer about TLSA records that could be believed
	TLSPolicyFetchError               // an MTA-STS policy cannot be fetched
	TLSPolicyInvalid                  // it cannot be understood
	TLSPolicyUntrusted                // the certificate of the host that has it is not trusted
)

// String is the word of RFC 8460; "" for a success.
func (r TLSResult) String() string {
	return [...]string{
		"", "starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted", "validation-failure",
		"tlsa-invalid", "dnssec-invalid", "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid",
	}[r]
}

// TLSSession is one SMTP session to a host of a domain, or one that was not made because of
// TLS.
type TLSSession struct {
	Domain string    // whose mail hosts they are
	Policy TLSPolicy // that was applied
	// Base and Records are the name and the TLSA records of a policy by DANE.
	Base    string
	Records []TLSA
	MX      string     // name of the host
	Helo    string     // name in its greeting; "" if it was not heard
	Local   netip.Addr // ours; zero if it is not known
	Remote  netip.Addr // of the host; zero if there was no connection
	Result  TLSResult
	Reason  string // of a failure, in few words
}

// TLSCounter counts sessions for reports (RFC 8460). It never waits for a disk or for DNS, and
// is safe for use by many goroutines. It keeps what it is given.
type TLSCounter interface {
	CountTLS(s *TLSSession)
}

// TLSReportQ asks SMAR what a report about a domain needs.
type TLSReportQ struct {
	Domain string // in A-labels
	// Hosts asks for the addresses of the hosts of the https URIs, too.
	Hosts bool
}

// TLSReportA answers TLSReportQ.
type TLSReportA struct {
	// Err: there was no answer, and it is worth asking again; "" if there was.
	Err string
	// RUA are the URIs to which the domain wants its reports, mailto and https. None: it
	// wants none, or its record is not well formed.
	RUA []string
	// Addrs are the addresses of hosts of RUA, by name.
	Addrs map[string][]netip.Addr
	// STSLines and STSHosts are the MTA-STS policy of the domain, line by line, and the
	// patterns for mail hosts in it; none without a policy.
	STSLines, STSHosts []string
	// STSFailure is why the policy that the domain announces is not known, in the words of
	// STSReason; TLSSuccess if it is, or there is none.
	STSFailure TLSResult
	STSReason  string
}
