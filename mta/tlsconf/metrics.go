package tlsconf

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector shows the certificates and CRLs of some Providers as metrics.
type Collector []*Provider

// descs are the metrics: when certificates and CRLs expire, and whether the newest files
// are in use.
func descs() (cert, crl, current *prometheus.Desc) {
	labels := []string{"section", "file"}
	return prometheus.NewDesc("meta1_tls_certificate_expiry_seconds", "When a certificate that we present, or one of its chain, expires, as a Unix time.", labels, nil),
		prometheus.NewDesc("meta1_tls_crl_expiry_seconds", "When the successor of a CRL is due, as a Unix time.", append(labels, "issuer"), nil),
		prometheus.NewDesc("meta1_tls_files_current", "1 if the newest certificates, keys, CAs and CRLs are in use, 0 if they cannot be used and the old ones are.", labels[:1], nil)
}

// Describe tells the metrics of Collect.
func (c Collector) Describe(d chan<- *prometheus.Desc) {
	cert, crl, current := descs()
	d <- cert
	d <- crl
	d <- current
}

// Collect takes a snapshot.
func (c Collector) Collect(m chan<- prometheus.Metric) {
	certDesc, crlDesc, currentDesc := descs()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		m <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, p := range c {
		name := p.deps.Name
		for file, when := range firstOf(p.Certificates()) {
			gauge(certDesc, float64(when.Unix()), name, file)
		}
		seen := map[[2]string]bool{}
		for _, crl := range p.now.Load().crls {
			if key := [2]string{crl.file, crl.Issuer()}; !crl.NextUpdate().IsZero() && !seen[key] {
				seen[key] = true
				gauge(crlDesc, float64(crl.NextUpdate().Unix()), name, crl.file, crl.Issuer())
			}
		}
		p.mu.Lock()
		failed := p.last.err != nil
		p.mu.Unlock()
		if failed {
			gauge(currentDesc, 0, name)
		} else {
			gauge(currentDesc, 1, name)
		}
	}
}

// firstOf are the times by file: a file may be named twice.
func firstOf(list []Certificate) map[string]time.Time {
	first := map[string]time.Time{}
	for _, c := range list {
		if t, ok := first[c.File]; !ok || c.Expires.Before(t) {
			first[c.File] = c.Expires
		}
	}
	return first
}
