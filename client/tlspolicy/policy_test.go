package tlspolicy

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestWays: what is tried, in which order, for each policy and each memory of the host.
func TestWays(t *testing.T) {
	for _, c := range []struct {
		name    string
		p       Policy
		known   Way
		offered bool
		want    []Way
	}{
		{"may", Policy{Need: May}, Resume, false, []Way{Resume, Reduced, Plain}},
		{"may with a session", Policy{Need: May}, Resume, true, []Way{Resume, Full, Reduced, Plain}},
		{"may at a host that breaks what is new", Policy{Need: May}, Reduced, false, []Way{Reduced, Plain}},
		{"may at a host that breaks all", Policy{Need: May}, Plain, false, []Way{Plain}},
		{"must", Policy{Need: Must}, Resume, true, []Way{Resume, Full, Reduced}},
		{"must at a host that breaks what is new", Policy{Need: Must}, Reduced, false, []Way{Reduced}},
		{"must at a host that breaks all", Policy{Need: Must}, Plain, false, []Way{Resume, Reduced}},
		{"implicit", Policy{Need: May, Implicit: true}, Plain, false, []Way{Resume, Reduced}},
		{"dane", Policy{Need: DANE, Records: "x"}, Plain, true, []Way{Resume, Full, Reduced}},
	} {
		way, more := c.p.First(c.known), true
		for i, want := range c.want {
			if !more || way != want {
				t.Errorf("%s: way %d is %v (%v), want %v", c.name, i, way, more, want)
				break
			}
			way, more = c.p.Next(way, c.offered)
		}
		if more {
			t.Errorf("%s: %v is tried, too", c.name, way)
		}
	}
	for w, want := range map[Way]string{Resume: "resume", Full: "full", Reduced: "reduced", Plain: "plain"} {
		if w.String() != want {
			t.Errorf("%d is %q", w, w)
		}
	}
	for n, want := range map[Need]string{None: "none", May: "may", Must: "must", DANE: "dane"} {
		if n.String() != want {
			t.Errorf("%d is %q", n, n)
		}
	}
}

// TestFailures: a failure counts for its time and no longer, however often it is noted, and
// only for its host and class.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFailures()
		host := FailureKey{Host: netip.MustParseAddrPort("192.0.2.1:25")}
		is := func(k FailureKey, want Way) {
			t.Helper()
			if got := f.Known(k); got != want {
				t.Errorf("%v is %v, want %v", k, got, want)
			}
		}
		f.Note(host, Plain)
		is(host, Plain)
		is(FailureKey{Host: host.Host, Class: "other"}, Resume)
		is(FailureKey{Host: netip.MustParseAddrPort("192.0.2.1:2525")}, Resume)
		time.Sleep(FailureTTL - time.Second)
		f.Note(host, Plain)
		is(host, Plain)
		time.Sleep(time.Second)
		is(host, Resume)

		f.Note(host, Reduced)
		time.Sleep(FailureTTL / 2)
		f.Note(host, Plain)
		time.Sleep(FailureTTL / 2)
		is(host, Plain)
		f.Note(host, Full)
		is(host, Resume)
	})
}

// TestFailuresBounded: the oldest go first, and those whose time is over with them.
func TestFailuresBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFailures()
		key := func(i int) FailureKey {
			return FailureKey{Host: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 25)}
		}
		const n = failuresMax + 100
		for i := range n {
			f.Note(key(i), Plain)
		}
		if f.Len() != failuresMax {
			t.Errorf("%d are remembered", f.Len())
		}
		if f.Known(key(99)) != Resume || f.Known(key(100)) != Plain || f.Known(key(n-1)) != Plain {
			t.Error("it is not the oldest that were forgotten")
		}
		time.Sleep(FailureTTL)
		f.Note(key(0), Plain)
		if f.Len() != 1 {
			t.Errorf("%d are remembered after their time", f.Len())
		}
	})
}

// TestReduce: what the operator does not allow is not used.
func TestReduce(t *testing.T) {
	for _, c := range []struct {
		curves []tls.CurveID
		min    uint16
		want   []tls.CurveID
		max    uint16
	}{
		{nil, tls.VersionTLS12, []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}, tls.VersionTLS12},
		{[]tls.CurveID{tls.X25519MLKEM768, tls.CurveP384}, 0, []tls.CurveID{tls.CurveP384}, tls.VersionTLS12},
		{[]tls.CurveID{tls.X25519MLKEM768}, tls.VersionTLS13, []tls.CurveID{tls.X25519MLKEM768}, 0},
	} {
		cfg := &tls.Config{CurvePreferences: c.curves, MinVersion: c.min, Certificates: []tls.Certificate{{}}}
		Reduce(cfg)
		if !slices.Equal(cfg.CurvePreferences, c.want) || cfg.MaxVersion != c.max || cfg.Certificates != nil {
			t.Errorf("%v from %x: %v up to %x", c.curves, c.min, cfg.CurvePreferences, cfg.MaxVersion)
		}
	}
}
