package mta

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"meta1/client/tlsrpt"
	"meta1/mta/control"
	"meta1/mta/exit"
	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// reportsAgain is the pause before reports are begun again after a fault.
const reportsAgain = time.Minute

// makeReports makes what counts sessions and sends reports about TLS. It does nothing before there is the section, and
// outlives the modules.
func (m *mta) makeReports() error {
	log, err := m.logs.logger("tlsrpt", &m.conf.ClientOf)
	if err != nil {
		return err
	}
	roots, err := m.stsRoots(m.conf)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	m.tlsMade = tlsrpt.New(m.conf.Client.TLSReports, tlsrpt.Deps{
		Ports: m.ports, Hostname: m.hostname, Dir: filepath.Join(m.dir, "tlsrpt"), Log: log, Metrics: m.hub.own, Roots: roots, Sign: m.signedOwn,
	})
	if m.conf.Client.TLSReports.Present {
		m.tlsReports.Store(m.tlsMade)
	}
	return nil
}

// tlsCounter is what the modules count sessions with; nil for none.
func (m *mta) tlsCounter(c *Config) msg.TLSCounter {
	if !c.Client.TLSReports.Present {
		return nil
	}
	return m.tlsMade
}

// serveReports sends reports. A fault is logged; mail goes on without them.
func (m *mta) serveReports(side *supervise.Group) {
	m.serveTLSReports(side)
	m.serveDMARCReports(side)
}

func (m *mta) serveTLSReports(side *supervise.Group) {
	if r := m.tlsReports.Load(); r != nil {
		m.serveBeside(side, "reports about TLS failed", r.Run)
	}
}

// serveBeside runs what mail does not need, again and again if it fails.
func (m *mta) serveBeside(side *supervise.Group, failure string, run func(context.Context) error) {
	side.Go(func(ctx context.Context) error {
		for ctx.Err() == nil {
			err := supervise.Call(ctx, run)
			if err == nil {
				return nil
			}
			m.log.LogAttrs(ctx, slog.LevelError, failure, slog.Any("error", err))
			select {
			case <-time.After(reportsAgain):
			case <-ctx.Done():
			}
		}
		return nil
	})
}

var errNoReports = errors.New("there are no reports about TLS: section smtpc has no tls_reports")

// TLSReports lists the reports that are collected or wait to be sent.
func (m *mta) TLSReports(_ context.Context, domain string) ([]tlsrpt.Entry, error) {
	r := m.tlsReports.Load()
	if r == nil {
		return nil, errNoReports
	}
	return r.List(domain), nil
}

// SendTLSReports sends what waits at once.
func (m *mta) SendTLSReports(ctx context.Context, q control.SendReports) (control.ReportsSent, error) {
	r := m.tlsReports.Load()
	if r == nil {
		return control.ReportsSent{}, errNoReports
	}
	n, err := r.Send(ctx, q.Domain, q.Today)
	done := control.ReportsSent{Sent: n}
	if err != nil {
		done.Err = err.Error()
	}
	m.log.LogAttrs(ctx, levelNotice, "reports about TLS were asked for", slog.String("domain", q.Domain), slog.Bool("today", q.Today), slog.Int("done", n))
	return done, nil
}
