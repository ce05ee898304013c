package mta

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/control"
	"meta1/mta/supervise"
	"meta1/server/authn"
	"meta1/server/authn/dmarc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/authn/verify"
)

// makeDMARCReports makes what counts mail and sends reports about DMARC, if a section smtps has
// dmarc_reports. All servers count for the same reports. It outlives the modules.
func (m *mta) makeDMARCReports() error {
	s := m.conf.ReportingServer()
	if s == nil {
		return nil
	}
	log, err := m.logs.logger(dmarcLog, &s.Of)
	if err != nil {
		return err
	}
	m.dmarcMade = m.newDMARCReports(&s.Server.Authentication.Reports, log, m.hub.fresh(dmarcLog))
	m.dmarcReports.Store(m.dmarcMade)
	return nil
}

// dmarcLog is the name of the reports about DMARC in the log, and of their registry of metrics.
const dmarcLog = "dmarcrpt"

func (m *mta) newDMARCReports(c *dmarcrpt.Config, log *slog.Logger, metrics prometheus.Registerer) *dmarcrpt.Reports {
	ask := authn.DNS{Port: m.ports.DNS}
	return dmarcrpt.New(*c, dmarcrpt.Deps{
		Ports: m.ports, Hostname: m.hostname, Version: m.setup.Version, Dir: filepath.Join(m.dir, "dmarcrpt"), Log: log, Metrics: metrics, Sign: m.signedOwn,
		Lookup: func(ctx context.Context, name string) dmarc.TXT { return verify.LookupTXT(ctx, ask, name) },
	})
}

// serveDMARCReports sends reports. A fault is logged; mail goes on without them.
func (m *mta) serveDMARCReports(side *supervise.Group) {
	if r := m.dmarcReports.Load(); r != nil {
		m.serveBeside(side, "reports about DMARC failed", r.Run)
	}
}

// dmarcReportsOf is what a section smtps counts mail with; nil for none.
func (m *mta) dmarcReportsOf(s *ServerSection) *dmarcrpt.Reports {
	if !s.Server.AuthenticationPresent || !s.Server.Authentication.Reports.Present {
		return nil
	}
	return m.dmarcMade
}

var errNoDMARCReports = errors.New("there are no reports about DMARC: no section authentication of smtps has dmarc_reports")

// DMARCReports lists the reports that are collected or wait to be sent.
func (m *mta) DMARCReports(_ context.Context, domain string) ([]dmarcrpt.Entry, error) {
	r := m.dmarcReports.Load()
	if r == nil {
		return nil, errNoDMARCReports
	}
	return r.List(domain), nil
}

// SendDMARCReports sends what waits at once.
func (m *mta) SendDMARCReports(ctx context.Context, q control.SendReports) (control.ReportsSent, error) {
	r := m.dmarcReports.Load()
	if r == nil {
		return control.ReportsSent{}, errNoDMARCReports
	}
	n, err := r.Send(ctx, q.Domain, q.Today)
	done := control.ReportsSent{Sent: n}
	if err != nil {
		done.Err = err.Error()
	}
	m.log.LogAttrs(ctx, levelNotice, "reports about DMARC were asked for", slog.String("domain", q.Domain), slog.Bool("today", q.Today), slog.Int("done", n))
	return done, nil
}
