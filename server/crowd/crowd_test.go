package crowd

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// person is a guest in a test: what it did, in seconds before now (minute 10).
type person struct {
	name  string
	addr  string
	state State
	idle  float64 // since its last progress
	mail  float64 // since its last accepted message; 0: none
}

const present = 10 * time.Minute

func ago(seconds float64) time.Duration {
	return present - time.Duration(seconds*float64(time.Second))
}

// gather makes a crowd of these.
func gather(t *testing.T, l Limits, people []person) (*Crowd, map[*Guest]string) {
	t.Helper()
	c, names := New(l), map[*Guest]string{}
	for _, p := range people {
		g := &Guest{}
		if r, leave := c.Arrive(g, address(p.addr), 0); r != None || len(leave) > 0 {
			t.Fatalf("%s: %v, %v", p.name, r, leave)
		}
		if p.mail > 0 {
			g.Accepted(ago(p.mail))
		}
		g.Progress(ago(p.idle))
		if !g.Wait(p.state) {
			t.Fatalf("%s has to go", p.name)
		}
		names[g] = p.name
	}
	return c, names
}

func address(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func left(leave []*Guest, names map[*Guest]string) string {
	var out []string
	for _, g := range leave {
		reason, idle := g.Dismissed()
		out = append(out, fmt.Sprintf("%s:%v:%v", names[g], reason, idle))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestArrive: who is let in, and who makes room.
func TestArrive(t *testing.T) {
	ten := Limits{Max: 4, Share: 0.5, Idle: 300 * time.Second, IdleStressed: 10 * time.Second}
	for _, tt := range []struct {
		name   string
		limits Limits
		people []person
		from   string
		want   Reason
		leave  string
	}{
		{"empty", ten, nil, "192.0.2.9", None, ""},
		{"no limit", Limits{}, []person{{"a", "192.0.2.1", Waiting, 900, 0}}, "192.0.2.1", None, ""},
		{
			"longest idle", ten,
			[]person{{"a", "192.0.2.1", Waiting, 3, 0}, {"b", "192.0.2.2", Waiting, 9, 0}, {"c", "192.0.2.3", Waiting, 2, 0}, {"d", "192.0.2.4", Waiting, 4, 0}},
			"192.0.2.9", None, "b:room:9s",
		},
		{
			"who brought mail goes last", ten,
			[]person{{"a", "192.0.2.1", Waiting, 100, 100}, {"b", "192.0.2.2", Waiting, 2, 0}, {"c", "192.0.2.3", Waiting, 200, 200}, {"d", "192.0.2.4", Working, 4, 0}},
			"192.0.2.9", None, "b:room:2s",
		},
		{
			"but it goes", ten,
			[]person{{"a", "192.0.2.1", Waiting, 100, 100}, {"b", "192.0.2.2", Waiting, 0.5, 0}, {"c", "192.0.2.3", Waiting, 200, 200}, {"d", "192.0.2.4", Working, 400, 0}},
			"192.0.2.9", None, "c:room:3m20s",
		},
		{
			"nobody goes who sends, works, has just come, or brought mail within a minute", ten,
			[]person{{"a", "192.0.2.1", Sending, 900, 0}, {"b", "192.0.2.2", Working, 900, 0}, {"c", "192.0.2.3", Waiting, 0.9, 0}, {"d", "192.0.2.4", Waiting, 55, 59}},
			"192.0.2.9", Full, "",
		},
		{
			"a transaction with progress stays", ten,
			[]person{{"a", "192.0.2.1", InTransaction, 9, 0}, {"b", "192.0.2.2", InTransaction, 1, 0}, {"c", "192.0.2.3", InTransaction, 3, 0}, {"d", "192.0.2.4", InTransaction, 9.9, 0}},
			"192.0.2.9", Full, "",
		},
		{
			"one without goes", ten,
			[]person{{"a", "192.0.2.1", InTransaction, 9, 0}, {"b", "192.0.2.2", InTransaction, 11, 0}, {"c", "192.0.2.3", InTransaction, 3, 0}, {"d", "192.0.2.4", InTransaction, 9.9, 0}},
			"192.0.2.9", None, "b:room:11s",
		},
		{
			"an address has its share", ten,
			[]person{{"a", "192.0.2.1", Waiting, 5, 0}, {"b", "192.0.2.1", Waiting, 6, 0}, {"c", "192.0.2.3", Waiting, 3, 0}},
			"192.0.2.1", Share, "",
		},
		{
			"no share without stress", ten,
			[]person{{"a", "192.0.2.1", Waiting, 5, 0}, {"b", "192.0.2.1", Waiting, 6, 0}},
			"192.0.2.1", None, "",
		},
		{
			"IPv6 addresses of one net are one", ten,
			[]person{{"a", "2001:db8::1", Waiting, 5, 0}, {"b", "2001:db8::2", Waiting, 6, 0}, {"c", "192.0.2.3", Waiting, 3, 0}},
			"2001:db8::ffff", Share, "",
		},
		{
			"of other nets they are not", ten,
			[]person{{"a", "2001:db8::1", Waiting, 5, 0}, {"b", "2001:db8::2", Waiting, 6, 0}, {"c", "192.0.2.3", Waiting, 3, 0}},
			"2001:db8:0:1::1", None, "",
		},
		{
			"IPv4 in IPv6 is IPv4", ten,
			[]person{{"a", "192.0.2.1", Waiting, 5, 0}, {"b", "::ffff:192.0.2.1", Waiting, 6, 0}, {"c", "192.0.2.3", Waiting, 3, 0}},
			"192.0.2.1", Share, "",
		},
		{
			"this host has no share", ten,
			[]person{{"a", "127.0.0.1", Waiting, 5, 0}, {"b", "127.0.0.1", Waiting, 6, 0}, {"c", "127.0.0.1", Waiting, 3, 0}, {"d", "127.0.0.1", Waiting, 0, 0}},
			"127.0.0.1", None, "b:room:6s",
		},
		{
			"a Unix socket has none either", ten,
			[]person{{"a", "", Waiting, 5, 0}, {"b", "", Waiting, 6, 0}, {"c", "", Waiting, 3, 0}, {"d", "", Waiting, 0, 0}},
			"", None, "b:room:6s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, names := gather(t, tt.limits, tt.people)
			r, leave := c.Arrive(&Guest{}, address(tt.from), present)
			if got := left(leave, names); r != tt.want || got != tt.leave {
				t.Errorf("%v, and %q goes; want %v and %q", r, got, tt.want, tt.leave)
			}
		})
	}
}

// TestSurplus: under stress an address is brought down to its share, the others stay.
func TestSurplus(t *testing.T) {
	var people []person
	for i := range 6 { // it came while there was no stress
		people = append(people, person{fmt.Sprint("a", i), "192.0.2.1", Waiting, 5 + float64(i), 0})
	}
	people = append(people, person{"b", "192.0.2.2", Waiting, 60, 0}, person{"c", "192.0.2.3", Waiting, 2, 0})
	c, names := gather(t, Limits{Max: 10, Share: 0.4, Idle: 300 * time.Second, IdleStressed: 250 * time.Second}, people)
	if !c.Stressed() {
		t.Fatal("no stress")
	}
	leave := c.Sweep(present)
	if len(leave) != 2 || leave[0].reason != Share || names[leave[0]][0] != 'a' || names[leave[1]][0] != 'a' {
		t.Errorf("%q goes", left(leave, names))
	}
	if leave = c.Sweep(present); len(leave) > 0 {
		t.Errorf("then %q goes", left(leave, names))
	}
	// For a newcomer, first a client goes whose address has more than its share.
	people = append(people[:6], person{"b", "192.0.2.2", Waiting, 60, 0}, person{"c", "192.0.2.3", Waiting, 2, 0})
	c, names = gather(t, Limits{Max: 8, Share: 1, Idle: 300 * time.Second, IdleStressed: 250 * time.Second}, people)
	c.limits.Share = 0.5
	r, leave := c.Arrive(&Guest{}, address("192.0.2.9"), present)
	if got := left(leave, names); r != None || got != "a5:room:10s" {
		t.Errorf("%v, and %q goes", r, got)
	}
}

// TestIdleTime: the time that an idle client gets shrinks with the sessions that are left.
func TestIdleTime(t *testing.T) {
	l := Limits{Max: 100, Share: 1, Idle: 320 * time.Second, IdleStressed: 10 * time.Second}
	c := New(l)
	var guests []*Guest
	last := l.Idle
	for n := 1; n <= 100; n++ {
		g := &Guest{}
		guests = append(guests, g)
		if r, _ := c.Arrive(g, address("192.0.2.1"), 0); r != None {
			t.Fatal(n, r)
		}
		d := c.IdleTime()
		if c.Stressed() != (n >= 75) || d > last || n < 75 && d != l.Idle {
			t.Errorf("%d sessions: stress %v, idle time %v after %v", n, c.Stressed(), d, last)
		}
		last = d
	}
	if last != l.IdleStressed {
		t.Errorf("at the end %v", last)
	}
	for n := 99; n >= 0; n-- {
		c.Depart(guests[n])
		if c.Stressed() != (n >= 63) {
			t.Errorf("%d sessions are left: stress %v", n, c.Stressed())
		}
	}
	if c.IdleTime() != l.Idle || c.Len() != 0 || len(c.of) != 0 {
		t.Errorf("at the end %v, %d sessions, %d addresses", c.IdleTime(), c.Len(), len(c.of))
	}
}

// TestSweep: who is idle for too long goes without a newcomer.
func TestSweep(t *testing.T) {
	c, names := gather(t, Limits{Max: 4, Share: 1, Idle: 300 * time.Second, IdleStressed: 10 * time.Second}, []person{
		{"a", "192.0.2.1", Waiting, 11, 0},
		{"b", "192.0.2.2", Waiting, 9, 0},
		{"c", "192.0.2.3", Waiting, 50, 50},
		{"d", "192.0.2.4", InTransaction, 12, 0},
	})
	if got := left(c.Sweep(present), names); got != "a:stress_timeout:11s d:stress_timeout:12s" {
		t.Errorf("%q goes", got)
	}
	if c.Len() != 4 || c.Stressed() {
		t.Errorf("%d sessions, stress %v", c.Len(), c.Stressed())
	}
	if leave := c.Sweep(2 * present); len(leave) > 0 {
		t.Errorf("without stress %q goes", left(leave, names))
	}
}

// TestLateStep: a client that makes a step while the decision is made stays, and one
// that was told to go does nothing any more.
func TestLateStep(t *testing.T) {
	g := &Guest{}
	g.Progress(time.Second)
	g.Wait(Waiting)
	st := g.standing()
	if !g.Resume() || g.leave(st, Room, time.Minute) {
		t.Error("it is dismissed though it has begun to work")
	}
	g.Wait(Waiting)
	if !g.leave(g.standing(), Room, time.Minute) || g.Resume() || g.Wait(Waiting) || g.Wait(Sending) {
		t.Error("it goes on though it was dismissed")
	}
}

// TestNobody: when nobody can make room the next newcomers cost no look at all, for a second.
func TestNobody(t *testing.T) {
	c, names := gather(t, Limits{Max: 1, Share: 1, Idle: 300 * time.Second, IdleStressed: 10 * time.Second}, []person{{"a", "192.0.2.1", Working, 5, 0}})
	if r, _ := c.Arrive(&Guest{}, address("192.0.2.2"), present); r != Full {
		t.Fatal(r)
	}
	for g := range names {
		g.Wait(Waiting) // it has waited for us and is idle now
	}
	if r, _ := c.Arrive(&Guest{}, address("192.0.2.2"), present+graceIdle-1); r != Full {
		t.Fatal(r)
	}
	if r, leave := c.Arrive(&Guest{}, address("192.0.2.2"), present+graceIdle); r != None || len(leave) != 1 {
		t.Fatal(r, leave)
	}
}

// TestExile: who had to go does not come again at once, unless it brought mail or stress is
// over.
func TestExile(t *testing.T) {
	l := Limits{Max: 4, Share: 1, Idle: 300 * time.Second, IdleStressed: 10 * time.Second}
	people := []person{
		{"a", "192.0.2.1", Waiting, 100, 0}, {"b", "192.0.2.2", Working, 0, 0}, {"c", "192.0.2.3", Working, 0, 0}, {"d", "192.0.2.4", Waiting, 90, 90},
	}
	c, names := gather(t, l, people)
	newcomer := &Guest{}
	r, leave := c.Arrive(newcomer, address("192.0.2.9"), present)
	if r != None || left(leave, names) != "a:room:1m40s" {
		t.Fatal(r, left(leave, names))
	}
	c.Depart(leave[0])
	for _, tt := range []struct {
		from string
		now  time.Duration
		want Reason
	}{
		{"192.0.2.1", present + time.Second, Exiled},
		{"192.0.2.1", present + exile - 1, Exiled},
		{"192.0.2.1", present + exile, None}, // in the place of d
		{"192.0.2.4", present + exile, None}, // which had brought mail
	} {
		g := &Guest{}
		r, leave := c.Arrive(g, address(tt.from), tt.now)
		if r != tt.want {
			t.Errorf("%s after %v: %v, want %v", tt.from, tt.now-present, r, tt.want)
		}
		for _, g := range leave {
			c.Depart(g)
		}
		if r == None {
			c.Depart(g)
		}
	}
	c, _ = gather(t, l, people)
	if r, leave := c.Arrive(newcomer, address("192.0.2.9"), present); r != None || len(leave) != 1 {
		t.Fatal(r, leave)
	}
	for g := range maps.Clone(c.guests) {
		c.Depart(g)
	}
	if r, _ := c.Arrive(&Guest{}, address("192.0.2.1"), present+1); r != None {
		t.Errorf("after the stress: %v", r)
	}
}

// TestIdentify: a proxied client counts for its own address from then on.
func TestIdentify(t *testing.T) {
	c, _ := gather(t, Limits{Max: 4, Share: 0.5, Idle: time.Minute, IdleStressed: time.Second}, []person{
		{"a", "192.0.2.1", Waiting, 5, 0}, {"b", "192.0.2.1", Waiting, 6, 0},
	})
	proxied, other := &Guest{}, &Guest{}
	for _, g := range []*Guest{proxied, other} {
		if r, _ := c.Arrive(g, netip.Addr{}, present); r != None {
			t.Fatal(r)
		}
	}
	if r := c.Identify(proxied, address("192.0.2.1"), present); r != Share {
		t.Errorf("beyond the share: %v", r)
	}
	if r := c.Identify(other, address("192.0.2.2"), present); r != None {
		t.Errorf("within it: %v", r)
	}
	c.Depart(proxied)
	if c.of[address("192.0.2.1")] != 2 || c.of[address("192.0.2.2")] != 1 || len(c.of) != 2 {
		t.Errorf("counts %v", c.of)
	}
}

// TestRandom: whatever comes and goes, the counts are right, and never are there more
// guests than Max and those on their way out.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := Limits{Max: 20, Share: 0.3, Idle: 60 * time.Second, IdleStressed: 2 * time.Second}
	c := New(l)
	var in []*Guest
	now, went, refused := time.Duration(0), 0, 0
	for range 100_000 {
		now += time.Duration(r.IntN(300)) * time.Millisecond
		i := r.IntN(len(in) + 1)
		switch op := r.IntN(10); {
		case op < 4 || i == len(in):
			g := &Guest{}
			reason, leave := c.Arrive(g, netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(8))}), now)
			went += len(leave)
			if reason != None {
				refused++
				continue
			}
			g.Progress(now)
			in = append(in, g)
		case op < 5:
			c.Depart(in[i])
			in = slices.Delete(in, i, i+1)
		case op < 6:
			in[i].Accepted(now)
		case op < 7:
			c.Identify(in[i], netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(8))}), now)
		case op < 8:
			went += len(c.Sweep(now))
		default:
			in[i].Progress(now)
			in[i].Wait(State(r.IntN(int(Leaving))))
		}
		gone, of := 0, 0
		for g := range c.guests {
			if g.standing().state == Leaving {
				gone++
			}
		}
		for _, n := range c.of {
			of += n
		}
		if len(in) != c.Len() || gone != c.leaving || of != c.staying() || c.staying() > l.Max || gone > l.Max {
			t.Fatalf("%d in, %d known, %d of %d leave, %d by address", len(in), c.Len(), gone, c.leaving, of)
		}
	}
	if went == 0 || refused == 0 {
		t.Errorf("%d had to go, %d were refused: the test proves nothing", went, refused)
	}
}

func BenchmarkArriveFull(b *testing.B) {
	c := New(Limits{Max: 10_000, Share: 1, Idle: 5 * time.Minute, IdleStressed: 10 * time.Second})
	for i := range 10_000 {
		g := &Guest{}
		c.Arrive(g, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 0)
		g.Wait(Waiting)
	}
	now := time.Minute
	for b.Loop() {
		now += time.Millisecond
		g := &Guest{}
		_, leave := c.Arrive(g, netip.AddrFrom4([4]byte{192, 0, 2, 1}), now)
		g.Progress(now)
		g.Wait(Waiting)
		for _, l := range leave {
			c.Depart(l)
		}
	}
}
