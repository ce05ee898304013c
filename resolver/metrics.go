package resolver

import (
	"cmp"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/resolver/srs"
)

// metrics are the module's counters, each made once so that counting is one atomic
// addition.
type metrics struct {
	routeStatic, routeDNS prometheus.Counter
	checks                [msg.StageSender + 1][msg.Discard + 1]prometheus.Counter

	tlsaFound, tlsaNone, tlsaFailed prometheus.Counter

	refusals   *prometheus.CounterVec // by check and action
	srsResults *prometheus.CounterVec

	all []prometheus.Collector
}

func newMetrics(h *hall) *metrics {
	routes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smar_routes_total", Help: "Routes given, by where they came from.",
	}, []string{"source"})
	checks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smar_checks_total", Help: "Verdicts, by stage and action.",
	}, []string{"stage", "action"})
	tlsa := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smar_tlsa_total", Help: "Questions for the TLSA records of a mail host, by result.",
	}, []string{"result"})
	m := &metrics{
		routeStatic: routes.WithLabelValues("static"),
		routeDNS:    routes.WithLabelValues("dns"),
		tlsaFound:   tlsa.WithLabelValues("found"),
		tlsaNone:    tlsa.WithLabelValues("none"),
		tlsaFailed:  tlsa.WithLabelValues("failed"),
	}
	for stage := range m.checks {
		for action, name := range actionWords() {
			m.checks[stage][action] = checks.WithLabelValues(msg.Stage(stage).String(), name)
		}
	}
	m.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smar_refusals_total", Help: "Verdicts that refuse or discard, by the check that decided.",
	}, []string{"check", "action"})
	m.refusals.WithLabelValues("relay", actionWords()[msg.Reject]) // it shows before it happens
	m.srsResults = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smar_srs_total", Help: "Addresses by SRS that came back, in commands and in the queue: reversed, expired, forged, malformed.",
	}, []string{"result"})
	for _, result := range srsWords() {
		m.srsResults.WithLabelValues(result)
	}
	m.all = append(h.gauges(), routes, checks, m.refusals, tlsa, m.srsResults)
	return m
}

// register shows the metrics while the module runs; a restarted one takes the same
// names again.
func (m *metrics) register(reg prometheus.Registerer) error {
	for _, c := range m.all {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("smar: registering metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) unregister(reg prometheus.Registerer) {
	for _, c := range m.all {
		reg.Unregister(c)
	}
}

// actionWords are the words of the metrics for each msg.Action.
func actionWords() [msg.Discard + 1]string { return [...]string{"accept", "reject", "discard"} }

// checked counts a verdict.
func (m *metrics) checked(stage msg.Stage, v *msg.Verdict) {
	m.checks[stage][v.Action].Inc()
	if v.Action != msg.Accept {
		m.refusals.WithLabelValues(cmp.Or(v.Decision().Check, "other"), actionWords()[v.Action]).Inc()
	}
}

// srs counts an address that was to be reversed.
func (m *metrics) srs(err error) {
	words := srsWords()
	result := words[len(words)-1]
	switch err {
	case nil:
		result = words[0]
	case srs.ErrExpired:
		result = words[1]
	case srs.ErrHash:
		result = words[2]
	}
	m.srsResults.WithLabelValues(result).Inc()
}

// srsWords are the results that are counted: reversed, expired, forged, and not in the form of SRS.
func srsWords() [4]string { return [...]string{"reversed", "expired", "forged", "malformed"} }

// answered counts an answer about TLSA records.
func (m *metrics) answered(a *msg.TLSAA) {
	switch {
	case !a.Reply.IsZero():
		m.tlsaFailed.Inc()
	case len(a.Records) > 0:
		m.tlsaFound.Inc()
	default:
		m.tlsaNone.Inc()
	}
}

// gauges are read when they are asked for.
func (h *hall) gauges() []prometheus.Collector {
	counter := func(name, help string, f func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	gauge := func(name, help string, f func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	return []prometheus.Collector{
		counter("meta1_smar_dns_lookups_total", "Lookups in DNS, the cache included.", func() int64 { return h.now.Load().dns.Stats().Lookups }),
		counter("meta1_smar_dns_cache_hits_total", "Lookups that the cache answered.", func() int64 { return h.now.Load().dns.Stats().Hits }),
		counter("meta1_smar_dns_queries_total", "Questions sent to name servers.", func() int64 { return h.now.Load().dns.Stats().Queries }),
		counter("meta1_smar_dns_failures_total", "Lookups that no name server answered.", func() int64 { return h.now.Load().dns.Stats().Failures }),
		gauge("meta1_smar_dns_cache_bytes", "Estimated memory of the DNS cache.", func() int64 { return h.now.Load().dns.Stats().Bytes }),
		gauge("meta1_smar_waiting_questions", "Questions that wait for DNS or a socket map.", h.slow.Load),
	}
}
