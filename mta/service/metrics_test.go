package service

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// shown are the services of which there are metrics, with the processes that were started.
func shown(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if service := m.GetLabel()[0].GetValue(); f.GetName() == "meta1_mta_service_starts_total" {
				all[service] += m.GetCounter().GetValue()
			} else {
				all[service] += 0
			}
		}
	}
	return all
}

// TestMetricsKeep: the metrics of a service that has gone go with the last of its units, and stay if it comes again before.
func TestMetricsKeep(t *testing.T) {
	r := prometheus.NewRegistry()
	m := NewMetrics(r)
	m.Keep([]string{"a", "b"})
	if all := shown(t, r); len(all) != 2 {
		t.Errorf("at first: %v", all)
	}
	begun, end := make(chan bool), make(chan bool)
	failure := errors.New("ended")
	run := m.during("a", func(context.Context) error {
		m.started.WithLabelValues("a").Inc()
		begun <- true
		<-end
		m.running.WithLabelValues("a").Dec()
		return failure
	})
	done := make(chan error)
	for range 2 {
		go func() { done <- run(t.Context()) }()
		<-begun
	}
	finish := func() {
		end <- true
		if err := <-done; !errors.Is(err, failure) {
			t.Error(err)
		}
	}
	m.Keep([]string{"b"})
	m.Keep([]string{"a", "b"})
	m.Keep([]string{"c"})
	if all := shown(t, r); len(all) != 2 || all["a"] != 2 {
		t.Errorf("while it runs: %v", all)
	}
	finish()
	if all := shown(t, r); all["a"] != 2 {
		t.Errorf("while one of its units runs: %v", all)
	}
	finish()
	if all := shown(t, r); len(all) != 1 || all["c"] != 0 {
		t.Errorf("at last: %v", all)
	}
}
