package mtasts

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the numbers of a Cache.
type metrics struct {
	reg             prometheus.Registerer
	all             []prometheus.Collector
	fetched, failed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Cache) (metrics, error) {
	m := metrics{
		reg:     reg,
		fetched: prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_smar_mta_sts_fetched_total", Help: "MTA-STS policies that were fetched."}),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "meta1_smar_mta_sts_failed_total", Help: "MTA-STS policies that could not be fetched."}),
	}
	if reg == nil {
		return m, nil
	}
	known := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "meta1_smar_mta_sts_domains", Help: "Domains whose MTA-STS policy is known, or was tried lately."},
		func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(len(c.domains))
		})
	for _, col := range []prometheus.Collector{m.fetched, m.failed, known} {
		if err := reg.Register(col); err != nil {
			m.unregister()
			return m, err
		}
		m.all = append(m.all, col)
	}
	return m, nil
}

// unregister takes the numbers away, for the next Cache of this process.
func (m *metrics) unregister() {
	for _, col := range m.all {
		m.reg.Unregister(col)
	}
}
