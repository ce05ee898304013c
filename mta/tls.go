package mta

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/confparse"
	"meta1/mta/exit"
	"meta1/mta/service"
	"meta1/mta/settings"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/server"
)

// loadTLS loads what all sections tls name. It is called before the privileges are dropped.
func (m *mta) loadTLS() error {
	m.tlsFiles = filesFor(m.conf, m.account, m.result)
	m.tls = map[string]*tlsconf.Provider{}
	for _, s := range m.conf.TLSSections() {
		p, err := tlsconf.New(s.Section, tlsconf.Deps{Role: s.Role, Name: s.Name, Files: m.tlsFiles})
		if err != nil {
			return exit.With(exit.Config, fmt.Errorf("section %s: %w", s.Name, err))
		}
		m.tls[s.Name] = p
	}
	for _, s := range m.conf.Logins() { // so that the monitor is there if a token takes root to read
		if path := s.Auth.TokenFile; path != "" {
			_, _ = m.readToken(path) // what is wrong is told with the warnings
		}
	}
	return nil
}

// provider is that of a section tls; nil: there is no such section.
func (m *mta) provider(name string) *tlsconf.Provider {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tls[name]
}

// tlsOfServer is what the section tls of a server gives; nil without a certificate.
func (m *mta) tlsOfServer(name string) server.TLSSource {
	if p := m.provider(name); p != nil && p.ServerConfig() != nil {
		return p
	}
	return nil
}

// readBy reads files that only root may read by the monitor.
func readBy(r *service.Remote) func(path string, known tlsconf.Stamp) ([]byte, tlsconf.Stamp, error) {
	return func(path string, known tlsconf.Stamp) ([]byte, tlsconf.Stamp, error) {
		content, now, err := r.Read(path, string(known))
		return content, tlsconf.Stamp(now), err
	}
}

// verifyTLS checks all sections tls that stand in the configuration, and adds the warnings to
// the result.
func verifyTLS(c *Config, result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	name := c.Hostname
	for _, s := range c.TLSSections() {
		if s.Role == tlsconf.Client && !c.Client.TLSPresent && s.Class == nil {
			continue // it has nothing but defaults
		}
		if name == "" {
			name = settings.OwnHostname(context.Background())
		}
		errs = append(errs, verifySection(result, s, files, name)...)
	}
	return errs
}

// verifySection checks one section tls of a host.
func verifySection(result *confparse.Result, s settings.TLSSection, files tlsconf.Files, hostname string) (errs confparse.Errors) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = nil // a system without any
	}
	for _, f := range tlsconf.Check(s.Section, tlsconf.CheckQ{
		Role: s.Role, Files: files, Now: time.Now(), Hostname: hostname, Mode: modeOf, Roots: roots,
	}) {
		if s.Class != nil && !s.Class.Has(f.Option) {
			continue // it is told of the section that has it
		}
		at, subject := s.Path, s.Path
		if f.Option != "" {
			at, subject = s.Path+"/"+f.Option, f.Option+" of "+s.Path
		}
		d := result.Diagnose(severity(f), at, "%s: %s", subject, f.Text)
		if f.Warning {
			result.Warnings = append(result.Warnings, d)
		} else {
			errs = append(errs, d)
		}
	}
	return errs
}

func severity(f tlsconf.Fault) confparse.Severity {
	if f.Warning {
		return confparse.SeverityWarning
	}
	return confparse.SeverityError
}

func modeOf(path string) (fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Mode(), nil
}

// watch looks for renewed certificates and keys, and warns of those that expire.
func (m *mta) watch(side *supervise.Group) {
	m.mu.Lock()
	m.watchers.side = side
	m.mu.Unlock()
	m.useTLS(m.tls)
	m.useDKIM(m.dkim)
	m.useARC(m.arc.Load())
}

// tlsCollector tells of the certificates of all sections tls.
type tlsCollector struct{ m *mta }

// Describe and Collect make it a prometheus.Collector.
func (c tlsCollector) Describe(d chan<- *prometheus.Desc) { tlsconf.Collector(nil).Describe(d) }

// Collect shows those in use.
func (c tlsCollector) Collect(to chan<- prometheus.Metric) {
	c.m.mu.Lock()
	list := slices.Collect(maps.Values(c.m.tls))
	c.m.mu.Unlock()
	tlsconf.Collector(list).Collect(to)
}
