package mta

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"meta1/mta/control"
	"meta1/server/authn"
	"meta1/server/authn/dmarc"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/authn/verify"
)

// makeDMARCReports makes what counts mail and sends reports about DMARC, if a section smtps has
// dmarc_reports. All servers count for the same reports. It outlives the modules.
func (m *mta) makeDMARCReports() error {
	for _, s := range m.conf.Servers {
		c := &s.Server.Authentication
		if !s.Server.AuthenticationPresent || !c.Reports.Present {
			continue
		}
		log, err := m.logs.logger("dmarcrpt", &s.Of)
		if err != nil {
			return err
		}
		ask := authn.DNS{Port: m.ports.DNS}
		m.dmarcReports = dmarcrpt.New(c.Reports, dmarcrpt.Deps{
			Ports: m.ports, Hostname: m.hostname, Version: m.setup.Version, Dir: filepath.Join(m.dir, "dmarcrpt"), Log: log, Metrics: m.hub.own, Sign: m.signedOwn,
			Lookup: func(ctx context.Context, name string) dmarc.TXT { return verify.LookupTXT(ctx, ask, name) },
		})
		return nil
	}
	return nil
}

// dmarcReportsOf is what a section smtps counts mail with; nil for none.
func (m *mta) dmarcReportsOf(s *ServerSection) *dmarcrpt.Reports {
	if !s.Server.Authentication.Reports.Present {
		return nil
	}
	return m.dmarcReports
}

var errNoDMARCReports = errors.New("there are no reports about DMARC: no section authentication of smtps has dmarc_reports")

// DMARCReports lists the reports that are collected or wait to be sent.
func (m *mta) DMARCReports(_ context.Context, domain string) ([]dmarcrpt.Entry, error) {
	if m.dmarcReports == nil {
		return nil, errNoDMARCReports
	}
	return m.dmarcReports.List(domain), nil
}

// SendDMARCReports sends what waits at once.
func (m *mta) SendDMARCReports(ctx context.Context, q control.SendReports) (control.ReportsSent, error) {
	if m.dmarcReports == nil {
		return control.ReportsSent{}, errNoDMARCReports
	}
	n, err := m.dmarcReports.Send(ctx, q.Domain, q.Today)
	done := control.ReportsSent{Sent: n}
	if err != nil {
		done.Err = err.Error()
	}
	m.log.LogAttrs(ctx, levelNotice, "reports about DMARC were asked for", slog.String("domain", q.Domain), slog.Bool("today", q.Today), slog.Int("done", n))
	return done, nil
}
