package limits

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// garbageMin is how much garbage the heap may hold, at least, before the collector works.
	garbageMin = 16 << 20
	// usedMin is what the collector takes for in use, at least: the runtime's heapMinimum.
	usedMin = 4 << 20
	// garbageShare of what is in use is how much it may hold if that is more, in percent.
	garbageShare = 50
	// goPercent is the percentage of a program that sets none.
	goPercent = 100
	// seldomLeast is the limit of the runtime, in bytes, below which there is no memory to spare.
	seldomLeast = 704 << 20
)

// CollectSeldom has the garbage collector work when a fixed amount of garbage has come together, until stop is called.
// By itself it lets the heap double, and that fits us at neither end: what is in use is some 5 MB, for which it would
// work three times for a thousand messages, and on top of them the tables and the cache of the store, which are large, cost
// nothing to collect, and would be held twice. limit is that of the runtime in bytes; with a low one, and where
// the operator has decided (goGC, the variable GOGC), nothing is changed. It sets what the whole process has, so it is called once.
func CollectSeldom(limit int64, goGC string) (stop func()) {
	p := newPacer(limit, goGC)
	if p == nil {
		return func() {}
	}
	p.adjust()
	return p.stop
}

func newPacer(limit int64, goGC string) *pacer {
	if limit < seldomLeast || goGC != "" {
		return nil
	}
	return &pacer{percent: goPercent, samples: []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}}
}

// pacer sets the collector's percentage after each of its cycles.
type pacer struct {
	mu      sync.Mutex // guards what follows
	samples []metrics.Sample
	percent int
	stopped bool
}

// adjust sets the percentage by what the last cycle has found in use, and waits for the next one: it is called when
// something that nobody holds was collected. An idle process has no cycles and no calls.
func (p *pacer) adjust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	metrics.Read(p.samples)
	var used uint64
	for _, s := range p.samples {
		used += s.Value.Uint64()
	}
	// Setting it stops the world for a moment.
	if to := garbagePercent(used); to > p.percent+p.percent/8 || to < p.percent-p.percent/8 {
		debug.SetGCPercent(to)
		p.percent = to
	}
	runtime.AddCleanup(new([16]byte), (*pacer).adjust, p)
}

// garbagePercent is the collector's percentage with which a heap that has used bytes in use may hold as much garbage as
// it should.
func garbagePercent(used uint64) int {
	return int(max(garbageMin*100/max(used, usedMin), garbageShare))
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	debug.SetGCPercent(goPercent)
}
