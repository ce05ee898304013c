package tlsconf

import (
	"fmt"
	"slices"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/tlsconf/pki"
)

// Unmet names all requirements that a connection does not meet in one text, "" if it meets
// all; see Violations.
func (p *Provider) Unmet(r *msg.TLSRequirements, t *msg.TLS) string {
	return strings.Join(Violations(r, t), "; ")
}

// Violations says in words which requirements a connection does not meet (README 3.13); nil
// means that it meets all. Nil for t is a connection without TLS, nil for r no requirement.
func Violations(r *msg.TLSRequirements, t *msg.TLS) (words []string) {
	wrong := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case r == nil || !demanding(r):
		return nil
	case t == nil:
		return []string{"the connection is not encrypted"}
	}
	if r.Encrypted && t.Bits == 0 {
		wrong("encrypted: the connection is not encrypted")
	}
	if t.Bits < r.CipherBitsMin {
		wrong("cipher_bits_min: the cipher has %d bits, not %d", t.Bits, r.CipherBitsMin)
	}
	if r.Verified && t.Verify != msg.VerifyOK && t.Verify != msg.VerifyDANE {
		wrong("verified: %s", notVerified(t))
	}
	if len(r.CertFingerprints) > 0 && !slices.ContainsFunc(r.CertFingerprints, func(fp string) bool { return sameDigits(fp, t.Fingerprint) }) {
		wrong("cert_fps: the certificate's fingerprint is %s", shown(t.Fingerprint))
	}
	for _, name := range []struct{ option, want, got string }{
		{"cert_issuer", r.CertIssuer, t.Issuer}, {"cert_subject", r.CertSubject, t.Subject}, {"common_name", r.CommonName, t.CN},
	} {
		if name.want != "" && !sameName(name.want, name.got) {
			wrong("%s: the certificate has %s", name.option, shown(name.got))
		}
	}
	if len(r.Hostnames) > 0 && !isFor(t, r.Hostnames) {
		wrong("hostnames: the certificate is for %s", allNames(t))
	}
	if len(r.RootCASubjects) > 0 && !slices.ContainsFunc(r.RootCASubjects, func(cn string) bool {
		return slices.ContainsFunc(t.RootCNs, func(root string) bool { return sameName(cn, root) })
	}) {
		wrong("root_ca_subjects: the root CA is %s", shown(strings.Join(t.RootCNs, ", ")))
	}
	return words
}

// demanding reports whether requirements ask for anything.
func demanding(r *msg.TLSRequirements) bool {
	return r.Verified || r.Encrypted || r.CipherBitsMin > 0 || r.CertIssuer+r.CertSubject+r.CommonName != "" ||
		len(r.CertFingerprints)+len(r.Hostnames)+len(r.RootCASubjects) > 0
}

// notVerified says why a certificate counts as not verified.
func notVerified(t *msg.TLS) string {
	switch t.Verify {
	case msg.VerifyNo:
		return "no certificate was presented"
	case msg.VerifyNot:
		return "no certificate was asked for"
	}
	return t.Reason
}

// shown is a name of the peer's certificate in a sentence.
func shown(name string) string {
	const most = 300 // several of them must fit into a line of the log
	switch {
	case name == "":
		return "none"
	case len(name) > most:
		return name[:most] + "..."
	}
	return name
}

// sameDigits compares the digits of two fingerprints: colons and the case of letters differ
// from program to program.
func sameDigits(a, b string) bool {
	bare := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, ":", "")) }
	return bare(a) != "" && bare(a) == bare(b)
}

// sameName compares a name in a configuration, as it is or as EncodeName writes it, with one
// of a certificate. A BadCert: text is no name.
func sameName(want, got string) bool {
	return got != "" && !pki.IsBad(got) && (want == got || want == pki.EncodeName(got))
}

// allNames are the names of the certificate for a sentence.
func allNames(t *msg.TLS) string {
	names := t.Names
	if t.CN != "" {
		names = append(names[:len(names):len(names)], "CN "+t.CN)
	}
	return shown(strings.Join(names, ", "))
}

// isFor applies the rules of README 3.13, item 7.
func isFor(t *msg.TLS, hostnames []string) bool {
	names := t.Names
	if t.CN != "" && !pki.IsBad(t.CN) {
		names = append(names[:len(names):len(names)], strings.ToLower(t.CN))
	}
	for _, want := range hostnames {
		want = strings.ToLower(strings.TrimSuffix(want, "."))
		if slices.ContainsFunc(names, func(name string) bool { return hostMatches(want, strings.TrimSuffix(name, ".")) }) {
			return true
		}
	}
	return false
}

// hostMatches compares a host name or .domain of hostnames with a name of a certificate, both
// in lower case (README 3.13, item 7):
//
//	mx.example.org  mx.example.org
//	mx.example.org  *.example.org, for exactly one level; *.org is not accepted
//	.example.org    *.example.org and anything.example.org, of one or more levels
func hostMatches(want, name string) bool {
	parent, wild := strings.CutPrefix(name, "*.")
	if strings.Contains(want+parent, "*") || wild && !strings.Contains(parent, ".") {
		return false
	}
	if strings.HasPrefix(want, ".") {
		return len(want) > 1 && strings.HasSuffix(name, want) && len(name) > len(want)
	}
	if wild {
		first, rest, _ := strings.Cut(want, ".")
		return first != "" && rest == parent
	}
	return want != "" && want == name
}
