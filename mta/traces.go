package mta

import (
	"meta1/mta/exit"
	"meta1/mta/supervise"
	"meta1/mta/tracing"
)

// makeTracer makes what tells a collector of messages, which is off without the section. It outlives the modules.
func (m *mta) makeTracer() error {
	log, err := m.logs.logger("traces", &m.conf.QueueOf)
	if err != nil {
		return err
	}
	m.tracer, err = tracing.New(m.conf.Traces, tracing.Deps{
		Log: log, Metrics: m.hub.own, Hostname: m.hostname, Version: m.setup.Version, Spool: m.dir, ReadFile: m.readToken,
	})
	return exit.With(exit.Config, err)
}

// serveTraces sends what is traced.
func (m *mta) serveTraces(side *supervise.Group) {
	m.serveBeside(side, "traces failed", m.tracer.Run)
}
