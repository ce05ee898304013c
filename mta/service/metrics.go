package service

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count the processes of all services, by the name of the service. Any goroutine may use them.
type Metrics struct {
	started *prometheus.CounterVec
	running *prometheus.GaugeVec
	failed  *prometheus.CounterVec

	mu       sync.Mutex // guards the following
	services map[string]*counted
}

// counted is a service of which there are metrics.
type counted struct {
	units int  // of it that run
	kept  bool // it is one of the configuration
}

// NewMetrics registers the metrics with r, which may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &Metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "meta1_mta_service_starts_total", Help: "Processes started for services."}, []string{"service"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "meta1_mta_service_processes", Help: "Processes of services that run."}, []string{"service"}),
		failed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "meta1_mta_service_failures_total", Help: "Processes of services that ended with an error."}, []string{"service"}),

		services: map[string]*counted{},
	}
	r.MustRegister(m.started, m.running, m.failed)
	return m
}

// Keep says which services there are from now on. The others are forgotten when the last of their units has ended, whose
// processes are counted until then.
func (m *Metrics) Keep(services []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.services {
		c.kept = false
	}
	for _, s := range services {
		m.ofLocked(s).kept = true
		m.failed.WithLabelValues(s) // it shows before it happens
	}
	for s := range m.services {
		m.tidyLocked(s)
	}
}

// during is the run of one unit of a service, all of whose processes begin and end within it.
func (m *Metrics) during(service string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		m.noteUnit(service, 1)
		defer m.noteUnit(service, -1)
		return run(ctx)
	}
}

// noteUnit counts the units of a service that run.
func (m *Metrics) noteUnit(service string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ofLocked(service).units += n
	m.tidyLocked(service)
}

func (m *Metrics) ofLocked(service string) *counted {
	c := m.services[service]
	if c == nil {
		c = &counted{}
		m.services[service] = c
	}
	return c
}

// tidyLocked forgets a service that has gone, if none of its units runs.
func (m *Metrics) tidyLocked(service string) {
	if c := m.services[service]; c.kept || c.units > 0 {
		return
	}
	delete(m.services, service)
	m.started.DeleteLabelValues(service)
	m.running.DeleteLabelValues(service)
	m.failed.DeleteLabelValues(service)
}
