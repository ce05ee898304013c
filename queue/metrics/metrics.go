// Package metrics has the queue's numbers for Prometheus. It knows no queue: what is counted it is told,
// and what is there now it reads from Gauges and Sources.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/histogram"
	"meta1/mta/msg"
)

// What became of messages to be sealed.
const (
	sealMade = "sealed"
	sealNot  = "not"
)

// Sources are asked when the numbers are read, by any goroutine.
type Sources struct {
	Active    func() int   // recipients in the active queue
	Memory    func() int64 // bytes of content in memory
	Room      func() int64 // bytes of free disk space above disk_space_min
	Accepting func() error // nil while mail is accepted
}

// Metrics are the numbers of one instance of the queue. Any goroutine may call its methods.
type Metrics struct {
	Delays Delays

	reg       prometheus.Registerer
	all       []prometheus.Collector
	accepted  prometheus.Counter
	throttled prometheus.Counter
	commits   prometheus.Counter
	syncTime  prometheus.Histogram
	sealed    *prometheus.CounterVec
	batch     histogram.Batch // for syncTime and Delays
}

// New makes the numbers and registers them with reg, if it is not nil. The gauges are read as long as they
// are registered. After an error nothing is registered.
func New(g *Gauges, src Sources, reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{reg: reg}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_qmgr_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "meta1_qmgr_" + name, Help: help}, f))
	}
	m.accepted = counter("accepted_total", "Messages accepted and durable.")
	total := func(name, help string, v *atomic.Int64) {
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "meta1_qmgr_" + name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	total("delivered_total", "Recipients delivered.", &g.Delivered)
	total("deferred_total", "Failed attempts after which a recipient was deferred.", &g.Deferred)
	total("bounced_total", "Recipients that failed for good.", &g.Bounced)
	m.throttled = counter("throttled_total", "Transactions that had to wait because the active queue was full.")
	m.commits = counter("commits_total", "Synced commits of the store.")
	m.syncTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meta1_qmgr_commit_seconds", Help: "Time of a synced commit of the store.",
		Buckets:                     prometheus.ExponentialBuckets(0.0001, 2, 16),
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	})
	m.sealed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_qmgr_arc_messages_total", Help: "Messages forwarded by an alias to be sealed by ARC: sealed, or not.",
	}, []string{"result"})
	for _, result := range []string{sealMade, sealNot} {
		m.sealed.WithLabelValues(result)
	}
	m.Delays = newDelays(&m.batch)
	m.all = append(m.all, m.sealed)
	for _, c := range []prometheus.Collector{m.syncTime, m.Delays.stages, m.Delays.whole} {
		m.all = append(m.all, m.batch.Collector(c))
	}
	gauge("active_recipients", "Recipients in the active queue.", func() float64 { return float64(src.Active()) })
	shown := func(name, help string, v *atomic.Int64) {
		gauge(name, help, func() float64 { return float64(v.Load()) })
	}
	shown("set_aside_records", "Records that could not be decoded and are kept aside.", &g.AsideNow)
	shown("waiting_recipients", "Deferred recipients that wait for their next time to try, held ones included.", &g.Waiting)
	shown("deliveries", "Delivery attempts that run.", &g.Inflight)
	shown("destinations", "Destinations in the active queue.", &g.Dests)
	shown("closed_hosts", "Hosts that failed and are not tried for a while.", &g.Closed)
	shown("oldest_message_timestamp_seconds", "Arrival of the oldest message in the queue, 0 if there is none.", &g.Oldest)
	gauge("content_memory_bytes", "Content held in memory, that which is being received included.", func() float64 { return float64(src.Memory()) })
	gauge("disk_room_bytes", "Free disk space above disk_space_min.", func() float64 { return float64(src.Room()) })
	gauge("accepting", "1 while mail is accepted.", func() float64 {
		if src.Accepting() != nil {
			return 0
		}
		return 1
	})
	m.all = append(m.all, providerMetrics{g})
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

// Unregister makes room for the metrics of the next instance.
func (m *Metrics) Unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

// Throttle counts a transaction that has to wait.
func (m *Metrics) Throttle() { m.throttled.Inc() }

// Seal counts a message to be sealed, whether it was or not.
func (m *Metrics) Seal(made bool) {
	result := sealNot
	if made {
		result = sealMade
	}
	m.sealed.WithLabelValues(result).Inc()
}

// Commit counts a commit of n messages, which took d.
func (m *Metrics) Commit(n int, d time.Duration) {
	m.accepted.Add(float64(n))
	m.commits.Inc()
	m.batch.Observe(m.syncTime, d.Seconds())
}

// Gauges are what the queue's loop shows of itself. The zero Gauges is ready.
type Gauges struct {
	Before   atomic.Int64 // deferred recipients at the start, when they are counted
	Aside    atomic.Int64 // records that were set aside before or at the start
	Counted  atomic.Bool
	Waiting  atomic.Int64 // deferred recipients that are not in the active queue
	AsideNow atomic.Int64
	Inflight atomic.Int64
	Dests    atomic.Int64
	Closed   atomic.Int64 // hosts that have failed and not served since
	Oldest   atomic.Int64 // arrival of the oldest message, in seconds since 1970; 0: none

	Delivered, Deferred, Bounced atomic.Int64

	Providers atomic.Pointer[[]msg.ProviderEntry] // as they were at the last tick; nil: none
}

// providerMetrics shows the providers, of which there are as many as the configuration names.
type providerMetrics struct{ g *Gauges }

// The figures of each provider.
func (providerMetrics) descs() (deliveries, rate, halved, slowDowns *prometheus.Desc) {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("meta1_qmgr_provider_"+name, help, []string{"provider"}, nil)
	}
	return desc("deliveries", "Delivery attempts that run, by provider."),
		desc("rate", "Messages that may go to a provider within a second now, on average; 0 without a limit."),
		desc("slowed", "1 while a provider has a lower rate because it has asked for less mail."),
		desc("slow_downs_total", "How often the rate of a provider was halved because it had asked for less mail.")
}

// Describe is that of prometheus.Collector.
func (p providerMetrics) Describe(out chan<- *prometheus.Desc) {
	a, b, c, d := p.descs()
	for _, desc := range []*prometheus.Desc{a, b, c, d} {
		out <- desc
	}
}

// Collect is that of prometheus.Collector.
func (p providerMetrics) Collect(out chan<- prometheus.Metric) {
	all := p.g.Providers.Load()
	if all == nil {
		return
	}
	deliveries, rate, slowed, slowDowns := p.descs()
	for i := range *all {
		e := &(*all)[i]
		lowered := 0.0
		if e.Reason != "" {
			lowered = 1
		}
		out <- prometheus.MustNewConstMetric(deliveries, prometheus.GaugeValue, float64(e.InUse), e.Provider)
		out <- prometheus.MustNewConstMetric(rate, prometheus.GaugeValue, e.Rate/e.Per.Seconds(), e.Provider)
		out <- prometheus.MustNewConstMetric(slowed, prometheus.GaugeValue, lowered, e.Provider)
		out <- prometheus.MustNewConstMetric(slowDowns, prometheus.CounterValue, float64(e.SlowDowns), e.Provider)
	}
}
