package auth

import (
	"crypto/x509"
	"slices"
)

// The words of the option external_name: what of a certificate is the account.
const (
	byCommonName = "common_name"
	byEmail      = "email"
	byDNS        = "dns"
)

// externalState is EXTERNAL (RFC 4422 appendix A): the client is who its certificate
// names.
type externalState struct {
	names []string // of the certificate
}

func newExternal(cert *x509.Certificate, by string) *externalState {
	switch by {
	case byEmail:
		return &externalState{cert.EmailAddresses}
	case byDNS:
		return &externalState{cert.DNSNames}
	}
	if cert.Subject.CommonName == "" {
		return &externalState{}
	}
	return &externalState{[]string{cert.Subject.CommonName}}
}

// respond takes the authorization identity, which chooses among several names of a
// certificate; an empty one stands for the first.
func (s *externalState) respond(response []byte) move {
	if response == nil {
		return challenge(nil)
	}
	want := string(response)
	switch {
	case len(s.names) == 0:
		return move{kind: refuse, name: want, reason: "the certificate names no account"}
	case want == "":
		want = s.names[0]
	case !slices.Contains(s.names, want):
		return move{kind: refuse, name: want, reason: "the certificate names another account"}
	}
	return move{kind: askSecret, name: want, then: func(secret *Secret) move {
		if secret.decoy {
			return move{kind: refuse, name: want, reason: unknownAccount}
		}
		return move{kind: accept, name: want}
	}}
}
