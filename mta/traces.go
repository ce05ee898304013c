package mta

import (
	"meta1/mta/supervise"
	"meta1/mta/tracing"
)

// makeTracer makes what tells a collector of messages, if the section is there. It outlives the modules.
func (m *mta) makeTracer() error {
	if !m.conf.Traces.Present {
		return nil
	}
	log, err := m.logs.logger("traces", &m.conf.QueueOf)
	if err != nil {
		return err
	}
	m.tracer, err = tracing.New(m.conf.Traces, tracing.Deps{
		Log: log, Metrics: m.hub.own, Hostname: m.hostname, Version: m.setup.Version, Spool: m.dir, ReadFile: m.readToken,
	})
	return exit(ExConfig, err)
}

// serveTraces sends what is traced.
func (m *mta) serveTraces(side *supervise.Group) {
	if m.tracer != nil {
		m.serveBeside(side, "traces failed", m.tracer.Run)
	}
}
