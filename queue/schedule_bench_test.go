package queue

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"meta1/mta/msg"
)

// BenchmarkSchedule decides what is delivered next: each operation is one delivery that
// ends, one that begins, and one message that comes, with as many destinations that
// have mail waiting, each with a host of its own.
func BenchmarkSchedule(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("destinations=%d", n), func(b *testing.B) {
			m := newModel(benchConfig(b))
			all := make([]int, n)
			for i := range all {
				m.addDest(i)
				all[i] = i
			}
			m.arrive("list", 2*max(n, 1000), all...)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				if len(m.running) > 0 {
					m.end(i%len(m.running), 250, false)
				}
				m.arrive("one", 1, i%n)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

// BenchmarkScheduleTick is what a tick costs while very many destinations and hosts
// wait and nothing is due.
func BenchmarkScheduleTick(b *testing.B) {
	const n = 100_000
	m := newModel(benchConfig(b))
	m.l.nextDue = m.l.now.Add(time.Hour)
	all := make([]int, n)
	for i := range all {
		m.addDest(i)
		all[i] = i
	}
	m.arrive("list", n, all...)
	m.l.swept = m.l.now
	b.ReportAllocs()
	for b.Loop() {
		m.l.strike()
		m.l.load()
		m.l.relieve()
		m.l.schedule()
	}
}

// BenchmarkScheduleMemory measures what a recipient takes: in the active queue, each
// with a destination and a host of its own, or all with one.
func BenchmarkScheduleMemory(b *testing.B) {
	const n = 100_000
	for _, dests := range []int{1, n} {
		b.Run(fmt.Sprintf("active/destinations=%d", dests), func(b *testing.B) {
			for b.Loop() {
				m := newModel(benchConfig(b))
				m.dests = make([]msg.RouteA, 0, dests)
				for i := range dests {
					m.addDest(i)
				}
				before := heap()
				for i := range n {
					m.arrive("s", 1, i%dests)
				}
				b.ReportMetric(float64(heap()-before)/n, "bytes/rcpt")
				runtime.KeepAlive(m)
			}
		})
	}
}

// BenchmarkScheduleDeferred measures what a recipient takes in memory that waits in the
// DEFEDB because its host is down: one host for all, or a hundred thousand.
func BenchmarkScheduleDeferred(b *testing.B) {
	const n = 100_000
	for _, dests := range []int{1, n} {
		b.Run(fmt.Sprintf("destinations=%d", dests), func(b *testing.B) {
			for b.Loop() {
				m := newModel(benchConfig(b))
				m.dests = make([]msg.RouteA, 0, dests)
				for i := range dests {
					m.addDest(i)
				}
				before := heap()
				for i := range n {
					m.arrive("s", 1, i%dests)
					for len(m.running) > 0 {
						m.end(0, 451, true)
					}
					m.deferred = m.deferred[:0]
				}
				m.all = nil
				b.ReportMetric(float64(int64(heap())-int64(before))/n, "bytes/rcpt")
				runtime.KeepAlive(m)
			}
		})
	}
}

func benchConfig(b *testing.B) Config {
	cfg := defaults(b)
	cfg.AQEntriesMax = 1 << 30
	cfg.OCCEntries = 1 << 20
	return cfg
}

// heap is how many bytes are in use.
func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
