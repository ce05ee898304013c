package client

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/histogram"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// count is a counter for the status and for Prometheus at once.
type count struct {
	n    atomic.Int64 // since this client was made
	prom prometheus.Counter
}

func (c *count) add(n int) {
	c.n.Add(int64(n))
	c.prom.Add(float64(n))
}

// metrics are the counters of the module.
type metrics struct {
	opened, refused             count // connections
	transactions, reused, stale count
	delivered, deferred, failed count // recipients
	bytes                       count
	seconds                     *histogram.Histogram
	idle, busy, threads         prometheus.Gauge
	tls                         [msg.TLSDANE + 1]prometheus.Counter // connections by level
	dane                        [daneResults]prometheus.Counter
	sts                         [stsResults]prometheus.Counter
	auth                        [authResults]prometheus.Counter
	unknown                     prometheus.Counter // recipients
	tlsResumed, tlsFailed       prometheus.Counter // sessions, handshakes
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
	m.stale.prom = counter(r, "meta1_smtpc_stale_total", "Open connections that turned out to be closed, or refused more mail, so that a new one was tried.")
	m.bytes.prom = counter(r, "meta1_smtpc_content_bytes_total", "Bytes of content of transactions that delivered to a recipient.")
	m.seconds = register(r, histogram.New(prometheus.HistogramOpts{
		Name: "meta1_smtpc_delivery_seconds", Help: "Time of a delivery attempt, with its connection.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 11), // to 524 s
		// Who asks for native histograms gets buckets that are 10 % wide.
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}))
	tls := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_tls_connections_total", Help: "Connections that were made, by the TLS that protects them.",
	}, []string{"level"}))
	for level := range m.tls {
		m.tls[level] = tls.WithLabelValues(msg.TLSLevel(level).String())
	}
	dane := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_dane_total", Help: "Handshakes under TLSA records, and mail that had none to go by, by result.",
	}, []string{"result"}))
	for result := range m.dane {
		m.dane[result] = dane.WithLabelValues(daneResult(result).String())
	}
	sts := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_mta_sts_total", Help: "Handshakes under an MTA-STS policy, by what the certificate was worth.",
	}, []string{"result"}))
	for result := range m.sts {
		m.sts[result] = sts.WithLabelValues(stsResult(result).String())
	}
	auth := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_auth_total", Help: "Logins at other hosts, by result.",
	}, []string{"result"}))
	for result := range m.auth {
		m.auth[result] = auth.WithLabelValues(authResult(result).String())
	}
	m.unknown = counter(r, "meta1_smtpc_recipients_unknown_total", "Recipients for whom the connection was lost after the final dot and before its reply: they are tried again, and may get the message twice.")
	m.tlsResumed = counter(r, "meta1_smtpc_tls_resumed_total", "Connections that resumed a TLS session.")
	m.tlsFailed = counter(r, "meta1_smtpc_tls_failures_total", "TLS handshakes that failed.")
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
