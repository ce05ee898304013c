package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/histogram"
	"meta1/mta/msg"
)

// metrics are the queue's numbers for Prometheus.
type metrics struct {
	reg       prometheus.Registerer
	all       []prometheus.Collector
	accepted  prometheus.Counter
	throttled prometheus.Counter
	commits   prometheus.Counter
	syncTime  prometheus.Histogram
	sealed    *prometheus.CounterVec
	delays    delays
	batch     histogram.Batch // for syncTime and delays
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
	total := func(name, help string, v *atomic.Int64) {
		m.all = append(m.all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "meta1_qmgr_" + name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	g := &q.gauges
	total("delivered_total", "Recipients delivered.", &g.delivered)
	total("deferred_total", "Failed attempts after which a recipient was deferred.", &g.deferred)
	total("bounced_total", "Recipients that failed for good.", &g.bounced)
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
	m.delays = newDelays(&m.batch)
	m.all = append(m.all, m.sealed)
	for _, c := range []prometheus.Collector{m.syncTime, m.delays.stages, m.delays.whole} {
		m.all = append(m.all, m.batch.Collector(c))
	}
	gauge("active_recipients", "Recipients in the active queue.", func() float64 {
		n, _, _, _ := q.budget.Used()
		return float64(n)
	})
	shown := func(name, help string, v *atomic.Int64) {
		gauge(name, help, func() float64 { return float64(v.Load()) })
	}
	shown("set_aside_records", "Records that could not be decoded and are kept aside.", &g.asideNow)
	shown("waiting_recipients", "Deferred recipients that wait for their next time to try, held ones included.", &g.waiting)
	shown("deliveries", "Delivery attempts that run.", &g.inflight)
	shown("destinations", "Destinations in the active queue.", &g.dests)
	shown("closed_hosts", "Hosts that failed and are not tried for a while.", &g.closed)
	shown("oldest_message_timestamp_seconds", "Arrival of the oldest message in the queue, 0 if there is none.", &g.oldest)
	gauge("content_memory_bytes", "Content held in memory, that which is being received included.", func() float64 { return float64(q.deps.Memory.Used()) })
	gauge("disk_room_bytes", "Free disk space above disk_space_min.", func() float64 { return float64(q.space.Room()) })
	gauge("accepting", "1 while mail is accepted.", func() float64 {
		if q.Accepting() != nil {
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
	m.batch.Observe(m.syncTime, d.Seconds())
}

// gauges are what the loop shows of itself to the metrics.
type gauges struct {
	before   atomic.Int64 // deferred recipients at the start, when they are counted
	aside    atomic.Int64 // records that were set aside before or at the start
	counted  atomic.Bool
	waiting  atomic.Int64 // deferred recipients that are not in the active queue
	asideNow atomic.Int64
	inflight atomic.Int64
	dests    atomic.Int64
	closed   atomic.Int64 // hosts that have failed and not served since
	oldest   atomic.Int64 // arrival of the oldest message, in seconds since 1970; 0: none

	delivered, deferred, bounced atomic.Int64

	providers atomic.Pointer[[]msg.ProviderEntry] // as they were at the last tick; nil: none
}

// providerMetrics shows the providers, of which there are as many as the configuration names.
type providerMetrics struct{ g *gauges }

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
	all := p.g.providers.Load()
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

// showProviders publishes the figures of the providers. The loop calls it with each tick.
func (l *loop) showProviders() {
	if all := l.core.Providers(l.now); len(all) > 0 {
		l.q.gauges.providers.Store(&all)
	}
}

// show publishes the figures of the core.
func (l *loop) show() {
	g, c, s := &l.q.gauges, l.core.Counts(), l.core.Stats()
	g.waiting.Store(max(g.before.Load()+int64(c.Waiting), 0))
	g.asideNow.Store(g.aside.Load() + int64(c.SetAside))
	g.inflight.Store(int64(s.InUse.Now))
	g.dests.Store(int64(s.Destinations.Now))
	g.closed.Store(int64(s.Down.Now))
	g.delivered.Store(int64(c.Delivered))
	g.deferred.Store(int64(c.Deferred))
	g.bounced.Store(int64(c.Bounced))
}

// showOldest publishes the oldest message now and then.
func (l *loop) showOldest() {
	if l.now.Sub(l.oldestAt) < oldestInterval {
		return
	}
	l.oldestAt = l.now
	active := l.core.Oldest()
	l.q.group.Go(func(context.Context) error { l.q.showOldest(active); return nil })
}

// oldestInterval is how often the oldest message is looked for.
const oldestInterval = 10 * time.Second

// showOldest publishes the arrival of the oldest message: that of the active queue or of the
// store, whose ids ascend with time.
func (q *Queue) showOldest(active *msg.Envelope) {
	v := q.db.View()
	oldest, ok, err := v.Oldest()
	if err := errors.Join(err, v.Close()); err != nil {
		q.log.Error("cannot tell the oldest message", "error", err)
	}
	if active != nil && (!ok || active.Arrival.Before(oldest)) {
		oldest, ok = active.Arrival, true
	}
	if !ok {
		q.gauges.oldest.Store(0)
		return
	}
	q.gauges.oldest.Store(oldest.Unix())
}
