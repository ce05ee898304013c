package msg

import (
	"net/netip"
	"testing"
	"time"
)

// TestThrottles: the lowest limit that holds for an address counts, until it ends.
func TestThrottles(t *testing.T) {
	var l Throttles
	changes := 0
	l.OnChange(func() { changes++ })
	now := time.Unix(1000, 0)
	put := func(kind ThrottleKind, net string, most int, until time.Time) error {
		p := netip.Prefix{}
		if net != "" {
			p = netip.MustParsePrefix(net)
		}
		return l.Put(Throttle{Kind: kind, Net: p, Max: most, Reason: "test", Until: until})
	}
	for _, err := range []error{
		put(ThrottleInOpen, "", 10, time.Time{}), put(ThrottleInOpen, "192.0.2.0/24", 3, now.Add(time.Minute)),
		put(ThrottleInOpen, "192.0.2.7/24", 2, now.Add(time.Minute)), put(ThrottleOutOpen, "2001:db8::/32", 1, time.Time{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(l.List()) != 3 || changes != 4 {
		t.Errorf("%d limits after %d changes", len(l.List()), changes)
	}
	of := func(kind ThrottleKind, ip string) int {
		if n, ok := l.Of(kind, netip.MustParseAddr(ip)); ok {
			return n
		}
		return -1
	}
	for _, c := range []struct {
		kind ThrottleKind
		ip   string
		want int
	}{
		{ThrottleInOpen, "192.0.2.200", 2},
		{ThrottleInOpen, "::ffff:192.0.2.200", 2},
		{ThrottleInOpen, "192.0.3.1", 10},
		{ThrottleInOpen, "127.0.0.1", -1},
		{ThrottleInRate, "192.0.2.200", -1},
		{ThrottleOutOpen, "2001:db8::1", 1},
	} {
		if got := of(c.kind, c.ip); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if ended := l.Expire(now); len(ended) != 0 {
		t.Errorf("%v have ended early", ended)
	}
	if ended := l.Expire(now.Add(time.Minute)); len(ended) != 1 || of(ThrottleInOpen, "192.0.2.200") != 10 {
		t.Errorf("%v have ended", ended)
	}
	for _, bad := range []error{put("x", "", 1, now), put(ThrottleOutOpen, "", 0, now), put(ThrottleInRate, "", -1, now), l.Put(Throttle{Kind: ThrottleInRate, Max: 1})} {
		if bad == nil {
			t.Error("a wrong limit is set")
		}
	}
	if ended := l.Clear(ThrottleOutOpen, netip.MustParsePrefix("2001:db8:1::/32")); len(ended) != 1 {
		t.Errorf("%v were cleared", ended)
	}
	if ended := l.Clear("", netip.Prefix{}); len(ended) != 1 || len(l.List()) != 0 {
		t.Errorf("%v were cleared", ended)
	}
	for range throttlesMax + 5 {
		changes++
		_ = l.Put(Throttle{Kind: ThrottleInOpen, Net: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(changes >> 8), byte(changes)}), 32), Reason: "x"})
	}
	if len(l.List()) != throttlesMax {
		t.Errorf("%d limits", len(l.List()))
	}
	var g Gate
	if _, closed := g.Closed(); closed {
		t.Error("closed")
	}
	g.Close("why")
	if why, closed := g.Closed(); !closed || why != "why" {
		t.Error("open")
	}
	g.Open()
}
