package server

import (
	"cmp"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/msg"
	"meta1/server/auth"
	"meta1/server/crowd"
	"meta1/server/milter"
	"meta1/server/policyd"
)

// metrics counts what a server does. All names begin with meta1_smtps_ and carry
// the label server: the name of the section, or smtps for the one without a name.
type metrics struct {
	sessions       prometheus.Gauge
	total          prometheus.Counter
	refused        *prometheus.CounterVec // sessions, by reason
	messages       prometheus.Counter
	recipients     prometheus.Counter
	bytes          prometheus.Counter
	replies        *prometheus.CounterVec // by command and class
	earlyTalker    prometheus.Counter
	auths          *prometheus.CounterVec // AUTH commands, by mechanism and outcome
	panics         prometheus.Counter
	tlsSessions    *prometheus.CounterVec // by version
	tlsResumed     prometheus.Counter
	tlsFailed      *prometheus.CounterVec // by reason
	dkimMessages   *prometheus.CounterVec // that were to be signed, by result
	authentication *prometheus.CounterVec
	dismissed      *prometheus.CounterVec // idle sessions that had to make room, by reason
	stress         prometheus.Gauge
	sections       sectionMetrics
}

// The reasons of metrics.refused, beside those of package crowd.
const (
	refusedStopping  = "stopping"
	refusedElsewhere = "not_by_proxy"
	refusedHeader    = "proxy_header"
	refusedAdmit     = "admit"
	refusedCheck     = "check"
	refusedSection   = "check_section"
	refusedFilter    = "milter"
	refusedDown      = "module_down"
)

func newMetrics(reg prometheus.Registerer, name string) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	r := &registrar{reg: prometheus.WrapRegistererWith(prometheus.Labels{"server": cmp.Or(name, "smtps")}, reg)}
	m := &metrics{
		sessions:       register(r, prometheus.NewGauge(gauge("sessions", "Open sessions."))),
		total:          register(r, prometheus.NewCounter(counter("sessions_total", "Accepted connections."))),
		refused:        register(r, prometheus.NewCounterVec(counter("sessions_refused_total", "Connections that got no session."), []string{"reason"})),
		messages:       register(r, prometheus.NewCounter(counter("messages_total", "Accepted messages."))),
		recipients:     register(r, prometheus.NewCounter(counter("recipients_total", "Recipients of accepted messages."))),
		bytes:          register(r, prometheus.NewCounter(counter("message_bytes_total", "Content of accepted messages in bytes."))),
		replies:        register(r, prometheus.NewCounterVec(counter("replies_total", "Replies by command and class (first digit of the code)."), []string{"command", "class"})),
		earlyTalker:    register(r, prometheus.NewCounter(counter("early_talkers_total", "Clients refused because they sent data before the greeting."))),
		auths:          register(r, prometheus.NewCounterVec(counter("auth_total", "AUTH commands by mechanism and outcome."), []string{"mechanism", "outcome"})),
		panics:         register(r, prometheus.NewCounter(counter("panics_total", "Sessions ended by a failure of the program."))),
		tlsSessions:    register(r, prometheus.NewCounterVec(counter("tls_sessions_total", "TLS handshakes that succeeded, by version of TLS."), []string{"version"})),
		tlsResumed:     register(r, prometheus.NewCounter(counter("tls_resumed_total", "TLS handshakes that resumed an earlier TLS session."))),
		tlsFailed:      register(r, prometheus.NewCounterVec(counter("tls_failures_total", "Attempts at TLS that failed, by reason."), []string{"reason"})),
		authentication: register(r, prometheus.NewCounterVec(counter("authentication_total", "Results of authentication by method and result word."), []string{"method", "result"})),
		dkimMessages:   register(r, prometheus.NewCounterVec(counter("dkim_messages_total", "Messages of clients whose mail is signed, by result."), []string{"result"})),
		dismissed:      register(r, prometheus.NewCounterVec(counter("sessions_dismissed_total", "Idle sessions ended under stress, by reason."), []string{"reason"})),
		stress:         register(r, prometheus.NewGauge(gauge("stress", "1 while sessions are scarce, so that idle clients make room; else 0."))),
	}
	for _, result := range []string{signedOK, signedNot, signedFailed} {
		m.dkimMessages.WithLabelValues(result)
	}
	by := []string{"milter"}
	m.sections = sectionMetrics{
		connections: register(r, prometheus.NewCounterVec(counter("milter_connections_total", "Connections made to milters."), by)),
		failures:    register(r, prometheus.NewCounterVec(counter("milter_failures_total", "Failures of milters: no connection, no reply in time, or a wrong one."), by)),
		verdicts:    register(r, prometheus.NewCounterVec(counter("milter_verdicts_total", "What milters have decided, and what followed from their failures."), append(by, "verdict"))),
		seconds: register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "meta1", Subsystem: "smtps", Name: "milter_seconds", Help: "How long milters were waited for, by command and by message.",
			Buckets:                     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, by)),
		policies: register(r, prometheus.NewCounterVec(counter("policy_answers_total", "Answers of policy services, by what follows from them."), []string{"service", "answer"})),
		checks:   register(r, prometheus.NewCounterVec(counter("check_refusals_total", "Refusals by sections check."), []string{"stage", "action"})),
	}
	for f := range tlsFailures() { // they show before they happen
		m.tlsFailed.WithLabelValues(string(f))
	}
	for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
		m.tlsSessions.WithLabelValues(version)
	}
	for _, r := range [...]crowd.Reason{crowd.Room, crowd.Idle, crowd.Share} {
		m.dismissed.WithLabelValues(r.String())
	}
	for _, reason := range [...]string{crowd.Full.String(), crowd.Share.String(), crowd.Exiled.String(), refusedStopping, refusedElsewhere, refusedHeader, refusedAdmit, refusedCheck, refusedSection, refusedFilter, refusedDown} {
		m.refused.WithLabelValues(reason)
	}
	for o := auth.Granted; o <= auth.Unavailable; o++ { // so that the metric is there before the first AUTH
		m.auths.WithLabelValues(auth.Plain, o.String())
	}
	return m, r.err
}

// policyWords are what may follow from the answer of a policy service.
func policyWords() [7]string {
	return [...]string{"dunno", "failed", "reject", "defer", "discard", "hold", "prepend"}
}

// policyService has the metrics of one service show before it is asked.
func (m *metrics) policyService(name string) {
	for _, word := range policyWords() {
		m.sections.policies.WithLabelValues(name, word)
	}
}

// policyAnswer counts an answer of a policy service.
func (m *metrics) policyAnswer(service string, d *policyd.Decision, err error) {
	word := "dunno"
	switch {
	case err != nil || d.Unknown:
		word = "failed"
	case d.Reply.Permanent():
		word = "reject"
	case d.Reply.Temporary():
		word = "defer"
	case d.Discard:
		word = "discard"
	case d.Hold != "":
		word = "hold"
	case d.Prepend != "":
		word = "prepend"
	}
	m.sections.policies.WithLabelValues(service, word).Inc()
}

// milter are the metrics of one section milter.
func (m *metrics) milter(name string) milter.Metrics {
	f := &m.sections
	for _, word := range milter.Words() { // they show before they happen
		f.verdicts.WithLabelValues(name, word)
	}
	return milter.Metrics{
		Connections: f.connections.WithLabelValues(name), Errors: f.failures.WithLabelValues(name),
		Verdicts: f.verdicts.MustCurryWith(prometheus.Labels{"milter": name}), Seconds: f.seconds.WithLabelValues(name),
	}
}

// countTLSFailure counts an attempt at TLS that failed.
func (m *metrics) countTLSFailure(f tlsFailure) { m.tlsFailed.WithLabelValues(string(f)).Inc() }

// replyCounters are the counters of one command by class, found once so that
// counting a reply costs no lookup.
func (m *metrics) replyCounters(command string) (c [6]prometheus.Counter) {
	for class := range c {
		if class >= 2 {
			c[class] = m.replies.WithLabelValues(command, strconv.Itoa(class))
		}
	}
	return c
}

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Namespace: "meta1", Subsystem: "smtps", Name: name, Help: help}
}

func gauge(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts(counter(name, help))
}

// registrar registers collectors and keeps the first error.
type registrar struct {
	reg prometheus.Registerer
	err error
}

// register registers c, or returns the collector that an earlier instance of this
// server registered under its name.
func register[C prometheus.Collector](r *registrar, c C) C {
	err := r.reg.Register(c)
	if again := (prometheus.AlreadyRegisteredError{}); errors.As(err, &again) {
		if old, ok := again.ExistingCollector.(C); ok {
			return old
		}
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	return c
}

// values are the counters that the status shows.
func (m *metrics) values() []msg.StatusValue {
	var values []msg.StatusValue
	for _, c := range []struct {
		name   string
		metric prometheus.Metric
	}{
		{"sessions_total", m.total},
		{"messages", m.messages},
		{"recipients", m.recipients},
		{"bytes", m.bytes},
		{"early_talkers", m.earlyTalker},
	} {
		var d dto.Metric
		if c.metric.Write(&d) == nil && d.Counter != nil {
			values = append(values, msg.StatusValue{Name: c.name, Number: int64(d.Counter.GetValue())})
		}
	}
	return values
}
