package mta

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"meta1/confparse"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/server/authn/arc"
	"meta1/server/dkim"
)

// arcSection is one section ARC_sealing of the configuration.
type arcSection struct {
	name   string // of the server section: "smtps MSA"
	path   string // of the section itself in confparse.Result
	config arc.Config
}

// arcSections are all that stand in the configuration, in its order.
func (c *Config) arcSections() []arcSection {
	var all []arcSection
	for _, s := range c.Servers {
		if s.Server.ARCPresent {
			all = append(all, arcSection{s.Of.Section, s.Of.Section + "/ARC_sealing", s.Server.ARC})
		}
	}
	return all
}

// loadARC reads the keys of the section ARC_sealing. It is called before the privileges are dropped, after
// loadTLS. The queue has one sealer, since it no longer knows by which server a message came in; that there
// is only one section is checked.
func (m *mta) loadARC() error {
	for _, s := range m.conf.arcSections() {
		host := m.conf.Hostname
		if host == "" {
			host = ownHostname(context.Background())
		}
		sealer, err := arc.NewSealer(s.config, dkim.Deps{Name: s.name + " ARC_sealing", Files: m.tlsFiles}, host)
		if err != nil {
			return exit(ExConfig, fmt.Errorf("section %s: %w", s.path, err))
		}
		m.arc = sealer
	}
	return nil
}

// seal is what QMGR calls for mail that is forwarded; nil without section ARC_sealing.
func (m *mta) seal() func(io.Reader) ([]byte, string, error) {
	if m.arc == nil {
		return nil
	}
	return func(message io.Reader) ([]byte, string, error) {
		head, made, err := m.arc.Seal(message)
		return head, made.String(), err
	}
}

// verifyARC reads the keys of all sections ARC_sealing, and adds the warnings to the result.
func (c *Config) verifyARC(result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	world := func(path string) bool {
		mode, err := modeOf(path)
		return err == nil && mode&fs.FileMode(0o004) != 0
	}
	for i, s := range c.arcSections() {
		if i > 0 {
			errs = append(errs, result.Diagnose(confparse.SeverityError, s.path, "%s: another server section has ARC_sealing already, and mail that is forwarded is sealed by one", s.path))
		}
		for _, f := range arc.Check(s.config, files, world, time.Now()) {
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
	}
	return errs
}

// watchARC looks for renewed keys.
func (m *mta) watchARC(side *supervise.Group) {
	if m.arc != nil {
		side.Go(func(ctx context.Context) error { return m.arc.Run(ctx, m.log) })
	}
}
