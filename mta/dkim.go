package mta

import (
	"fmt"
	"io/fs"
	"time"

	"meta1/confparse"
	"meta1/mta/tlsconf"
	"meta1/server/dkim"
)

// dkimSection is one section DKIM_signing of the configuration.
type dkimSection struct {
	name   string // of the server section: "smtps MSA"
	path   string // of the section itself in confparse.Result
	config dkim.Config
}

// dkimSections are all that stand in the configuration, in its order.
func (c *Config) dkimSections() []dkimSection {
	var all []dkimSection
	for _, s := range c.Servers {
		if s.Server.DKIMPresent {
			all = append(all, dkimSection{s.Of.Section, s.Of.Section + "/DKIM_signing", s.Server.DKIM})
		}
	}
	return all
}

// loadDKIM reads the keys of all sections DKIM_signing. It is called before the privileges are
// dropped, after loadTLS.
func (m *mta) loadDKIM() error {
	m.dkim = map[string]*dkim.Signer{}
	for _, s := range m.conf.dkimSections() {
		signer, err := dkim.New(s.config, dkim.Deps{Name: s.name, Files: m.tlsFiles})
		if err != nil {
			return exit(ExConfig, fmt.Errorf("section %s: %w", s.path, err))
		}
		m.dkim[s.name] = signer
	}
	return nil
}

// signOwn makes the signatures of a message that meta1 itself wrote: the header fields that
// go on top of it, none if no section has a key for it.
func (m *mta) signOwn(content []byte) ([]byte, error) {
	m.mu.Lock()
	signers := m.dkim
	m.mu.Unlock()
	for _, s := range m.current().conf.dkimSections() {
		signer := signers[s.name]
		if signer == nil || !signer.Config().OwnMail {
			continue
		}
		if head, err := signer.Sign(content); err != nil || head != nil {
			return head, err
		}
	}
	return nil, nil
}

// signedOwn is a message that meta1 itself wrote behind its signatures, if it has any.
func (m *mta) signedOwn(content []byte) ([]byte, error) {
	head, err := m.signOwn(content)
	if err != nil || len(head) == 0 {
		return content, err
	}
	return append(head, content...), nil
}

// verifyDKIM reads the keys of all sections DKIM_signing, and adds the warnings to the result.
func (c *Config) verifyDKIM(result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	for _, s := range c.dkimSections() {
		errs = append(errs, verifySigning(result, s, files)...)
	}
	return errs
}

func verifySigning(result *confparse.Result, s dkimSection, files tlsconf.Files) (errs confparse.Errors) {
	world := func(path string) bool {
		mode, err := modeOf(path)
		return err == nil && mode&fs.FileMode(0o004) != 0
	}
	for _, f := range dkim.Check(s.config, files, world, time.Now()) {
		at, subject := s.path, s.path
		if f.Option != "" {
			at, subject = s.path+"/"+f.Option, "keyfile of "+s.path
		}
		if d := result.Diagnose(confparse.SeverityWarning, at, "%s: %s", subject, f.Text); f.Warning {
			result.Warnings = append(result.Warnings, d)
		} else {
			d.Severity = confparse.SeverityError
			errs = append(errs, d)
		}
	}
	return errs
}
