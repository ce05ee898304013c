package lookup

import (
	"testing"
	"time"

	"meta1/mta/msg"
)

// TestRoutes: a route is used until the shortest of its expiries, which are of the machine's clock, and
// no longer than the maps hold that it was found in.
func TestRoutes(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	answer := func(expires time.Time, hosts int) *msg.RouteA {
		return &msg.RouteA{Dest: "mx:d.test", Hops: make([]msg.Hop, hosts), Expires: expires}
	}
	r := NewRoutes()
	r.Configure(begin, false)
	hosts := func(s, want int) {
		t.Helper()
		if got := len(r.Of(at(s), "mx:d.test")); got != want {
			t.Errorf("after %d s it has %d hosts, want %d", s, got, want)
		}
	}
	hosts(0, 0)
	r.Keep(at(1), answer(time.Time{}, 1), at(0), 0)
	hosts(1, 0) // it has no expiry
	r.Keep(at(1), answer(at(1), 1), at(0), 0)
	hosts(1, 0) // it is over
	r.Keep(at(1), answer(at(30), 1), at(0), 10*time.Second)
	hosts(19, 1)
	hosts(20, 0)
	r.Keep(at(2), answer(at(60), 2), at(1), 0)
	hosts(19, 1) // what is shorter holds
	r.Keep(at(3), answer(at(10), 3), at(2), 0)
	hosts(9, 3)
	r.Configure(at(5), false)
	hosts(5, 0) // it was asked for before
	r.Keep(at(6), answer(at(60), 2), at(4), 0)
	hosts(6, 0)
	r.Keep(at(6), answer(at(60), 2), at(5), 0)
	hosts(6, 2)
	r.Sweep(at(7))
	hosts(7, 2)
	r.Sweep(at(60))
	hosts(7, 0)
	r.Keep(at(8), answer(at(60), 2), at(8), 0)
	r.Forget("mx:d.test")
	hosts(8, 0)
	r.Configure(at(9), true)
	r.Keep(at(10), answer(at(60), 2), at(10), 0)
	hosts(10, 0) // each recipient is looked up
	if r.Sweep(at(10)); len(r.known) != 0 {
		t.Error("it is kept for nobody")
	}
}
