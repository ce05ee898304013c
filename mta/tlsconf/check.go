package tlsconf

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io/fs"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/tlsconf/pki"
)

// CheckQ says for whom a section is checked.
type CheckQ struct {
	Role     Role
	Files    Files
	Now      time.Time
	Hostname string // our own; "" leaves the name of the certificate unchecked
	// Mode tells the permissions of a file. Nil leaves those of keys unchecked.
	Mode func(path string) (fs.FileMode, error)
	// Roots are the CAs that this host knows besides those of the section; nil for none.
	Roots *x509.CertPool
}

// Check finds what is wrong with a section that stands in the configuration: everything that
// keeps it from being used, and as warnings what a careful operator wants to know.
func Check(s Section, q CheckQ) []Fault {
	l, f := load(s, q.Role, q.Files)
	for i := range l.pairs {
		l.checkPair(&l.pairs[i], q, &f)
	}
	if q.Role == Server {
		l.checkServer(q, &f)
	}
	for _, c := range l.crls {
		if c.Expired(q.Now) {
			f.warnf(c.option, "the CRL of %s in %s expired at %s: certificates of that CA are not verified", c.Issuer(), c.file, clock(c.NextUpdate()))
		}
	}
	return f
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkPair checks one certificate of ours.
func (l *loaded) checkPair(p *pair, q CheckQ, f *faults) {
	leaf, expires := p.chain[0], p.expiry()
	switch {
	case q.Now.After(expires):
		f.warnf(p.option, "the certificate in %s expired at %s", p.file, clock(expires))
	case q.Now.After(expires.Add(-expireSoon)):
		f.warnf(p.option, "the certificate in %s expires at %s", p.file, clock(expires))
	case q.Now.Before(leaf.NotBefore):
		f.warnf(p.option, "the certificate in %s is not valid before %s", p.file, clock(leaf.NotBefore))
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		f.warnf(p.option, "the key of the certificate in %s has %d bits; less than 2048 are refused by many", p.file, key.N.BitLen())
	}
	if err := pki.CheckOrder(p.chain); err != nil {
		f.warnf(p.option, "the chain in %s is not in order: %v", p.file, err)
	} else if text := l.incomplete(p, q); text != "" {
		f.warnf(p.option, "%s", text)
	}
	l.checkMode(p, q, f)
}

// incomplete says why others may be unable to verify a certificate of ours, "" if they are
// not.
func (l *loaded) incomplete(p *pair, q CheckQ) string {
	last := p.chain[len(p.chain)-1]
	if pki.SelfSigned(last) {
		if len(p.chain) == 1 {
			return "the certificate in " + p.file + " is self-signed: nobody can verify it who was not given it"
		}
		return ""
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if q.Roots != nil {
		roots = q.Roots.Clone()
	}
	for _, c := range l.cas {
		roots.AddCert(c)
	}
	for _, c := range p.chain[1:] {
		between.AddCert(c)
	}
	// Whether it is valid today is another matter.
	during := p.chain[0].NotBefore.Add(p.chain[0].NotAfter.Sub(p.chain[0].NotBefore) / 2)
	_, err := p.chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: during, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return "the chain in " + p.file + " ends with " + pki.OneLine(last.RawSubject) + ", which was signed by " + pki.OneLine(last.RawIssuer) +
			": if that is no root that others trust, the chain lacks its certificate"
	}
	return ""
}

// checkMode warns of a key that others may read.
func (l *loaded) checkMode(p *pair, q CheckQ, f *faults) {
	if q.Mode == nil {
		return
	}
	if mode, err := q.Mode(p.keyFile); err == nil && mode&0o007 != 0 {
		f.warnf(p.keyOption, "everybody may read the private key %s (mode %04o)", p.keyFile, mode.Perm())
	}
}

// manyCAs is the number of CAs from which on a list looks like the one of a browser.
const manyCAs = 10

// checkServer checks what only a server has.
func (l *loaded) checkServer(q CheckQ, f *faults) {
	flags := &l.section.Flags
	if len(l.pairs) == 0 && f.errors() == nil {
		f.warnf("", "there is no cert_file: STARTTLS is not offered")
	}
	if flags.AllowRelayingIfVerified && len(l.cas) > manyCAs {
		f.warnf("allow_relaying_if_verified", "everybody who has a certificate of one of %d CAs may relay: CAcert_file and CAcert_directory should hold only your own", len(l.cas))
	}
	for _, name := range []struct {
		flag string
		set  bool
	}{{"allow_relaying_if_verified", flags.AllowRelayingIfVerified}, {"check_access_map_for_relaying", flags.CheckAccessMapForRelaying}} {
		switch {
		case name.set && len(l.cas) == 0:
			f.warnf(name.flag, "%s has no effect: no CA is trusted (CAcert_file, CAcert_directory)", name.flag)
		case name.set && !flags.RequestCert:
			f.warnf(name.flag, "%s has no effect: clients are not asked for a certificate (request_cert)", name.flag)
		}
	}
	for i := range l.pairs {
		p := &l.pairs[i]
		leaf := p.chain[0]
		if i < l.byName && q.Hostname != "" && leaf.VerifyHostname(strings.TrimSuffix(q.Hostname, ".")) != nil {
			f.warnf(p.option, "the certificate in %s is not for %s, the name of this host, but for %s", p.file, q.Hostname, namesOf(leaf))
		}
		if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !forServers(leaf) {
			f.warnf(p.option, "the certificate in %s is not one of a server (extended key usage)", p.file)
		}
	}
}

func forServers(c *x509.Certificate) bool {
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

// namesOf are the names of a certificate for a sentence.
func namesOf(c *x509.Certificate) string {
	t := &msg.TLS{}
	describe(t, c, "")
	return allNames(t)
}
