package retry

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDelayGrowsWithinItsBounds(t *testing.T) {
	r := Bounds{Min: time.Minute, Max: time.Hour}
	for attempts, want := range map[int]time.Duration{
		1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1000: time.Hour,
	} {
		if got := r.Delay(attempts, 0); got != want {
			t.Errorf("delay after %d attempts is %v, want %v", attempts, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		r := Bounds{Min: time.Duration(rapid.Int64Range(1, 1e12).Draw(t, "min"))}
		r.Max = r.Min + time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "more"))
		d := r.Delay(rapid.IntRange(0, 100).Draw(t, "attempts"), rapid.Float64Range(0, 0.999).Draw(t, "rnd"))
		if d < r.Min || d > r.Max {
			t.Fatalf("delay %v is outside %v", d, r)
		}
	})
}

// TestChance: numbers are spread evenly, can be repeated, and differ by name and order.
func TestChance(t *testing.T) {
	var tenths [10]int
	for i := range uint64(10_000) {
		f := Chance("host", i/100, i%100)
		if f < 0 || f >= 1 || f != Chance("host", i/100, i%100) {
			t.Fatalf("chance %v", f)
		}
		tenths[int(f*10)]++
	}
	for i, n := range tenths {
		if n < 850 || n > 1150 {
			t.Errorf("%d of 10000 numbers are in tenth %d", n, i)
		}
	}
	if Chance("a", 1, 2) == Chance("b", 1, 2) || Chance("a", 1, 2) == Chance("a", 2, 1) {
		t.Error("names and orders do not matter")
	}
}
