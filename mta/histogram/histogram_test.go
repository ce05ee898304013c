package histogram

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestBatch: what is collected has every value, those that wait too, and each once.
func TestBatch(t *testing.T) {
	h := New(prometheus.HistogramOpts{Name: "x", Buckets: []float64{10}})
	r := prometheus.NewRegistry()
	r.MustRegister(h)
	want := uint64(0)
	for _, n := range []int{0, 1, size - 1, size, size + 1, 10 * size} {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range n {
					h.Observe(2)
				}
			})
		}
		wg.Wait()
		want += 2 * uint64(n)
		all, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := all[0].GetMetric()[0].GetHistogram()
		if got.GetSampleCount() != want || got.GetSampleSum() != 2*float64(want) {
			t.Fatalf("%d values with the sum %v, want %d", got.GetSampleCount(), got.GetSampleSum(), want)
		}
	}
}
