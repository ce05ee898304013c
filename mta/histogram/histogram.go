// Package histogram notes values for histograms that get several for each message. One value costs
// Prometheus' native histograms a search and two maps, most of it time in which the processor waits for
// memory; many in a row cost a fraction of that each.
package histogram

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// size is how many values wait.
const size = 128

// Batch keeps values for the histograms of one module until there are many, or until somebody collects
// the metrics. The zero Batch is empty. Any goroutine may use it.
type Batch struct {
	mu     sync.Mutex // guards what follows
	values [size]value
	n      int
}

type value struct {
	to prometheus.Observer
	v  float64
}

// Observe notes a value for a histogram, which must be collected by the Collector of this batch.
func (b *Batch) Observe(to prometheus.Observer, v float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[b.n] = value{to, v}
	if b.n++; b.n == size {
		b.flushLocked()
	}
}

func (b *Batch) flushLocked() {
	for i := range b.values[:b.n] {
		b.values[i].to.Observe(b.values[i].v)
	}
	b.n = 0
}

// Collector is what is to be registered for a histogram, or for several: it shows all values that were
// noted.
func (b *Batch) Collector(c prometheus.Collector) prometheus.Collector { return collector{c, b} }

type collector struct {
	prometheus.Collector
	b *Batch
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.b.mu.Lock()
	c.b.flushLocked()
	c.b.mu.Unlock()
	c.Collector.Collect(ch)
}

// Histogram is a histogram with a batch of its own.
type Histogram struct {
	prometheus.Histogram
	batch Batch
}

// New makes a histogram, which nobody has registered.
func New(o prometheus.HistogramOpts) *Histogram {
	return &Histogram{Histogram: prometheus.NewHistogram(o)}
}

// Observe notes a value.
func (h *Histogram) Observe(v float64) { h.batch.Observe(h.Histogram, v) }

// Collect shows all values that were noted.
func (h *Histogram) Collect(ch chan<- prometheus.Metric) { h.batch.Collector(h.Histogram).Collect(ch) }
