package client

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/smtp"
)

// count is a counter for the status and for Prometheus at once.
type count struct {
	n    atomic.Int64
	prom prometheus.Counter
}

func (c *count) add(n int) {
	c.n.Add(int64(n))
	c.prom.Add(float64(n))
}

// String is the count since this client was made.
func (c *count) String() string { return strconv.FormatInt(c.n.Load(), 10) }

// metrics are the counters of the module.
type metrics struct {
	opened, refused             count // connections
	transactions, reused, stale count
	delivered, deferred, failed count // recipients
	bytes                       count
	seconds                     prometheus.Histogram
	idle, busy, threads         prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{}
	connections := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_connects_total", Help: "Connections that were tried, by result.",
	}, []string{"result"}))
	m.opened.prom = connections.WithLabelValues("connected")
	m.refused.prom = connections.WithLabelValues("failed")
	rcpts := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_recipients_total", Help: "Recipients of delivery attempts, by result.",
	}, []string{"result"}))
	m.delivered.prom = rcpts.WithLabelValues("delivered")
	m.deferred.prom = rcpts.WithLabelValues("deferred")
	m.failed.prom = rcpts.WithLabelValues("failed")
	m.transactions.prom = counter(r, "meta1_smtpc_transactions_total", "Transactions that were begun.")
	m.reused.prom = counter(r, "meta1_smtpc_reused_total", "Transactions over a connection that was open already.")
	m.stale.prom = counter(r, "meta1_smtpc_stale_total", "Open connections that turned out to be closed when they were used again.")
	m.bytes.prom = counter(r, "meta1_smtpc_content_bytes_total", "Bytes of content of transactions that delivered to a recipient.")
	m.seconds = register(r, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meta1_smtpc_delivery_seconds", Help: "Time of a delivery attempt, with its connection.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 11), // to 524 s
	}))
	states := register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "meta1_smtpc_connections", Help: "Open connections, by state.",
	}, []string{"state"}))
	m.idle, m.busy = states.WithLabelValues("idle"), states.WithLabelValues("busy")
	m.threads = register(r, prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "meta1_smtpc_threads", Help: "Workers, whether at work or waiting.",
	}))
	return m
}

func counter(r prometheus.Registerer, name, help string) prometheus.Counter {
	return register(r, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

// register gives the collector that stands already if the module was restarted. Any
// other refusal leaves a collector that counts and is not shown.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	var already prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func (m *metrics) connections(idle, busy, threads int) {
	m.idle.Set(float64(idle))
	m.busy.Set(float64(busy))
	m.threads.Set(float64(threads))
}

// recipients counts the results of one answer and reports whether there was a success.
func (m *metrics) recipients(rcpts []smtp.Reply) (success bool) {
	var delivered, deferred, failed int
	for i := range rcpts {
		switch code := rcpts[i].Code; {
		case code < 300:
			delivered++
		case code < 500:
			deferred++
		default:
			failed++
		}
	}
	for _, c := range [...]struct {
		count *count
		n     int
	}{{&m.delivered, delivered}, {&m.deferred, deferred}, {&m.failed, failed}} {
		if c.n > 0 {
			c.count.add(c.n)
		}
	}
	return delivered > 0
}
