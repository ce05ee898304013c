package limits

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// TestGarbagePercent: a small heap may hold garbageMin of garbage and no more, which is what the runtime makes of the
// percentage; a large one garbageShare of its size.
func TestGarbagePercent(t *testing.T) {
	for _, used := range []uint64{0, 1 << 20, usedMin, 5 << 20, 20 << 20, 32 << 20, 100 << 20, 10 << 30} {
		percent := garbagePercent(used)
		goal := max(used+used*uint64(percent)/100, usedMin*uint64(percent)/100) // as runtime/mgcpacer.go does
		want := used + max(garbageMin, used/2)
		if goal > want || goal < want-want/4 {
			t.Errorf("%d MB in use: %d %%, so %d MB, want %d", used>>20, percent, goal>>20, want>>20)
		}
	}
}

// TestPacerWithoutRoom: where the operator has decided, or memory is scarce, nothing is changed.
func TestPacerWithoutRoom(t *testing.T) {
	for _, c := range []struct {
		limit int64
		goGC  string
	}{{seldomLeast - 1, ""}, {1 << 40, "50"}, {1 << 40, "off"}} {
		if p := newPacer(c.limit, c.goGC); p != nil {
			t.Errorf("limit %d, GOGC=%q: it works", c.limit, c.goGC)
		}
	}
	if newPacer(seldomLeast, "") == nil {
		t.Error("there is none although there is memory")
	}
}

// TestCollectSeldom: beside much that is in use the heap holds the share of it, not as much again, and as before when it
// has stopped.
func TestCollectSeldom(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(goPercent))
	beyond := func() int64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64()) - int64(s[1].Value.Uint64())
	}
	tables := make([]byte, 64<<20)
	before := beyond()
	p := newPacer(math.MaxInt64, "")
	p.adjust()
	with := beyond()
	p.stop()
	after := beyond()
	runtime.KeepAlive(tables)
	if least := int64(len(tables)); before < least || after < least || with > before*2/3 {
		t.Errorf("the heap may hold %d bytes of garbage, %d before and %d after", with, before, after)
	}
}
