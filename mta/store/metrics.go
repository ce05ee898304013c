package store

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// collector shows the numbers of a store to Prometheus.
type collector struct {
	s     *Store
	descs []*prometheus.Desc // in the order of numbers

	mu     sync.Mutex // held while the store is asked; guards closed
	closed bool
}

// number is one number of a store.
type number struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*Store, *pebble.Metrics) float64
}

var numbers = [...]number{
	{
		"disk_bytes", "Bytes on disk, without the reserve.", prometheus.GaugeValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) },
	},
	{
		"log_bytes", "Bytes in write-ahead logs that are not in tables yet.", prometheus.GaugeValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.WAL.Size) },
	},
	{
		"memory_bytes", "Bytes in memory: tables that are not on disk yet, and the block cache.", prometheus.GaugeValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(int64(m.MemTable.Size) + m.BlockCache.Size) },
	},
	{
		"read_amplification", "Tables that a lookup may have to read.", prometheus.GaugeValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.ReadAmp()) },
	},
	{
		"compaction_debt_bytes", "Bytes that must be rewritten before the tables are in order.", prometheus.GaugeValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.Compact.EstimatedDebt) },
	},
	{
		"flushes_total", "Tables in memory written to disk.", prometheus.CounterValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.Flush.Count) },
	},
	{
		"written_bytes_total", "Bytes committed.", prometheus.CounterValue,
		func(_ *Store, m *pebble.Metrics) float64 { return float64(m.WAL.BytesIn) },
	},
	{
		"reserve_missing", "Parts of the reserve for a full disk that were given up.", prometheus.GaugeValue,
		func(s *Store, _ *pebble.Metrics) float64 { return float64(s.ballast.missing()) },
	},
	{
		"failed", "1 if the store was given up.", prometheus.GaugeValue,
		func(s *Store, _ *pebble.Metrics) float64 {
			if s.Err() != nil {
				return 1
			}
			return 0
		},
	},
}

// register shows the store's numbers until it is closed.
func (s *Store) register(reg prometheus.Registerer) error {
	s.unregister = func() {}
	if reg == nil {
		return nil
	}
	labels := prometheus.Labels{"store": s.name}
	c := &collector{s: s}
	for _, n := range numbers {
		c.descs = append(c.descs, prometheus.NewDesc("meta1_store_"+n.name, n.help, nil, labels))
	}
	if err := reg.Register(c); err != nil {
		return fmt.Errorf("registering the metrics of %s: %w", s.name, err)
	}
	s.unregister = func() {
		reg.Unregister(c)
		c.mu.Lock() // one that goes on is waited for
		defer c.mu.Unlock()
		c.closed = true
	}
	return nil
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect leaves Pebble alone if the store was given up: it may hold its locks for good.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	failed := c.s.Err() != nil
	m := new(pebble.Metrics)
	if !failed {
		m = c.s.DB.Metrics()
	}
	for i, n := range numbers {
		if !failed || n.name == "failed" {
			ch <- prometheus.MustNewConstMetric(c.descs[i], n.kind, n.value(c.s, m))
		}
	}
}
