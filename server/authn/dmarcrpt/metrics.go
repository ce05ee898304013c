package dmarcrpt

import "github.com/prometheus/client_golang/prometheus"

// What becomes of a message that is counted, and of a try to send a report.
const (
	counted  = iota
	unwanted // no policy applies, or its domain wants no reports
	dropped  // there was no room
	fates
)

const (
	sent = iota
	failed
	givenUp // nobody took it for a day, or nobody may get it
	ends
)

type stats struct {
	messages [fates]prometheus.Counter
	reports  [ends]prometheus.Counter
}

func newStats(reg prometheus.Registerer, domains func() float64) (s stats) {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_dmarc_reports_messages_total", Help: "Messages for which DMARC was evaluated, by what became of them in reports.",
	}, []string{"result"})
	for i, name := range [...]string{"counted", "unwanted", "dropped"} {
		s.messages[i] = messages.WithLabelValues(name)
	}
	reports := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_dmarc_reports_total", Help: "Reports about DMARC that were to be sent, by result.",
	}, []string{"result"})
	for i, name := range [...]string{"sent", "failed", "given_up"} {
		s.reports[i] = reports.WithLabelValues(name)
	}
	due := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meta1_dmarc_reports_domains", Help: "Domains about which a report is being collected, or waits to be sent.",
	}, domains)
	if reg != nil {
		reg.MustRegister(messages, reports, due)
	}
	return s
}
