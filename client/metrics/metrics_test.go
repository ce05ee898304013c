package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// values names each number of a registry by its name and label values.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			values[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// TestMetrics: what is counted is shown under its name, and a second client on the same registry, as after
// a restart, goes on where the first one stopped, while its own numbers begin anew.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	for run := 1; run <= 2; run++ {
		m := New(registry)
		m.Opened.Add(2)
		m.Refused.Add(1)
		m.TLS[msg.TLSDANE].Inc()
		m.Auth[AuthBroken].Inc()
		m.DANE[DANEFailed].Inc()
		m.STS[STSTesting].Inc()
		m.Unknown.Add(3)
		m.Seconds.Observe(1)
		m.Connections(4, 5, 6)
		if !m.Recipients([]smtp.Reply{{Code: 250}, {Code: 451}, {Code: 550}, {Code: 421}}) {
			t.Error("no success among them")
		}
		if m.Recipients([]smtp.Reply{{Code: 451}, {Code: 550}}) {
			t.Error("a success among none")
		}
		if a, b, c, d := m.Opened.N(), m.Delivered.N(), m.Deferred.N(), m.Failed.N(); a != 2 || b != 1 || c != 3 || d != 2 {
			t.Errorf("run %d: %d opened, %d delivered, %d deferred, %d failed", run, a, b, c, d)
		}
		got := values(t, registry)
		for name, want := range map[string]float64{
			"meta1_smtpc_connects_total{connected}": 2, "meta1_smtpc_connects_total{failed}": 1,
			"meta1_smtpc_tls_connections_total{" + msg.TLSDANE.String() + "}": 1, "meta1_smtpc_auth_total{broken}": 1,
			"meta1_smtpc_dane_total{lookup_failed}": 1, "meta1_smtpc_mta_sts_total{testing}": 1, "meta1_smtpc_recipients_unknown_total{}": 3,
			"meta1_smtpc_delivery_seconds{}": 1, "meta1_smtpc_recipients_total{deferred}": 3, "meta1_smtpc_auth_total{granted}": 0,
		} {
			if n, ok := got[name]; !ok || n != want*float64(run) {
				t.Errorf("run %d: %s is %v (%v), want %v", run, name, n, ok, want*float64(run))
			}
		}
		for name, want := range map[string]float64{"meta1_smtpc_connections{idle}": 4, "meta1_smtpc_connections{busy}": 5, "meta1_smtpc_threads{}": 6} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
	}
}

// TestTaken: a name that something else has stops nobody: then it counts and is not shown.
func TestTaken(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "meta1_smtpc_reused_total", Help: "another one"}))
	m := New(registry)
	m.Reused.Add(7)
	if got := values(t, registry); m.Reused.N() != 7 || got["meta1_smtpc_reused_total{}"] != 0 {
		t.Errorf("%d, shown %v", m.Reused.N(), got["meta1_smtpc_reused_total{}"])
	}
}
