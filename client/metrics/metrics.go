// Package metrics has the client's numbers, for Prometheus and for the status. It knows no connection: what is
// counted it is told.
package metrics

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/histogram"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Count is a counter for the status and for Prometheus at once. Any goroutine may use it.
type Count struct {
	n    atomic.Int64 // since this client was made
	prom prometheus.Counter
}

// Add counts n more.
func (c *Count) Add(n int) {
	c.n.Add(int64(n))
	c.prom.Add(float64(n))
}

// N is what was counted since these Metrics were made.
func (c *Count) N() int64 { return c.n.Load() }

// Metrics are the numbers of the module. Any goroutine may use them.
type Metrics struct {
	Opened, Refused             Count                               // connections
	Transactions, Reused, Stale Count                               // transactions; over a connection that was used before; connections that turned out to be of no use
	Delivered, Deferred, Failed Count                               // recipients
	Bytes                       Count                               // of content of transactions that delivered
	Seconds                     *histogram.Histogram                // of attempts
	TLS                         [msg.TLSDANE + 1]prometheus.Counter // connections by level
	DANE                        [DANEResults]prometheus.Counter
	STS                         [STSResults]prometheus.Counter
	Auth                        [AuthResults]prometheus.Counter
	Unknown                     prometheus.Counter // recipients
	TLSResumed, TLSFailed       prometheus.Counter // sessions, handshakes

	idle, busy, threads prometheus.Gauge
}

// New makes the metrics and registers them. Those that stand already, of a module that was restarted, go on; what
// cannot be registered counts and is not shown.
func New(r prometheus.Registerer) *Metrics {
	m := &Metrics{}
	connections := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_connects_total", Help: "Connections that were tried, by result.",
	}, []string{"result"}))
	m.Opened.prom = connections.WithLabelValues("connected")
	m.Refused.prom = connections.WithLabelValues("failed")
	rcpts := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_recipients_total", Help: "Recipients of delivery attempts, by result.",
	}, []string{"result"}))
	m.Delivered.prom = rcpts.WithLabelValues("delivered")
	m.Deferred.prom = rcpts.WithLabelValues("deferred")
	m.Failed.prom = rcpts.WithLabelValues("failed")
	m.Transactions.prom = counter(r, "meta1_smtpc_transactions_total", "Transactions that were begun.")
	m.Reused.prom = counter(r, "meta1_smtpc_reused_total", "Transactions over a connection that was open already.")
	m.Stale.prom = counter(r, "meta1_smtpc_stale_total", "Open connections that turned out to be closed, or refused more mail, so that a new one was tried.")
	m.Bytes.prom = counter(r, "meta1_smtpc_content_bytes_total", "Bytes of content of transactions that delivered to a recipient.")
	m.Seconds = register(r, histogram.New(prometheus.HistogramOpts{
		Name: "meta1_smtpc_delivery_seconds", Help: "Time of a delivery attempt, with its connection.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 11), // to 524 s
		// Who asks for native histograms gets buckets that are 10 % wide.
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}))
	tls := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_tls_connections_total", Help: "Connections that were made, by the TLS that protects them.",
	}, []string{"level"}))
	for level := range m.TLS {
		m.TLS[level] = tls.WithLabelValues(msg.TLSLevel(level).String())
	}
	dane := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_dane_total", Help: "Handshakes under TLSA records, and mail that had none to go by, by result.",
	}, []string{"result"}))
	for result := range m.DANE {
		m.DANE[result] = dane.WithLabelValues(DANEResult(result).String())
	}
	sts := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_mta_sts_total", Help: "Handshakes under an MTA-STS policy, by what the certificate was worth.",
	}, []string{"result"}))
	for result := range m.STS {
		m.STS[result] = sts.WithLabelValues(STSResult(result).String())
	}
	auth := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_smtpc_auth_total", Help: "Logins at other hosts, by result.",
	}, []string{"result"}))
	for result := range m.Auth {
		m.Auth[result] = auth.WithLabelValues(AuthResult(result).String())
	}
	m.Unknown = counter(r, "meta1_smtpc_recipients_unknown_total", "Recipients for whom the connection was lost after the final dot and before its reply: they are tried again, and may get the message twice.")
	m.TLSResumed = counter(r, "meta1_smtpc_tls_resumed_total", "Connections that resumed a TLS session.")
	m.TLSFailed = counter(r, "meta1_smtpc_tls_failures_total", "TLS handshakes that failed.")
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

// Connections notes how many connections and workers there are now.
func (m *Metrics) Connections(idle, busy, threads int) {
	m.idle.Set(float64(idle))
	m.busy.Set(float64(busy))
	m.threads.Set(float64(threads))
}

// Recipients counts the results of one answer and reports whether there was a success.
func (m *Metrics) Recipients(rcpts []smtp.Reply) (success bool) {
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
		count *Count
		n     int
	}{{&m.Delivered, delivered}, {&m.Deferred, deferred}, {&m.Failed, failed}} {
		if c.n > 0 {
			c.count.Add(c.n)
		}
	}
	return delivered > 0
}
