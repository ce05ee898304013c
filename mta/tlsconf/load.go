package tlsconf

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"meta1/mta/tlsconf/ciphers"
	"meta1/mta/tlsconf/pki"
)

// Fault is something that is wrong with a section.
type Fault struct {
	// Option names the option, "certificate#2/key_file" for one of the second section
	// certificate, or "" for the section.
	Option  string
	Warning bool // the section can be used all the same
	Text    string
}

func (f Fault) Error() string {
	if f.Option == "" {
		return f.Text
	}
	return f.Option + ": " + f.Text
}

// faults collects what is wrong.
type faults []Fault

func (f *faults) errorf(option, format string, args ...any) {
	*f = append(*f, Fault{option, false, fmt.Sprintf(format, args...)})
}

func (f *faults) warnf(option, format string, args ...any) {
	*f = append(*f, Fault{option, true, fmt.Sprintf(format, args...)})
}

// errors are those that keep a section from being used.
func (f faults) errors() error {
	var texts []string
	for _, x := range f {
		if !x.Warning {
			texts = append(texts, x.Error())
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// because is a failure to read a file with its name first.
func because(path string, err error) error {
	var e *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case errors.As(err, &e):
		return fmt.Errorf("%s: %w", path, e.Err)
	}
	return err
}

// pair is a certificate of ours as it was loaded.
type pair struct {
	option, file       string // of the certificate
	keyOption, keyFile string
	cert               *tls.Certificate
	chain              []*x509.Certificate // as it is sent
}

// loaded is what a section and its files say at one time. It is not changed.
type loaded struct {
	section Section
	pairs   []pair // cert_file, EC_cert_file, then those by name; any may be missing
	byName  int    // how many of pairs are for all names
	cas     []*x509.Certificate
	list    []*x509.Certificate // whose names are sent to clients
	crls    []namedCRL
	trust   *pki.Trust
	options ciphers.Options
	suites  []uint16 // nil for Go's choice
	curves  []tls.CurveID
	stamps  map[string]Stamp
}

// namedCRL is a CRL and the file that it is in.
type namedCRL struct {
	*pki.CRL
	option, file string
}

// load reads everything that a section names. Errors among the faults mean that the result
// is not to be used.
func load(s Section, role Role, files Files) (*loaded, faults) {
	l, f, r := &loaded{section: s}, faults{}, newReader(files)
	l.loadCAs(r, &f)
	l.loadPairs(r, &f)
	l.loadCRLs(r, &f)
	l.loadSuites(role, &f)
	checked := s.Trust.CRLFile != "" || s.Trust.CRLDir != ""
	crls := make([]*pki.CRL, 0, len(l.crls))
	for _, c := range l.crls {
		crls = append(crls, c.CRL)
	}
	l.trust = pki.NewTrust(l.cas, crls, checked, s.Trust.MaxDepth)
	l.stamps = r.stamps
	return l, f
}

// loadCAs reads the CAs that are trusted, and those whose names are sent.
func (l *loaded) loadCAs(r *reader, f *faults) {
	t := &l.section.Trust
	fromFile := certificatesOf(r, f, "CAcert_file", t.CAFile)
	l.cas = fromFile
	if t.CADir != "" {
		contents, names, err := r.readDir(t.CADir)
		if err != nil {
			f.errorf("CAcert_directory", "%v", because(t.CADir, err))
		}
		for _, name := range names {
			more, errs := pki.Certificates(contents[name])
			for _, err := range errs {
				f.warnf("CAcert_directory", "%s in %s is left out: %v", name, t.CADir, err)
			}
			l.cas = append(l.cas[:len(l.cas):len(l.cas)], more...)
		}
		if err == nil && len(l.cas) == len(fromFile) {
			f.warnf("CAcert_directory", "%s has no certificate in PEM format that can be read", t.CADir)
		}
	}
	l.list = fromFile
	if t.ListSet {
		l.list = certificatesOf(r, f, "CAlist_file", t.CAList)
	}
}

// certificatesOf reads the certificates of a file, which must have one if it is named.
func certificatesOf(r *reader, f *faults, option, file string) []*x509.Certificate {
	if file == "" {
		return nil
	}
	text, err := r.read(file)
	if err != nil {
		f.errorf(option, "%v", because(file, err))
		return nil
	}
	list, errs := pki.Certificates(text)
	for _, err := range errs {
		f.warnf(option, "%s: %v; it is left out", file, err)
	}
	if len(list) == 0 {
		f.errorf(option, "%s has no certificate in PEM format that can be read", file)
	}
	return list
}

// loadPairs reads our certificates and keys.
func (l *loaded) loadPairs(r *reader, f *faults) {
	own := &l.section.Own
	l.loadPair(r, f, "cert_file", "key_file", Pair{own.Cert, own.Key})
	l.loadPair(r, f, "EC_cert_file", "EC_key_file", Pair{own.ECCert, own.ECKey})
	l.byName = len(l.pairs)
	for i, p := range own.More {
		in := fmt.Sprintf("certificate#%d/", i+1)
		l.loadPair(r, f, in+"cert_file", in+"key_file", p)
	}
}

func (l *loaded) loadPair(r *reader, f *faults, certOption, keyOption string, p Pair) {
	switch {
	case p.Cert == "" && p.Key == "":
		return
	case p.Key == "":
		f.errorf(certOption, "%s needs %s", certOption, keyOption)
		return
	case p.Cert == "":
		f.errorf(keyOption, "%s needs %s", keyOption, certOption)
		return
	}
	certText, certErr := r.read(p.Cert)
	keyText, keyErr := r.read(p.Key)
	if certErr != nil {
		f.errorf(certOption, "%v", because(p.Cert, certErr))
	}
	if keyErr != nil {
		f.errorf(keyOption, "%v", because(p.Key, keyErr))
	}
	if certErr != nil || keyErr != nil {
		return
	}
	chain, errs := pki.Certificates(certText)
	for _, err := range errs {
		f.errorf(certOption, "%s: %v", p.Cert, err)
	}
	if len(errs) > 0 {
		return
	}
	if len(chain) == 0 {
		f.errorf(certOption, "%s has no certificate in PEM format", p.Cert)
		return
	}
	key, err := pki.PrivateKey(keyText)
	if err != nil {
		f.errorf(keyOption, "%s: %v", p.Key, err)
		return
	}
	sent := chain
	if !l.section.Flags.UseChain {
		sent = pki.Complete(chain[:1], l.cas)
	}
	cert, err := pki.Pair(sent, key)
	if err != nil {
		f.errorf(keyOption, "%s does not fit %s: %v", p.Key, p.Cert, err)
		return
	}
	if len(chain) > 1 && !l.section.Flags.UseChain {
		f.warnf(certOption, "%s has %d certificates, of which only the first is sent: set the flag use_chain", p.Cert, len(chain))
	}
	if certOption == "EC_cert_file" && chain[0].PublicKeyAlgorithm != x509.ECDSA && chain[0].PublicKeyAlgorithm != x509.Ed25519 {
		f.errorf(certOption, "%s is for a key of kind %s, not one on an elliptic curve", p.Cert, chain[0].PublicKeyAlgorithm)
	}
	l.pairs = append(l.pairs, pair{certOption, p.Cert, keyOption, p.Key, cert, sent})
}

// loadCRLs reads the lists of revoked certificates.
func (l *loaded) loadCRLs(r *reader, f *faults) {
	t := &l.section.Trust
	if t.CRLFile != "" {
		text, err := r.read(t.CRLFile)
		if err != nil {
			f.errorf("CRL_file", "%v", because(t.CRLFile, err))
		}
		crls, errs := pki.CRLs(text)
		for _, err := range errs {
			f.errorf("CRL_file", "%s: %v", t.CRLFile, err)
		}
		if err == nil && len(crls)+len(errs) == 0 {
			f.errorf("CRL_file", "%s has no CRL in PEM format", t.CRLFile)
		}
		l.addCRLs(crls, "CRL_file", t.CRLFile)
	}
	if t.CRLDir != "" {
		contents, names, err := r.readDir(t.CRLDir)
		if err != nil {
			f.errorf("CRL_directory", "%v", because(t.CRLDir, err))
		}
		for _, name := range names {
			crls, errs := pki.CRLs(contents[name])
			for _, err := range errs {
				f.errorf("CRL_directory", "%s in %s: %v", name, t.CRLDir, err)
			}
			l.addCRLs(crls, "CRL_directory", t.CRLDir+"/"+name)
		}
	}
	if (t.CRLFile != "" || t.CRLDir != "") && len(l.cas) == 0 {
		f.warnf(cmp.Or(setOption("CRL_file", t.CRLFile), "CRL_directory"), "CRLs change nothing as long as no CA is trusted: CAcert_file and CAcert_directory are empty")
	}
}

func setOption(name, value string) string {
	if value == "" {
		return ""
	}
	return name
}

func (l *loaded) addCRLs(crls []*pki.CRL, option, file string) {
	for _, c := range crls {
		l.crls = append(l.crls, namedCRL{c, option, file})
	}
}

// loadSuites reads what may be negotiated.
func (l *loaded) loadSuites(role Role, f *faults) {
	s := &l.section.Suites
	l.options = ciphers.ParseOptions(s.Options)
	if l.options.Wrong != "" {
		f.errorf("options", "options: %s", l.options.Wrong)
	}
	for _, word := range l.options.Unknown {
		f.errorf("options", "OpenSSL has no option %q", word)
	}
	for _, u := range l.options.Unsupported {
		f.warnf("options", "%s has no effect: %s", u.Word, u.Reason)
	}
	if s.CipherList != "" {
		list := ciphers.Parse(s.CipherList)
		l.suites = list.Suites
		for _, word := range list.Unknown {
			f.warnf("CipherList", "OpenSSL has no cipher or group %q", word)
		}
		for _, word := range list.Unsupported {
			f.warnf("CipherList", "Go has nothing of %q", word)
		}
		if len(list.Suites) == 0 && l.options.Min < tls.VersionTLS13 {
			f.errorf("CipherList", "CipherList leaves no cipher that Go has")
		}
		l.suitesFit(role, f)
	}
	if s.CipherSuites != "" {
		f.warnf("CipherSuites", "Go lets nobody choose the suites of TLS 1.3: its three are always on, whatever CipherSuites says")
	}
	curves := ciphers.ParseCurves(s.Curves)
	l.curves = curves.IDs
	for _, word := range curves.Unknown {
		f.errorf("EC_curve", "OpenSSL has no curve %q", word)
	}
	for _, word := range curves.Unsupported {
		f.warnf("EC_curve", "Go does not have %q", word)
	}
	if len(s.Curves) > 0 && len(curves.IDs) == 0 {
		f.errorf("EC_curve", "EC_curve leaves no curve that Go has")
	}
}

// suitesFit warns of a certificate that no cipher of TLS 1.2 can use: its clients would be
// served by TLS 1.3 alone.
func (l *loaded) suitesFit(role Role, f *faults) {
	if role != Server || l.options.Min >= tls.VersionTLS13 || len(l.suites) == 0 {
		return
	}
	for _, p := range l.pairs {
		ec := p.chain[0].PublicKeyAlgorithm != x509.RSA
		if !ciphers.Uses(l.suites, ec) {
			f.warnf("CipherList", "CipherList leaves no cipher for the certificate in %s before TLS 1.3", p.file)
		}
	}
}

// expiry is when a certificate of a chain that is sent expires first.
func (p *pair) expiry() time.Time {
	first := p.chain[0].NotAfter
	for _, c := range p.chain[1:] {
		if c.NotAfter.Before(first) && !bytes.Equal(c.RawSubject, c.RawIssuer) {
			first = c.NotAfter
		}
	}
	return first
}
