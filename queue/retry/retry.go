// Package retry says when something is tried again: a recipient, a host that is closed, a route that
// fails. It is pure: chance follows from its arguments.
package retry

import (
	"hash/fnv"
	"math"
	"time"
)

// Bounds are those of the time between two attempts for one recipient (README 3.8,
// retry_delay_min and retry_delay_max).
type Bounds struct {
	Min, Max time.Duration
}

// jitterShare of a delay is spread by chance, so that recipients that failed
// together do not all come back together.
const jitterShare = 5

// Delay is the time until the next attempt after attempts failed ones (at least
// 1): Min, doubled with each further attempt up to Max, less up to a fifth by
// chance, but never less than Min. rnd is a random number from [0,1).
func (r Bounds) Delay(attempts int, rnd float64) time.Duration {
	d := r.Min
	for i := 1; i < attempts && d < r.Max; i++ {
		d *= 2
	}
	d = min(d, r.Max)
	d -= time.Duration(rnd * float64(d/jitterShare))
	return max(d, r.Min)
}

// Chance returns a number from [0,1) that its arguments alone determine, so that a run
// of the queue can be repeated. name makes it a different one on each machine.
func Chance(name string, numbers ...uint64) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	for _, n := range numbers {
		x = mix(x ^ mix(n))
	}
	return math.Ldexp(float64(mix(x)>>11), -53)
}

// mix spreads the bits of x (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
