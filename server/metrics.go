package server

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/msg"
)

// metrics counts what a server does. All names begin with meta1_smtps_ and carry
// the label server, the name of the section.
type metrics struct {
	sessions    prometheus.Gauge
	total       prometheus.Counter
	refused     *prometheus.CounterVec // sessions, by reason
	messages    prometheus.Counter
	recipients  prometheus.Counter
	bytes       prometheus.Counter
	replies     *prometheus.CounterVec // by command and class
	earlyTalker prometheus.Counter
	panics      prometheus.Counter
}

// The reasons of metrics.refused.
const (
	refusedThreads = "threads_max"
	refusedAdmit   = "admit"
	refusedCheck   = "check"
	refusedDown    = "module_down"
)

func newMetrics(reg prometheus.Registerer, name string) (*metrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	r := &registrar{reg: prometheus.WrapRegistererWith(prometheus.Labels{"server": name}, reg)}
	m := &metrics{
		sessions:    register(r, prometheus.NewGauge(gauge("sessions", "Open sessions."))),
		total:       register(r, prometheus.NewCounter(counter("sessions_total", "Accepted connections."))),
		refused:     register(r, prometheus.NewCounterVec(counter("sessions_refused_total", "Connections that got no session."), []string{"reason"})),
		messages:    register(r, prometheus.NewCounter(counter("messages_total", "Accepted messages."))),
		recipients:  register(r, prometheus.NewCounter(counter("recipients_total", "Recipients of accepted messages."))),
		bytes:       register(r, prometheus.NewCounter(counter("message_bytes_total", "Content of accepted messages in bytes."))),
		replies:     register(r, prometheus.NewCounterVec(counter("replies_total", "Replies by command and class (first digit of the code)."), []string{"command", "class"})),
		earlyTalker: register(r, prometheus.NewCounter(counter("early_talkers_total", "Clients refused because they sent data before the greeting."))),
		panics:      register(r, prometheus.NewCounter(counter("panics_total", "Sessions ended by a failure of the program."))),
	}
	return m, r.err
}

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
			values = append(values, msg.StatusValue{Name: c.name, Value: strconv.FormatFloat(d.Counter.GetValue(), 'f', -1, 64)})
		}
	}
	return values
}
