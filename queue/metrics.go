package queue

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the queue's numbers for Prometheus.
type metrics struct {
	reg       prometheus.Registerer
	all       []prometheus.Collector
	accepted  prometheus.Counter
	delivered prometheus.Counter
	deferred  prometheus.Counter
	bounced   prometheus.Counter
	throttled prometheus.Counter
	commits   prometheus.Counter
	syncTime  prometheus.Histogram
}

func newMetrics(q *Queue, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{reg: reg}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_qmgr_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "meta1_qmgr_" + name, Help: help}, f))
	}
	m.accepted = counter("accepted_total", "Messages accepted and durable.")
	m.delivered = counter("delivered_total", "Recipients delivered.")
	m.deferred = counter("deferred_total", "Failed attempts after which a recipient was deferred.")
	m.bounced = counter("bounced_total", "Recipients that failed for good.")
	m.throttled = counter("throttled_total", "Transactions that had to wait because the active queue was full.")
	m.commits = counter("commits_total", "Synced commits to the IBDB.")
	m.syncTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meta1_qmgr_commit_seconds", Help: "Time of a synced commit to the IBDB.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	})
	m.all = append(m.all, m.syncTime)
	gauge("active_recipients", "Recipients in the active queue.", func() float64 { return float64(q.entries.Load()) })
	shown := func(name, help string, v *atomic.Int64) {
		gauge(name, help, func() float64 { return float64(v.Load()) })
	}
	shown("waiting_recipients", "Recipients in the DEFEDB that wait for their next time to try, held ones included.", &q.gauges.waiting)
	shown("deliveries", "Delivery attempts that run.", &q.gauges.inflight)
	shown("destinations", "Destinations in the active queue.", &q.gauges.dests)
	shown("closed_hosts", "Hosts that failed and are not tried for a while.", &q.gauges.closed)
	shown("oldest_message_timestamp_seconds", "Arrival of the oldest message in the queue, 0 if there is none.", &q.gauges.oldest)
	gauge("content_memory_bytes", "Content held in memory.", func() float64 { return float64(q.memory.Load()) })
	gauge("disk_room_bytes", "Free disk space above disk_space_min.", func() float64 { return float64(q.space.room.Load()) })
	gauge("accepting", "1 while mail is accepted.", func() float64 {
		if q.Accepting() != nil {
			return 0
		}
		return 1
	})
	if reg == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return nil, err
		}
	}
	return m, nil
}

// unregister makes room for the metrics of the next instance.
func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

// commit counts a commit of n messages.
func (m *metrics) commit(n int, d time.Duration) {
	m.accepted.Add(float64(n))
	m.commits.Inc()
	m.syncTime.Observe(d.Seconds())
}
