package tracing

import "github.com/prometheus/client_golang/prometheus"

// Why spans were dropped.
const (
	dropFull        = iota // there was no room
	dropUnreachable        // the collector did not take them for too long
	dropRefused            // the collector said no
	drops
)

type metrics struct {
	sent     prometheus.Counter
	dropped  [drops]prometheus.Counter
	failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, waiting func() float64) *metrics {
	m := &metrics{
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_trace_spans_sent_total", Help: "Spans that the collector has taken."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_trace_requests_failed_total", Help: "Requests to the collector that failed."}),
	}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "meta1_trace_spans_dropped_total", Help: "Spans that were given up, by reason."}, []string{"reason"})
	for i, reason := range [...]string{"full", "unreachable", "refused"} {
		m.dropped[i] = dropped.WithLabelValues(reason)
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "meta1_trace_spans_waiting", Help: "Spans that wait to be sent."}, waiting)
	if reg != nil {
		reg.MustRegister(m.sent, m.failures, dropped, queue)
	}
	return m
}
