package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestRegister: an instance registers all or nothing, and the next one has room when it is gone.
func TestRegister(t *testing.T) {
	src := Sources{
		Active: func() int { return 3 }, Memory: func() int64 { return 4 }, Room: func() int64 { return 5 },
		Accepting: func() error { return nil },
	}
	reg := prometheus.NewRegistry()
	count := func() int {
		t.Helper()
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	var g Gauges
	g.Providers.Store(&[]msg.ProviderEntry{{Provider: "big", InUse: 2, Per: time.Minute}})
	m, err := New(&g, src, reg)
	if err != nil {
		t.Fatal(err)
	}
	n := count()
	if n < 20 {
		t.Errorf("%d figures", n)
	}
	if _, err := New(&g, src, reg); err == nil || count() != n {
		t.Errorf("a second instance beside the first: %v, and %d figures remain of %d", err, count(), n)
	}
	m.Unregister()
	if count() != 0 {
		t.Errorf("%d figures remain", count())
	}
	if _, err := New(&g, src, reg); err != nil || count() != n {
		t.Errorf("the next one: %v, %d figures, want %d", err, count(), n)
	}
}

// TestDelaysOfDeliveries: only an attempt that delivered to somebody counts.
func TestDelaysOfDeliveries(t *testing.T) {
	reg := prometheus.NewRegistry()
	src := Sources{
		Active: func() int { return 0 }, Memory: func() int64 { return 0 }, Room: func() int64 { return 0 },
		Accepting: func() error { return nil },
	}
	m, err := New(new(Gauges), src, reg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	e := &msg.Envelope{Arrival: now.Add(-time.Minute)}
	good, bad := smtp.NewReply(250, "2.0.0", "ok"), smtp.NewReply(450, "4.0.0", "no")
	for _, rcpts := range [][]smtp.Reply{{bad}, {bad, good}, nil} {
		m.Delays.Delivered(e, time.Second, &msg.DeliverA{Rcpts: rcpts}, now)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != "meta1_qmgr_delivery_delay_seconds" {
			continue
		}
		if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() != 1 || h.GetSampleSum() != 60 {
			t.Errorf("%d attempts, of %v seconds", h.GetSampleCount(), h.GetSampleSum())
		}
		return
	}
	t.Error("the figure is missing")
}
