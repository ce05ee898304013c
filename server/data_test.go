package server

import (
	"math"
	"testing"
	"time"
)

// TestTooMuch: what a refused message may still send is bounded for each
// message_size_max, the largest that the option takes too.
func TestTooMuch(t *testing.T) {
	for _, m := range []struct {
		sizeMax, size int64
		flood         bool
	}{
		{0, math.MaxInt64 / 2, false},
		{1000, 2000 + drainMin, false},
		{1000, 2001 + drainMin, true},
		{1 << 61, 1 << 40, false},
		{1<<62 + 1, 1, false},
		{math.MaxInt64, 1, false},
		{math.MaxInt64, math.MaxInt64, false},
	} {
		c := &session{srv: &Server{cfg: Config{MessageSizeMax: m.sizeMax}}}
		err := c.tooMuch(m.size, time.Now())
		if (err != nil) != m.flood {
			t.Errorf("message_size_max %d, %d bytes: %v", m.sizeMax, m.size, err)
		}
	}
}
