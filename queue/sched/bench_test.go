package sched

import (
	"fmt"
	"runtime"
	"testing"
)

func benchConfig() Config {
	cfg := config()
	cfg.HostsMax = 1 << 20
	return cfg
}

// BenchmarkReady: each operation is one delivery that ends, one that begins, and one
// message that comes, with as many destinations that have mail waiting, each with a host
// of its own.
func BenchmarkReady(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("destinations=%d", n), func(b *testing.B) {
			m := newModel(benchConfig())
			for i := range n {
				m.addDest(i)
			}
			for i := range 2 * max(n, 1000) {
				m.add(&mail{from: "list", arrival: m.now, dest: i % n, waits: 1, perStart: 1})
			}
			m.settle()
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				if len(m.running) > 0 {
					m.end(i%len(m.running), Result{Verdict: Served})
				}
				m.arrive("one", 1, i%n)
			}
		})
	}
}

// BenchmarkHanging is the same, while as many other destinations hang, so that mail waits
// for slots for new hosts.
func BenchmarkHanging(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("destinations=%d", n), func(b *testing.B) {
			m, step := hangingHosts(n)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				step(i)
			}
			runtime.KeepAlive(m)
		})
	}
}

// hangingHosts has twenty senders with mail for n new hosts that hang, so that most of it
// waits for slots. step ends a delivery and lets two messages come.
func hangingHosts(n int) (m *model, step func(int)) {
	m = newModel(benchConfig())
	good := m.addDest(n)
	for i := range n {
		m.addDest(i)
		m.add(&mail{from: fmt.Sprint("list", i%20), arrival: m.now, dest: i + 1, waits: 1, perStart: 1})
	}
	m.settle()
	return m, func(i int) {
		m.endLater(i%len(m.running), Result{Verdict: Unknown})
		m.arrive("one", 1, good)
		m.deferred = m.deferred[:0]
		m.arrive(fmt.Sprint("list", i%20), 1, 1+i%n)
	}
}

// TestDecisionsCostTheSame counts how often mail is looked at for a decision, with few and
// with many destinations that wait.
func TestDecisionsCostTheSame(t *testing.T) {
	looks := func(n int) float64 {
		const steps = 3000
		m, step := hangingHosts(n)
		looks := 0
		for d := range m.s.listed.All {
			for _, q := range d.queues {
				for j := range q.jobs.All {
					j.Mail.(*mail).looks = &looks
				}
			}
		}
		for i := range steps {
			step(i)
		}
		return float64(looks) / steps
	}
	few, many := looks(2000), looks(20_000)
	if few > 10 || many > 10 {
		t.Errorf("mail is looked at %.1f times for a decision with 2,000 destinations, %.1f times with 20,000", few, many)
	}
	t.Logf("%.2f and %.2f looks", few, many)
}

// BenchmarkTick is what a tick costs while very many destinations and hosts wait and
// nothing is due.
func BenchmarkTick(b *testing.B) {
	const n = 100_000
	m := newModel(benchConfig())
	for i := range n {
		m.addDest(i)
		m.add(&mail{from: "list", arrival: m.now, dest: i, waits: 1, perStart: 1})
	}
	m.settle()
	b.ReportAllocs()
	for b.Loop() {
		m.s.Tick(m.now)
		m.s.NextAlarm()
		m.settle()
	}
}

// BenchmarkMemory measures what a message takes that is ready, with a destination and a
// host of its own, or all with one.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	for _, dests := range []int{1, n} {
		b.Run(fmt.Sprintf("destinations=%d", dests), func(b *testing.B) {
			for b.Loop() {
				m := newModel(benchConfig())
				for i := range dests {
					m.addDest(i)
				}
				all := make([]mail, n)
				before := heap()
				for i := range all {
					all[i] = mail{from: "s", arrival: m.now, dest: i % dests, waits: 1, perStart: 1}
					m.add(&all[i])
				}
				m.settle()
				b.ReportMetric(float64(heap()-before)/n, "bytes/job")
				runtime.KeepAlive(m)
			}
		})
	}
}

// BenchmarkHostMemory measures what a host takes that is known and idle.
func BenchmarkHostMemory(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		m := newModel(benchConfig())
		for i := range n {
			m.addDest(i)
		}
		before := heap()
		for i := range n {
			m.arrive("s", 1, i)
			m.end(0, Result{Verdict: Served})
		}
		b.ReportMetric(float64(heap()-before)/n, "bytes/host")
		runtime.KeepAlive(m)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
