package tlsrpt

import "github.com/prometheus/client_golang/prometheus"

// What becomes of a session that is counted, and of a try to send a report.
const (
	counted  = iota
	unwanted // the domain wants no reports
	dropped  // there was no room, or DNS gave no answer for an hour
	fates
)

const (
	sent = iota
	failed
	givenUp // nobody took it for a day
	ends
)

type stats struct {
	sessions [fates]prometheus.Counter
	reports  [ends]prometheus.Counter
}

func newStats(reg prometheus.Registerer, domains func() float64) (s stats) {
	sessions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_tls_reports_sessions_total", Help: "Sessions to mail hosts, by what became of them in reports about TLS.",
	}, []string{"result"})
	for i, name := range [...]string{"counted", "unwanted", "dropped"} {
		s.sessions[i] = sessions.WithLabelValues(name)
	}
	reports := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_tls_reports_total", Help: "Reports about TLS that were to be sent, by result.",
	}, []string{"result"})
	for i, name := range [...]string{"sent", "failed", "given_up"} {
		s.reports[i] = reports.WithLabelValues(name)
	}
	due := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meta1_tls_reports_domains", Help: "Domains about which a report is being collected, or waits to be sent.",
	}, domains)
	if reg != nil {
		reg.MustRegister(sessions, reports, due)
	}
	return s
}
