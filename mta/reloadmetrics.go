package mta

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// reloads counts those that were applied and those that failed.
type reloads struct{ applied, failed atomic.Int64 }

// reloadCollector shows reloads and the configuration in effect.
type reloadCollector struct{ m *mta }

type reloadDescs struct{ reloads, generation, since, pending *prometheus.Desc }

func (reloadCollector) descs() reloadDescs {
	return reloadDescs{
		prometheus.NewDesc("meta1_mta_reloads_total", "Reloads of the configuration by result: applied, or failed with nothing changed.", []string{"result"}, nil),
		prometheus.NewDesc("meta1_mta_config_generation", "How many configurations have been in effect since the start, which is 1.", nil, nil),
		prometheus.NewDesc("meta1_mta_config_since_seconds", "When the configuration in effect was taken, in seconds since 1970.", nil, nil),
		prometheus.NewDesc("meta1_mta_restart_pending", "Options of the configuration file that take effect at the next start only.", nil, nil),
	}
}

// Describe tells the metrics of Collect.
func (c reloadCollector) Describe(d chan<- *prometheus.Desc) {
	all := c.descs()
	for _, desc := range []*prometheus.Desc{all.reloads, all.generation, all.since, all.pending} {
		d <- desc
	}
}

// Collect takes a snapshot.
func (c reloadCollector) Collect(to chan<- prometheus.Metric) {
	d, now := c.descs(), c.m.current()
	gauge := func(desc *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v)
	}
	to <- prometheus.MustNewConstMetric(d.reloads, prometheus.CounterValue, float64(c.m.reloads.applied.Load()), "applied")
	to <- prometheus.MustNewConstMetric(d.reloads, prometheus.CounterValue, float64(c.m.reloads.failed.Load()), "failed")
	gauge(d.generation, float64(now.generation))
	gauge(d.since, float64(now.since.UnixMilli())/1000)
	gauge(d.pending, float64(len(now.pending)))
}
