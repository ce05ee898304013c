package sched

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
)

func every(*running) bool { return true }

// failed is the result of a delivery to a host that is down.
func failed() Result { return Result{Verdict: HostFailed, Reason: "451 4.4.1 connection refused"} }

// close makes a host closed by deliveries that fail.
func (m *model) close(t *testing.T, dest int) *Host {
	t.Helper()
	for range 10 {
		m.arrive("closer", 1, dest)
		for m.endOf(every, failed()) {
		}
		if d := m.destination(dest); m.s.AllClosed(m.now, d) {
			h := m.s.HostsOf(d)[0]
			m.s.AddEntries(d, 0)
			m.deferred, m.parked, m.parkedAt = nil, map[int][]*mail{}, map[*Host]map[int]bool{}
			m.s.AddParked(m.now, h, -h.parked)
			return h
		}
	}
	t.Fatal("the host does not close")
	return nil
}

// TestOneProbe: when the time of a closed host is over, one of the messages that are
// parked for it is tried. If the host serves it, all others come, else none.
func TestOneProbe(t *testing.T) {
	m := newModel(config())
	d := m.addDest(1)
	h := m.close(t, d)
	for range 20 {
		m.arrive("s", 1, d)
	}
	if len(m.running) != 0 || len(m.parked[d]) != 20 || h.parked != 20 || h.state(m.now) != msg.HostClosed {
		t.Fatalf("%d deliveries, %d parked, counted %d, %s", len(m.running), len(m.parked[d]), h.parked, h.state(m.now))
	}
	for probe, want := range []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
		// By chance it is up to a fifth shorter, but not shorter than the shortest.
		if wait := h.Until().Sub(m.now); wait > want || wait < min(want*4/5, want) {
			t.Errorf("probe %d after %v, want %v", probe, wait, want)
		}
		m.pass(h.Until().Sub(m.now) - time.Second)
		if len(m.running) != 0 {
			t.Fatal("a delivery to a closed host")
		}
		m.pass(time.Second)
		if len(m.running) != 1 || h.state(m.now) != msg.HostProbe {
			t.Fatalf("probe %d: %d deliveries", probe, len(m.running))
		}
		m.arrive("s", 1, d) // it waits for the probe
		if m.pass(time.Second); len(m.running) != 1 {
			t.Fatalf("%d deliveries while one probes", len(m.running))
		}
		if out := m.end(0, failed()); !out.Closed {
			t.Error("a probe that failed does not close the host")
		}
	}
	m.pass(h.Until().Sub(m.now))
	for len(m.running) > 0 {
		m.end(0, Result{Verdict: Served})
	}
	if n := len(m.parked[d]); n != 0 || h.parked != 0 || h.state(m.now) != msg.HostServes || m.s.Stats().Down.Now != 0 {
		t.Errorf("%d messages are still parked, %d counted", n, h.parked)
	}
}

// TestProbeIsRepeated: if the caller has nothing that probes, it is asked again.
func TestProbeIsRepeated(t *testing.T) {
	m := newModel(config())
	h := m.close(t, m.addDest(1))
	m.s.AddParked(m.now, h, 1)
	m.now = h.Until()
	for i := range 3 {
		if at := m.s.NextAlarm(); !at.Equal(m.now) {
			t.Fatalf("alarm at %v, want %v", at, m.now)
		}
		m.s.Tick(m.now)
		if c := m.s.Changes(); len(c) != 1 || c[0] != (HostChange{Host: h, What: ProbeDue}) {
			t.Fatalf("question %d: %v", i, c)
		}
		m.now = m.now.Add(m.cfg.Retry.Min)
	}
	m.s.AddParked(m.now, h, -1)
	if at := m.s.NextAlarm(); !at.IsZero() {
		t.Errorf("an alarm at %v for a host that nobody waits for", at)
	}
}

// TestFlushProbesAtOnce: an operator need not wait until the time of a host is over.
func TestFlushProbesAtOnce(t *testing.T) {
	m := newModel(config())
	d := m.addDest(1)
	h := m.close(t, d)
	m.arrive("s", 1, d)
	m.arrive("s", 1, d)
	m.s.ProbeAll(m.now)
	m.settle()
	if len(m.running) != 1 || h.Closed(m.now) {
		t.Fatalf("%d deliveries after a flush", len(m.running))
	}
	m.end(0, Result{Verdict: Served})
	if len(m.running) != 1 {
		t.Errorf("%d deliveries to a host that serves", len(m.running))
	}
}

// TestOthersPassAProbe: while one delivery probes the first host of a destination, its
// other mail goes to the second.
func TestOthersPassAProbe(t *testing.T) {
	m := newModel(config())
	first, both := m.addDest(1), m.addDest(1, 2)
	h := m.close(t, first)
	for range 3 {
		m.arrive("s", 1, both)
	}
	if !m.endOf(to(hopOf(2)), Result{Verdict: Served}) || len(m.running) != 2 {
		t.Fatal("the mail does not go to the second host")
	}
	m.pass(h.Until().Sub(m.now))
	for range 3 {
		m.arrive("s", 1, both)
	}
	n := map[msg.Hop]int{}
	for _, r := range m.running {
		n[r.Hop]++
	}
	if n[hopOf(1)] != 1 || n[hopOf(2)] != 4 {
		t.Errorf("deliveries %v", n)
	}
}

// TestNoneLeft: a job that has failed at the only open host is deferred alone.
func TestNoneLeft(t *testing.T) {
	cfg := config()
	cfg.Limits = limits(1, 10)
	m := newModel(cfg)
	first, both := m.addDest(1), m.addDest(1, 2)
	m.close(t, first)
	m.arrive("s", 1, both)
	m.arrive("s", 1, both)
	d := m.running[0]
	m.running = nil
	out := m.s.Done(m.now, d.Delivery, Result{Verdict: Served})
	if !out.HasNext {
		t.Fatal("the first host was not tried")
	}
	d.m.waits = 1 // it was refused
	m.s.Again(d.Delivery, d.m)
	m.settle()
	if len(m.deferred) != 1 || len(m.running) != 1 || m.running[0].m == d.m {
		t.Errorf("%d deferred, %d deliveries", len(m.deferred), len(m.running))
	}
}

// TestHostsPerAttempt: after a failure the next host is tried, but not more than so many.
func TestHostsPerAttempt(t *testing.T) {
	cfg := config()
	cfg.HostsPerAttempt = 3
	m := newModel(cfg)
	d := m.addDest(1, 2, 3, 4)
	m.arrive("s", 1, d)
	for i := 1; i <= 3; i++ {
		if len(m.running) != 1 || m.running[0].Hop != hopOf(i) {
			t.Fatalf("attempt %d goes to %v", i, m.running[0].Hop)
		}
		if out := m.end(0, failed()); out.HasNext != (i < 3) {
			t.Errorf("after host %d there is another: %v", i, out.HasNext)
		}
	}
	if len(m.running) != 0 || len(m.deferred) != 1 {
		t.Errorf("%d deliveries, %d deferred", len(m.running), len(m.deferred))
	}
}

// TestHostWithFewConnections: a host that takes two connections at once refuses further
// ones. No message is charged for that, none waits while the host is idle, and it is not
// bothered often.
func TestHostWithFewConnections(t *testing.T) {
	for name, others := range map[string]int{"others known": 2, "others not known": 0} {
		t.Run(name, func(t *testing.T) {
			m := newModel(config())
			d := m.addDest(1)
			for i := range 200 {
				m.arrive(fmt.Sprint("s", i%7), 1, d)
			}
			served, refused := 0, 0
			for step := 0; served < 200; step++ {
				if step == 1000 {
					t.Fatalf("%d served, %d deferred", served, len(m.deferred))
				}
				for len(m.running) > 2 { // the later ones are refused
					out := m.end(len(m.running)-1, Result{Verdict: TooMany, Others: others})
					if refused++; out.Verdict != TooMany || out.Closed {
						t.Fatalf("refusal %d: %+v", refused, out)
					}
				}
				if len(m.running) == 0 {
					t.Fatalf("the host is idle, %d of 200 are served", served)
				}
				m.pass(2 * time.Second)
				m.end(0, Result{Verdict: Served})
				served++
			}
			// 400 seconds: eight at first, then one each minute.
			if refused > 8+7 || len(m.deferred) != 0 {
				t.Errorf("%d connections were refused, %d messages deferred", refused, len(m.deferred))
			}
		})
	}
}

// TestRefusedAlone: a host that refuses the only connection has failed, unless another
// one has worked meanwhile.
func TestRefusedAlone(t *testing.T) {
	m := newModel(config())
	d := m.addDest(1)
	m.arrive("s", 1, d)
	m.arrive("s", 1, d)
	m.now = m.now.Add(time.Second)
	m.end(0, Result{Verdict: Served})
	if out := m.end(0, Result{Verdict: TooMany}); out.Verdict != TooMany || len(m.running) != 1 {
		t.Fatalf("refused beside one that worked: %+v, %d deliveries", out, len(m.running))
	}
	if out := m.end(0, Result{Verdict: TooMany}); out.Verdict != HostFailed || len(m.deferred) != 1 {
		t.Errorf("refused alone: %+v, %d deferred", out, len(m.deferred))
	}
	// A host that refuses all of several connections is closed in the end.
	m = newModel(config())
	d = m.addDest(1)
	for range 10 {
		m.arrive("s", 1, d)
	}
	for n := 0; len(m.running) > 0; n++ {
		if m.end(0, Result{Verdict: TooMany}); n > 100 {
			t.Fatal("it is tried for ever")
		}
	}
	if h := m.s.HostsOf(m.destination(d)); !h[0].Closed(m.now) || len(m.deferred) != 1 || len(m.parked[d]) != 9 {
		t.Errorf("closed %v, %d deferred, %d parked", h[0].Closed(m.now), len(m.deferred), len(m.parked[d]))
	}
}

// TestRefusedBesideClosed: a host that takes one connection may still count the last one when
// SMTPC opens the next, or have refused one because of others that were idle. It gets some
// seconds to notice that they are gone, in which it is left alone for longer and longer.
func TestRefusedBesideClosed(t *testing.T) {
	for _, lasts := range []time.Duration{50 * time.Millisecond, time.Second, 4 * time.Second, time.Hour} {
		t.Run(lasts.String(), func(t *testing.T) {
			cfg := config()
			cfg.Limits = limits(1, 1)
			m := newModel(cfg)
			d := m.addDest(1)
			for range 3 {
				m.arrive("s", 1, d)
			}
			m.end(0, Result{Verdict: Served})
			m.pass(time.Hour - time.Second) // idle for long
			closed, refused := m.now, 0
			for len(m.running) > 0 {
				if m.now.Sub(closed) >= lasts {
					m.end(0, Result{Verdict: Served})
					closed = m.now
					continue
				}
				refused++
				out := m.end(0, Result{Verdict: TooMany, Others: 1})
				if out.Verdict != TooMany {
					break
				}
				if len(m.running) > 0 {
					t.Fatal("it is tried again at once")
				}
				m.pass(m.s.NextAlarm().Sub(m.now))
			}
			if lasts < crowdedMax != (len(m.deferred) == 0) || refused > 2*8 {
				t.Errorf("%d refusals, %d deferred", refused, len(m.deferred))
			}
		})
	}
}

// TestPlacesOfAHostGoRound: of the destinations that wait for a host, none gets a third
// place while another waits for one, and the backlog gets a quarter.
func TestPlacesOfAHostGoRound(t *testing.T) {
	cfg := config()
	cfg.Limits = limits(1, 1)
	m := newModel(cfg)
	for range 3 {
		m.addDest(1)
	}
	got, classes := map[int]int{}, map[Class]int{}
	m.onStart = func(r *running) { got[r.m.dest]++; classes[r.m.class]++ }
	for i := range 100 {
		m.arrive(fmt.Sprint("big", i%3), 1, 0)
	}
	for i := range 40 {
		m.arrive("b", 1, 1)
		m.add(&mail{from: fmt.Sprint("old", i), class: Deferred, arrival: m.now, dest: 2, waits: 1, perStart: 1})
	}
	for range 40 {
		m.end(0, Result{Verdict: Served})
	}
	if got[0] < 15 || got[1] < 14 || got[2] < 9 || got[2] > 11 || classes[Deferred] != got[2] {
		t.Errorf("deliveries for the destinations %v, of the classes %v", got, classes)
	}
}

// TestConnectionRate: a rate counts connections that are opened, not deliveries.
func TestConnectionRate(t *testing.T) {
	for _, reuse := range []bool{false, true} {
		t.Run(fmt.Sprint("reuse ", reuse), func(t *testing.T) {
			cfg := config()
			cfg.Limits = func(HostKey) HostLimits { return HostLimits{Window: Limits{Initial: 10, Max: 100}, Rate: 4} }
			m := newModel(cfg)
			d := m.addDest(1)
			var opened []time.Time
			idle := 0
			reused := map[*running]bool{}
			m.onStart = func(r *running) {
				if reused[r] = reuse && idle > 0; reused[r] {
					idle--
				} else {
					opened = append(opened, m.now)
				}
			}
			for range 20 {
				m.arrive("s", 1, d)
			}
			served := 0
			serve := func() {
				for r := m.running; len(r) > 0; r = m.running {
					m.pass(100 * time.Millisecond)
					idle++
					m.end(0, Result{Verdict: Served, Reused: reused[r[0]], Keeps: true})
					served++
				}
			}
			serve()
			if !reuse && served != 5 || reuse && served != 20 { // the fifth finds out
				t.Errorf("%d served at first", served)
			}
			for served < 20 && m.now.Before(time.Unix(1e9, 0).Add(time.Hour)) {
				m.pass(time.Second)
				serve()
			}
			for i := 5; i < len(opened); i++ {
				if d := opened[i].Sub(opened[i-4]); d < time.Minute {
					t.Errorf("5 connections within %v", d)
				}
			}
			if served != 20 || reuse != (len(opened) == 4) {
				t.Errorf("%d served, %d connections", served, len(opened))
			}
		})
	}
}

// TestRateCorrections: a delivery that turns out to have used an open connection gives
// its place back; one that opened a connection after all takes one.
func TestRateCorrections(t *testing.T) {
	now := time.Unix(1000, 0)
	r := &rate{max: 3}
	expect := func(n int, when string) {
		t.Helper()
		if got := r.free(now); got != n {
			t.Fatalf("%s: %d free, want %d", when, got, n)
		}
	}
	for range 3 {
		if !r.start(now) {
			t.Fatal("the first connections do not count")
		}
	}
	expect(0, "three connections")
	r.ended(now, now, true, connReused, false)
	expect(1, "one was open before")
	r.ended(now, now, true, connOpened, true)
	expect(2, "an open one is free")
	if r.start(now) {
		t.Error("the open one counts as a new one")
	}
	r.ended(now, now, false, connUntried, false)
	expect(2, "it was not used, and is free again")
	r.start(now)
	r.ended(now, now, false, connOpened, false) // it was closed meanwhile
	expect(0, "three connections again")
	r.ended(now, now, true, connOpened, true)
	expect(0, "a host that closed a connection is not taken to keep another")
	r.ended(now, now, true, connUntried, false)
	expect(1, "no connection was tried")
	r.start(now)
	now = now.Add(59 * time.Second)
	expect(0, "a second before the minute is over")
	now = now.Add(time.Second)
	expect(3, "a minute later")
}

// TestCacheTimeout: octo is how long a host stays closed, and after how long an unused
// host begins with slow start anew.
func TestCacheTimeout(t *testing.T) {
	cfg := config()
	cfg.Limits = func(HostKey) HostLimits {
		return HostLimits{Window: Limits{Initial: 1, Max: 8}, Timeout: 10 * time.Minute}
	}
	m := newModel(cfg)
	d := m.addDest(1)
	h := m.close(t, d)
	m.arrive("s", 1, d)
	for range 3 {
		if wait := h.Until().Sub(m.now); wait != 10*time.Minute {
			t.Fatalf("closed for %v", wait)
		}
		m.pass(10 * time.Minute)
		m.end(0, failed())
		m.comeBack(1)
	}
	m.pass(10 * time.Minute)
	m.end(0, Result{Verdict: Served})
	burst := func() (most int) {
		for range 20 {
			m.arrive("s", 1, d)
		}
		first := len(m.running)
		for len(m.running) > 0 {
			m.end(0, Result{Verdict: Served})
		}
		return first
	}
	burst()
	for _, c := range []struct {
		pause time.Duration
		want  int
	}{{5 * time.Minute, 8}, {9 * time.Minute, 8}, {11 * time.Minute, 1}, {time.Minute, 8}} {
		m.pass(c.pause)
		if n := burst(); n != c.want {
			t.Errorf("after a pause of %v slow start with %d, want %d", c.pause, n, c.want)
		}
	}
	if m.pass(time.Hour); len(m.s.hosts) != 0 || !m.s.NextAlarm().IsZero() {
		t.Errorf("%d hosts are known after an hour without mail", len(m.s.hosts))
	}
}

// TestLimitsByClass: the limits for the domain of the recipients hold for them alone, on a
// host that others share, unless its address has limits of its own. New ones hold for
// hosts that are known.
func TestLimitsByClass(t *testing.T) {
	for _, ruled := range []bool{false, true} {
		cfg, low := config(), 2
		cfg.Limits = func(k HostKey) HostLimits {
			if k.Limits == "low" {
				return HostLimits{Window: Limits{Initial: low, Max: low}}
			}
			return HostLimits{Window: Limits{Initial: 4, Max: 4}}
		}
		cfg.Ruled = func(ip netip.Addr) bool { return ruled && ip == hopOf(1).Addr.Addr() }
		m := newModel(cfg)
		m.class = func(d int) string { return []string{"low", ""}[d] }
		m.addDest(1)
		m.addDest(1)
		most := func() map[int]int {
			n, max := map[int]int{}, map[int]int{}
			for _, r := range m.running {
				n[r.m.dest]++
			}
			for d := range n {
				max[d] = n[d]
			}
			return max
		}
		for range 10 {
			m.arrive("s", 1, 0, 1)
		}
		if n := most(); !ruled && (n[0] != 2 || n[1] != 4) || ruled && n[0]+n[1] != 4 {
			t.Errorf("ruled %v: %v at once", ruled, n)
		}
		low = 1
		m.s.SetLimits(m.now)
		for range 4 {
			m.end(0, Result{Verdict: Served})
		}
		if n := most(); !ruled && (n[0] != 1 || n[1] != 4) || ruled && n[0]+n[1] != 4 {
			t.Errorf("ruled %v, lower limit: %v at once", ruled, n)
		}
	}
}

// TestHostsMax: idle hosts are forgotten, those that were unused for longest first, and
// mail that is parked for one comes back.
func TestHostsMax(t *testing.T) {
	cfg := config()
	cfg.HostsMax = 3
	m := newModel(cfg)
	for i := range 8 {
		m.addDest(i)
	}
	h := m.close(t, 0)
	m.arrive("s", 1, 0) // parked
	serve := func(d int) {
		m.arrive("s", 1, d)
		m.endOf(to(hopOf(d)), Result{Verdict: Served})
	}
	serve(1)
	serve(2)
	serve(3) // forgets 1: nothing is parked for it
	if known := m.s.hosts[HostKey{Addr: hopOf(0).Addr}]; known != h || m.s.hosts[HostKey{Addr: hopOf(1).Addr}] != nil {
		t.Error("the wrong host was forgotten")
	}
	m.arrive("s", 1, 4, 5, 6) // all are in use, and what was parked has come back
	if len(m.s.hosts) != 4 || len(m.running) != 4 || len(m.parked[0]) != 0 {
		t.Errorf("%d hosts are known, %d deliveries", len(m.s.hosts), len(m.running))
	}
}

// TestHosts: what the operator sees of each host; mail that is ready or parked counts.
func TestHosts(t *testing.T) {
	m := newModel(config())
	for i := range 4 {
		m.addDest(i)
	}
	m.close(t, 0)
	m.arrive("s", 3, 0)
	for range 15 {
		m.arrive("s", 1, 1)
	}
	m.arrive("s", 1, 2)
	m.endOf(to(hopOf(2)), Result{Verdict: Served})
	date := func(t time.Time) time.Time { return t.Add(time.Hour) }
	a := ListHosts(m.s.Hosts(m.now), nil, nil, msg.HostsQ{}, date)
	if len(a.Hosts) != 3 || a.More {
		t.Fatalf("%+v", a)
	}
	down, hang, good := a.Hosts[0], a.Hosts[1], a.Hosts[2]
	if down.State != msg.HostClosed || down.Host != hopOf(0).String() || down.Reason != failed().Reason || down.Waiting != 3 || down.Until.Sub(m.now) < time.Hour+4*time.Minute {
		t.Errorf("down: %+v", down)
	}
	if hang.State != msg.HostNew || hang.InUse != 10 || hang.Window != 10 || hang.Max != 100 || hang.Waiting != 5 {
		t.Errorf("hang: %+v", hang)
	}
	if good.State != msg.HostServes || good.InUse != 0 || good.Window != 11 || good.Reason != "" || good.LastUse != date(m.now) {
		t.Errorf("good: %+v", good)
	}
	if a := ListHosts(m.s.Hosts(m.now), nil, nil, msg.HostsQ{Closed: true}, date); len(a.Hosts) != 1 || a.Hosts[0].State != msg.HostClosed {
		t.Errorf("closed: %+v", a)
	}
	if a := ListHosts(m.s.Hosts(m.now), nil, nil, msg.HostsQ{Max: 2}, date); len(a.Hosts) != 2 || !a.More {
		t.Errorf("two of them: %+v", a)
	}
}

// TestWaitReason: each way to wait has its words.
func TestWaitReason(t *testing.T) {
	cfg := config()
	cfg.Slots = 400
	cfg.Limits = limits(2, 2)
	m := newModel(cfg)
	for i := range 200 {
		m.addDest(i)
	}
	expect := func(j *Job, want string) {
		t.Helper()
		if got := m.s.WaitReason(m.now, j, func(t time.Time) string { return t.UTC().Format(time.RFC3339) }); !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
	add := func(from string, dest int) *Job {
		j := m.add(&mail{from: from, arrival: m.now, dest: dest, waits: 1, perStart: 1})
		m.settle()
		return j
	}
	j := m.add(&mail{from: "s", arrival: m.now, dest: 0, waits: 1, perStart: 1})
	expect(j, "waiting for its turn: 0 deliveries")
	m.settle()
	add("s", 0)
	expect(add("s", 0), "waiting for a connection to h0.test[10.0.0.0]:25: 2 of 2 are in use")
	for i := 1; i < 200; i++ {
		j = add("s", i)
	}
	expect(j, "waiting for one of deliveries_max: 150 of 400 are in progress, and the sender has its share")
	h := m.s.HostsOf(m.destination(0))[0]
	for h.window.size > 0 {
		m.endOf(to(hopOf(0)), failed())
	}
	m.parked = map[int][]*mail{}
	m.now = h.Until()
	add("p", 0)
	expect(add("p", 0), "waiting for the probe of h0.test[10.0.0.0]:25, which failed: 451")
}
