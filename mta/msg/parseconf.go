package msg

import (
	"errors"
	"fmt"
	"strings"

	"meta1/confparse"
)

// maxConf bounds a structured right hand side, in bytes.
const maxConf = 16 << 10

// maxValues bounds the values of all its options, and the options.
const maxValues = 256

// ParseConf reads a structured right hand side: options and sections in the language
// of the configuration file, in one line (README 3.10.1, 3.11.1, 3.8.1). Whether
// values fit to each other is not checked.
func ParseConf(text string) (Conf, error) {
	if len(text) > maxConf {
		return Conf{}, fmt.Errorf("right hand side is longer than %d bytes", maxConf)
	}
	var c Conf
	if err := confparse.ReadLine(text, maxValues, c.Options()); err != nil {
		return Conf{}, err
	}
	return c, nil
}

// Options is the option table of a structured right hand side, bound to c.
func (c *Conf) Options() *confparse.Table {
	tls := &TLSRequirements{}
	requirements := confparse.Merge(tls.options(), &confparse.Table{
		Done: func() { c.TLS = tls },
	})
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "session_feature", Type: confparse.String, Readme: "3.10.1", Into: &c.SessionFeature,
				Doc: "The name of a section session_features of smtps or smtpc, which is then used for the session.",
			},
			{
				Name: "connection_limits", Type: confparse.String, Readme: "3.8.1", Into: &c.ConnectionLimits,
				Doc: "The name of a section connection_limits of qmgr.smtpc.",
			},
			{
				Name: "source", Type: confparse.String, Readme: "3.8.1", Into: &c.Source,
				Doc: "The name of a section source of qmgr.smtpc.",
			},
			{
				Name: "provider", Type: confparse.String, Readme: "own", Into: &c.Provider,
				Doc: "For smtpc_session_conf: the name of a section provider of qmgr.smtpc, to which the host belongs.",
			},
			{
				Name: "flags", Type: confparse.List, Readme: "3.10.1", Into: &c.Flags,
				Doc: "For smtps_rcpt_conf: the flag greylisting asks for greylisting of this recipient's mail.",
			},
			{
				Name: "tls_requirements", Kind: confparse.KindSection, Readme: "3.13", Sub: requirements,
				Doc: "What TLS must give to the session.",
			},
		},
		Check: func(*confparse.Report) {
			for i, f := range c.Flags {
				c.Flags[i] = strings.ToLower(f)
			}
		},
	}
}

// options is the table of a section tls_requirements (README 3.13).
func (t *TLSRequirements) options() *confparse.Table {
	text := func(name, doc string, into *string) confparse.Option {
		return confparse.Option{Name: name, Type: confparse.String, Readme: "3.13", Into: into, Doc: doc}
	}
	list := func(name, doc string, into *[]string) confparse.Option {
		return confparse.Option{Name: name, Type: confparse.List, Readme: "3.13", Into: into, Doc: doc}
	}
	flag := func(name, doc string, into *bool) confparse.Option {
		return confparse.Option{Name: name, Kind: confparse.KindFlag, Readme: "3.13", Into: into, Doc: doc}
	}
	var violation []string
	return &confparse.Table{
		Options: []confparse.Option{
			list("cert_fps", "Fingerprints, one of which the certificate must have.", &t.CertFingerprints),
			text("cert_issuer", "The distinguished name of the issuer of the certificate.", &t.CertIssuer),
			text("cert_subject", "The distinguished name of the subject of the certificate.", &t.CertSubject),
			{
				Name: "cipher_bits_min", Type: confparse.Int, Unit: "bits", Min: "0", Max: "10000", Readme: "3.13", Into: &t.CipherBitsMin,
				Doc: "The least effective length of the symmetric key.",
			},
			text("common_name", "The common name (CN) of the certificate.", &t.CommonName),
			list("hostnames", "Host names, or domains with a dot before them, one of which the certificate must be for; useful with the flag verified.", &t.Hostnames),
			list("root_ca_subjects", "Common names, one of which the root CA's certificate must have.", &t.RootCASubjects),
			flag("verified", "The certificate must be signed by a CA that we trust.", &t.Verified),
			flag("encrypted", "The connection must be encrypted.", &t.Encrypted),
			{
				Name: "violation", Type: confparse.List, Words: []string{"permfail", "tempfail", "abort", "delay"}, Readme: "3.13", Into: &violation,
				Doc: "What follows if the requirements are not met: a permanent failure, a temporary one, or the end of the session; the default is the option violation of section tls. With delay, for smtpc_rcpt_conf: only, the recipient is sent to the server all the same and the transaction is given up before DATA, for all its recipients: a server that greylists sees the recipient so.",
			},
		},
		Check: func(r *confparse.Report) {
			if err := t.setViolation(violation); err != nil {
				r.Errorf("violation", "%v", err)
			}
		},
	}
}

func (t *TLSRequirements) setViolation(words []string) error {
	for _, w := range words {
		switch {
		case w == "delay":
			t.Delay = true
		case t.Violation != "" && t.Violation != w:
			return errors.New("violation is both " + t.Violation + " and " + w)
		default:
			t.Violation = w
		}
	}
	return nil
}
