package mta

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/settings"
	"meta1/mta/tlsconf"
	"meta1/server/authn/arc"
	"meta1/server/dkim"
)

// loadARC reads the keys of the section ARC_sealing. It is called before the privileges are dropped, after
// loadTLS. The queue has one sealer, since it no longer knows by which server a message came in; that there
// is only one section is checked.
func (m *mta) loadARC() error {
	for _, s := range m.conf.ARCSections() {
		sealer, err := m.newSealer(s)
		if err != nil {
			return exit.With(exit.Config, fmt.Errorf("section %s: %w", s.Path, err))
		}
		m.arc.Store(sealer)
	}
	return nil
}

// newSealer loads the keys of a section.
func (m *mta) newSealer(s settings.ARCSection) (*arc.Sealer, error) {
	host := m.conf.Hostname
	if host == "" {
		host = settings.OwnHostname(context.Background())
	}
	return arc.NewSealer(s.Config, dkim.Deps{Name: s.Name + " ARC_sealing", Files: m.tlsFiles}, host)
}

// useARC has another sealer seal, nil for none, and looks for renewed keys of it.
func (m *mta) useARC(sealer *arc.Sealer) {
	m.arc.Store(sealer)
	m.mu.Lock()
	defer m.mu.Unlock()
	if sealer != nil {
		m.watchers.keep(sealer, func(ctx context.Context) error { return sealer.Run(ctx, m.log) })
	}
	m.watchers.endOthers(func(what any) bool {
		s, is := what.(*arc.Sealer)
		return is && s != sealer
	})
}

// seal is what QMGR calls for mail that is forwarded. Without section ARC_sealing it makes nothing.
func (m *mta) seal(message io.Reader) ([]byte, string, error) {
	sealer := m.arc.Load()
	if sealer == nil {
		return nil, "", nil
	}
	head, made, err := sealer.Seal(message)
	return head, made.String(), err
}

// verifyARC reads the keys of all sections ARC_sealing, and adds the warnings to the result.
func verifyARC(c *Config, result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	world := func(path string) bool {
		mode, err := modeOf(path)
		return err == nil && mode&fs.FileMode(0o004) != 0
	}
	for i, s := range c.ARCSections() {
		if i > 0 {
			errs = append(errs, result.Diagnose(confparse.SeverityError, s.Path, "%s: another server section has ARC_sealing already, and mail that is forwarded is sealed by one", s.Path))
		}
		for _, f := range arc.Check(s.Config, files, world, time.Now()) {
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
	}
	return errs
}
