package server

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/server/pmilter"
)

// sectionMetrics are those that carry the name of a section as a label. A section that a reload has taken out is forgotten when
// the last session has ended that may still ask it.
type sectionMetrics struct {
	connections *prometheus.CounterVec   // of milters
	failures    *prometheus.CounterVec   // of milters
	verdicts    *prometheus.CounterVec   // of milters, and by verdict
	seconds     *prometheus.HistogramVec // of milters
	policies    *prometheus.CounterVec   // answers of policy services, by service and what follows
	checks      *prometheus.CounterVec   // refusals by sections check, by stage and action

	mu    sync.Mutex // guards users
	users map[*Server][]sectionLabel
}

// sectionLabel is a section of which there are metrics.
type sectionLabel struct {
	kind   labelKind
	name   string // of section check: the stage
	action string // of section check alone
}

type labelKind uint8

const (
	milterLabels labelKind = iota
	policyLabels
	checkLabels
)

// labels are the sections of a configuration.
func (c *Config) labels(f Filtering) (all []sectionLabel) {
	if c.MilterPresent {
		all = append(all, sectionLabel{kind: milterLabels, name: pmilter.Name})
	}
	for i := range f.Milters {
		all = append(all, sectionLabel{kind: milterLabels, name: f.Milters[i].Name})
	}
	for i := range f.PolicyServices {
		all = append(all, sectionLabel{kind: policyLabels, name: f.PolicyServices[i].Name})
	}
	for i := range c.Checks {
		all = append(all, sectionLabel{checkLabels, c.Checks[i].Stage, c.Checks[i].Action})
	}
	return all
}

// use says which sections a Server has, before anything of them is counted.
func (m *sectionMetrics) use(s *Server, labels []sectionLabel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users == nil {
		m.users = map[*Server][]sectionLabel{}
	}
	m.users[s] = labels
}

// release forgets the sections that no Server has but one that counts nothing any more.
func (m *sectionMetrics) release(s *Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	labels := m.users[s]
	delete(m.users, s)
	for _, l := range labels {
		if !m.usedLocked(l) {
			m.forgetLocked(l)
		}
	}
}

func (m *sectionMetrics) usedLocked(l sectionLabel) bool {
	for _, labels := range m.users {
		if slices.Contains(labels, l) {
			return true
		}
	}
	return false
}

func (m *sectionMetrics) forgetLocked(l sectionLabel) {
	switch l.kind {
	case milterLabels:
		m.connections.DeleteLabelValues(l.name)
		m.failures.DeleteLabelValues(l.name)
		m.verdicts.DeletePartialMatch(prometheus.Labels{"milter": l.name})
		m.seconds.DeleteLabelValues(l.name)
	case policyLabels:
		m.policies.DeletePartialMatch(prometheus.Labels{"service": l.name})
	case checkLabels:
		m.checks.DeleteLabelValues(l.name, l.action)
	}
}
