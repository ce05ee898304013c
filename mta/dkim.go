package mta

import (
	"fmt"
	"io/fs"
	"time"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/settings"
	"meta1/mta/tlsconf"
	"meta1/server/dkim"
)

// loadDKIM reads the keys of all sections DKIM_signing. It is called before the privileges are
// dropped, after loadTLS.
func (m *mta) loadDKIM() error {
	m.dkim = map[string]*dkim.Signer{}
	for _, s := range m.conf.DKIMSections() {
		signer, err := dkim.New(s.Config, dkim.Deps{Name: s.Name, Files: m.tlsFiles})
		if err != nil {
			return exit.With(exit.Config, fmt.Errorf("section %s: %w", s.Path, err))
		}
		m.dkim[s.Name] = signer
	}
	return nil
}

// signOwn makes the signatures of a message that meta1 itself wrote: the header fields that
// go on top of it, none if no section has a key for it.
func (m *mta) signOwn(content []byte) ([]byte, error) {
	m.mu.Lock()
	signers := m.dkim
	m.mu.Unlock()
	for _, s := range m.current().conf.DKIMSections() {
		signer := signers[s.Name]
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
func verifyDKIM(c *Config, result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	for _, s := range c.DKIMSections() {
		errs = append(errs, verifySigning(result, s, files)...)
	}
	return errs
}

func verifySigning(result *confparse.Result, s settings.DKIMSection, files tlsconf.Files) (errs confparse.Errors) {
	world := func(path string) bool {
		mode, err := modeOf(path)
		return err == nil && mode&fs.FileMode(0o004) != 0
	}
	for _, f := range dkim.Check(s.Config, files, world, time.Now()) {
		at, subject := s.Path, s.Path
		if f.Option != "" {
			at, subject = s.Path+"/"+f.Option, "keyfile of "+s.Path
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
