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
	"meta1/mta/service"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/server"
)

// tlsSection is one section tls of the configuration, with its place in it.
type tlsSection struct {
	name    string // of the module section: "smtps MSA", "smtpc", "smtpc/session_features a"
	path    string // of the section itself in confparse.Result
	role    tlsconf.Role
	section tlsconf.Section
	class   *tlsconf.Class // of session_features, which section has over that of smtpc
}

// tlsSections are all that stand in the configuration, by name. That of smtpc is always one
// of them: SMTPC uses STARTTLS without a section, too (README 11.1).
func (c *Config) tlsSections() []tlsSection {
	all := []tlsSection{{name: "smtpc", path: "smtpc/tls", role: tlsconf.Client, section: c.Client.TLS}}
	for i := range c.Client.SessionFeatures {
		f := &c.Client.SessionFeatures[i]
		if !f.TLS.IsZero() {
			name := "smtpc/session_features " + f.Name
			all = append(all, tlsSection{name, name + "/tls", tlsconf.Client, f.TLS.Over(c.Client.TLS), &f.TLS})
		}
	}
	if c.Control.HTTP.TLSPresent {
		all = append(all, tlsSection{forHTTP, forHTTP + "/tls", tlsconf.Server, c.Control.HTTP.TLS, nil})
	}
	for _, s := range c.Servers {
		if s.Server.TLSPresent {
			all = append(all, tlsSection{s.Of.Section, s.Of.Section + "/tls", tlsconf.Server, s.Server.TLS, nil})
		}
	}
	return all
}

// loadTLS loads what all sections tls name. It is called before the privileges are dropped.
func (m *mta) loadTLS() error {
	m.tlsFiles = m.conf.filesFor(m.account, m.result)
	m.tls = map[string]*tlsconf.Provider{}
	for _, s := range m.conf.tlsSections() {
		p, err := tlsconf.New(s.section, tlsconf.Deps{Role: s.role, Name: s.name, Files: m.tlsFiles})
		if err != nil {
			return exit(ExConfig, fmt.Errorf("section %s: %w", s.name, err))
		}
		m.tls[s.name] = p
	}
	for _, s := range m.conf.logins() { // so that the monitor is there if a token takes root to read
		if path := s.auth.TokenFile; path != "" {
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
func (c *Config) verifyTLS(result *confparse.Result, files tlsconf.Files) (errs confparse.Errors) {
	name := c.Hostname
	for _, s := range c.tlsSections() {
		if s.role == tlsconf.Client && !c.Client.TLSPresent && s.class == nil {
			continue // it has nothing but defaults
		}
		if name == "" {
			name = ownHostname(context.Background())
		}
		errs = append(errs, verifySection(result, s, files, name)...)
	}
	return errs
}

// verifySection checks one section tls of a host.
func verifySection(result *confparse.Result, s tlsSection, files tlsconf.Files, hostname string) (errs confparse.Errors) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = nil // a system without any
	}
	for _, f := range tlsconf.Check(s.section, tlsconf.CheckQ{
		Role: s.role, Files: files, Now: time.Now(), Hostname: hostname, Mode: modeOf, Roots: roots,
	}) {
		if s.class != nil && !s.class.Has(f.Option) {
			continue // it is told of the section that has it
		}
		at, subject := s.path, s.path
		if f.Option != "" {
			at, subject = s.path+"/"+f.Option, f.Option+" of "+s.path
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
