package sched

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meta1/mta/msg"
	"meta1/queue/pace"
	"meta1/queue/retry"
)

// check finds mail that waits without need, and counts that are wrong.
func (m *model) check(t *rapid.T) {
	s := m.s
	if s.slots.used != len(m.running) || s.stats.InUse.Now != len(m.running) {
		t.Fatalf("%d deliveries are in progress, counted as %+v", len(m.running), s.slots)
	}
	down := 0
	for h := range s.recent.All {
		if h.window.size == 0 {
			down++
		}
		if h.reserved < 0 || h.window.inflight < 0 || h.parked < 0 {
			t.Fatalf("host %s: %d in progress, %d reserved, %d parked", h.Name(), h.window.inflight, h.reserved, h.parked)
		}
		if s.slots.used < s.slots.total && h.reserved > 0 {
			t.Fatalf("host %s reserves %d places that nobody takes", h.Name(), h.reserved)
		}
	}
	if s.stats.Down.Now != down || s.stats.Hosts.Now != len(s.hosts) || s.recent.Len() != len(s.hosts) || s.stats.Destinations.Now != len(s.dests) {
		t.Fatalf("%d hosts are down, %d known, %d destinations: %+v", down, len(s.hosts), len(s.dests), s.stats)
	}
	m.checkProviders(t)
	jobs, limited, open := 0, 0, 0
	for d := range s.listed.All {
		entries := 0
		for _, q := range d.queues {
			jobs += q.jobs.Len()
			switch q.state {
			case queueLimited:
				limited++
			case queueOpen:
				open++
			}
			for j := range q.jobs.All {
				entries += j.Mail.Waiting()
			}
			m.checkQueue(t, q)
		}
		for _, r := range m.running {
			if r.Job.Dest == d {
				entries += r.took
			}
		}
		if entries != d.entries {
			t.Fatalf("%s has %d entries, counted as %d", d.Key(), entries, d.entries)
		}
	}
	if s.stats.Jobs.Now != jobs || s.limitedQueues != limited || s.openQueues != open {
		t.Fatalf("%d jobs, %d limited and %d open ready queues: counted as %d, %d, %d", jobs, limited, open, s.stats.Jobs.Now, s.limitedQueues, s.openQueues)
	}
}

// checkQueue finds a ready queue that waits without need.
func (m *model) checkQueue(t *rapid.T, q *readyQueue) {
	s := m.s
	if q.state == queueDecided || q.state == queueGone || q.state == queueIdle {
		t.Fatalf("a ready queue of %s for %s is in no list", q.sender.key.from, q.dest.Key())
	}
	j := s.nextJob(q)
	if s.slots.used >= s.slots.total || j == nil {
		return // all slots are taken
	}
	h := q.host // it waits there, even if a host before it opens
	if h == nil {
		_, h = s.pick(m.now, q.dest, j)
	}
	switch {
	case h == nil:
		t.Fatalf("mail for %s waits though no host can be tried", q.dest.Key())
	case h.window.free(m.now) == 0, h.rate.free(m.now) == 0: // it waits for the host
		if h.window.closed(m.now) {
			t.Fatalf("mail for %s waits for the host %s, which is closed", q.dest.Key(), h.Name())
		}
	case h.provider.full(m.now): // it waits for the provider
		if q.state == queueAtHost && s.provAlarms.Len() == 0 && h.provider.inflight == 0 {
			t.Fatalf("mail for %s waits for the provider %s (%d reserved, %d free, host %d own), and nothing will wake it", q.dest.Key(), h.provider.name, h.provider.reserved, h.provider.pace.Free(m.now), h.ownFree(m.now))
		}
	case !s.slots.forHost(h.used(), !h.serves): // the host has its share
	case !h.serves && s.slots.forSender(q.sender.share) == 0: // the sender has its share
	default:
		t.Fatalf("%s waits (%d) for %s with %d of %d in progress at %s, serving %v, and %+v",
			q.sender.key.from, q.state, q.dest.Key(), h.window.inflight, h.window.size, h.Name(), h.serves, s.slots)
	}
}

// checkProviders finds counts of providers that are wrong.
func (m *model) checkProviders(t *rapid.T) {
	type count struct{ inflight, reserved, blocked int }
	want, got := map[string]count{}, map[string]count{}
	for _, r := range m.running {
		if p := r.Host.provider; p != nil {
			c := want[p.name]
			c.inflight++
			want[p.name] = c
		}
	}
	for _, h := range m.s.hosts {
		if p := h.provider; p != nil {
			c := want[p.name]
			c.reserved += h.reserved
			if h.blocked != nil {
				c.blocked++
			}
			want[p.name] = c
		}
	}
	for name, p := range m.s.providers {
		if c := (count{p.inflight, p.reserved, p.blocked[0].Len() + p.blocked[1].Len()}); c != (count{}) {
			got[name] = c
		}
	}
	maps.DeleteFunc(want, func(_ string, c count) bool { return c == count{} })
	if !maps.Equal(want, got) {
		t.Fatalf("providers have %+v, counted as %+v", want, got)
	}
}

// checkParked finds parked mail that nobody will bring back.
func (m *model) checkParked(t *rapid.T) {
	for d, parked := range m.parked {
		if len(parked) == 0 {
			continue
		}
		waits := 0
		for h, dests := range m.parkedAt {
			if !dests[d] {
				continue
			}
			waits++
			if m.s.hosts[h.key()] != h || h.parked == 0 {
				t.Fatalf("mail is parked for %s, which is not known, or does not know it", h.Name())
			}
			if h.window.size == 0 && (h.alarmPlace == 0 || h.alarm.After(h.window.until) && h.alarm.After(m.now.Add(m.cfg.Retry.Min))) {
				t.Fatalf("mail is parked for %s, which nobody will probe before %v, now %v", h.Name(), h.alarm, m.now)
			}
		}
		if waits == 0 {
			t.Fatalf("mail is parked for d%d, and for no host", d)
		}
	}
}

// TestNobodyWaitsWithoutNeed is the rule of the scheduler, whatever comes in whatever
// order: no mail waits for which a host has a place in its window and its share of slots.
func TestNobodyWaitsWithoutNeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config()
		cfg.Slots = rapid.IntRange(1, 40).Draw(t, "slots")
		initial := rapid.IntRange(1, 4).Draw(t, "initial")
		l := HostLimits{Window: Limits{Initial: initial, Max: initial + rapid.IntRange(0, 6).Draw(t, "more")}}
		l.Rate = rapid.SampledFrom([]int{0, 0, 3, 10}).Draw(t, "rate")
		l.Timeout = rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Second, 10 * time.Minute}).Draw(t, "timeout")
		cfg.Limits = func(HostKey) HostLimits { return l }
		cfg.HostsMax = rapid.IntRange(2, 20).Draw(t, "hosts known")
		shared := ProviderLimits{Connections: rapid.IntRange(0, 5).Draw(t, "connections"), Pace: pace.Limits{
			Rate: rapid.SampledFrom([]int{0, 1, 4, 100}).Draw(t, "messages"), Per: 10 * time.Second, Recovery: time.Minute,
		}}
		if n := rapid.IntRange(0, 2).Draw(t, "providers"); n > 0 {
			cfg.Provider = func(hop msg.Hop) string { return []string{"", "a", "b"}[int(hop.Addr.Addr().As4()[3])%(n+1)] }
		}
		cfg.ProviderLimits = func(string) ProviderLimits { return shared }
		m := newModel(cfg)
		m.another = func() Config { // as after a reload
			cfg.Slots = rapid.IntRange(1, 40).Draw(t, "slots")
			l.Window.Initial = rapid.IntRange(1, 4).Draw(t, "initial")
			l.Window.Max = l.Window.Initial + rapid.IntRange(0, 6).Draw(t, "more")
			l.Rate = rapid.SampledFrom([]int{0, 0, 3, 10}).Draw(t, "rate")
			l.Timeout = rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Second, 10 * time.Minute}).Draw(t, "timeout")
			cfg.HostsMax = rapid.IntRange(2, 20).Draw(t, "hosts known")
			cfg.Retry = rapid.SampledFrom([]retry.Bounds{{Min: time.Second, Max: time.Minute}, {Min: 5 * time.Minute, Max: time.Hour}, {Min: time.Hour, Max: 2 * time.Hour}}).Draw(t, "retry")
			shared.Connections = rapid.IntRange(0, 5).Draw(t, "connections")
			shared.Pace.Rate = rapid.SampledFrom([]int{0, 1, 4, 100}).Draw(t, "messages")
			return cfg
		}
		short := m.turnsAreShort(t)
		m.onStart = func(r *running) {
			short(r)
			if s := m.s.slots; s.used > s.total || r.toNew && s.toNew > s.total-s.total/4 {
				t.Fatalf("a delivery starts without a slot: %+v", s)
			}
			if p := r.Host.provider; p != nil && shared.Connections > 0 && p.inflight > shared.Connections {
				t.Fatalf("a delivery starts with %d of %d in progress to %s", p.inflight, shared.Connections, p.name)
			}
			if w := &r.Host.window; w.size == 0 && (w.inflight != 1 || m.now.Before(w.until)) || w.size > 0 && w.inflight > w.size {
				t.Fatalf("a delivery to %s starts with %d of %d in progress", r.Host.Name(), w.inflight, w.size)
			}
		}
		if rapid.Bool().Draw(t, "classes") {
			m.class = func(d int) string { return []string{"", "low"}[d%2] }
		}
		for range 8 {
			m.addDest(rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 3, rapid.ID).Draw(t, "hosts")...)
		}
		for range 150 {
			m.step(t)
			m.check(t)
			m.checkParked(t)
		}
		m.drain(t)
	})
}

func (m *model) step(t *rapid.T) {
	which := rapid.IntRange(0, 1<<20)
	switch n := rapid.IntRange(0, 11).Draw(t, "step"); {
	case n < 4:
		dests := rapid.SliceOfNDistinct(rapid.IntRange(0, len(m.dests)-1), 1, 4, rapid.ID).Draw(t, "dests")
		m.arrive(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "from"), rapid.IntRange(1, 6).Draw(t, "rcpts"), dests...)
	case n < 8 && len(m.running) > 0:
		r := Result{Verdict: rapid.SampledFrom([]Verdict{Served, Served, Served, HostFailed, HostFailed, TooMany, NotTried, Unknown}).Draw(t, "verdict"), Others: rapid.IntRange(0, 2).Draw(t, "others")}
		if rapid.IntRange(0, 3).Draw(t, "slow") == 0 {
			r.SlowDown = "421 4.7.0 slow down"
		}
		r.Reused, r.Keeps = rapid.Bool().Draw(t, "reused"), rapid.Bool().Draw(t, "keeps")
		if r.Verdict == NotTried || r.Verdict == Unknown {
			// Put back at once it would start again for ever; a caller waits.
			m.endLater(which.Draw(t, "which")%len(m.running), r)
			return
		}
		m.end(which.Draw(t, "which")%len(m.running), r)
	case n == 8:
		m.comeBack(rapid.IntRange(1, 20).Draw(t, "back"))
	case n == 9 && len(m.running) > 0:
		m.s.Progress(m.now, m.running[which.Draw(t, "which")%len(m.running)].Delivery)
	case n == 10:
		switch rapid.IntRange(0, 4).Draw(t, "operator") {
		case 4:
			m.cfg = m.another()
			m.s.Configure(m.now, m.cfg)
			for h := range m.s.recent.All {
				if longest := m.now.Add(m.s.closedFor(h).Max); h.window.closed(m.now) && h.window.until.After(longest) {
					t.Fatalf("%s is closed for longer than it may be", h.Name())
				}
			}
		case 0:
			m.s.ProbeAll(m.now)
		case 1:
			m.s.SetLimits(m.now)
		case 2:
			for _, j := range m.s.TimedOut(m.now, time.Minute) {
				m.takeOut(j)
			}
		case 3:
			if dec := m.s.Ready(m.now); dec != nil && dec.Kind == Start {
				m.s.NotStarted(m.now, dec)
			}
		}
		m.settle()
	default:
		m.pass(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
	}
}

// endLater ends a delivery that says nothing of its host; its mail is deferred.
func (m *model) endLater(i int, r Result) {
	d := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	m.s.Done(m.now, d.Delivery, r)
	m.s.AddEntries(d.Job.Dest, -d.took)
	d.m.waits = d.took
	m.deferred = append(m.deferred, d.m)
	m.settle()
}

// drain serves everything and expects that nothing is left behind.
func (m *model) drain(t *rapid.T) {
	for range 20_000 {
		parked := 0
		for _, all := range m.parked {
			parked += len(all)
		}
		switch {
		case len(m.running) > 0:
			m.end(0, Result{Verdict: Served})
		case len(m.s.dests)+parked > 0:
			m.pass(max(m.s.NextAlarm().Sub(m.now), 0)) // not longer: what starts then would be given up
		default:
			s := m.s
			if n := len(s.senders) + len(s.queues) + s.limited.Len() + s.blocked[0].Len() + s.blocked[1].Len() + s.moving.Len() + s.hanging.Len() + s.givenUp; n != 0 || s.slots.used+s.slots.toNew != 0 {
				t.Fatalf("left behind: %d senders, %d ready queues, %d given up, %+v", len(s.senders), len(s.queues), s.givenUp, s.slots)
			}
			return
		}
		m.check(t)
		m.checkParked(t)
	}
	t.Fatal("it never ends")
}

// turnsAreShort checks each delivery that starts: a message that waits in the same ready
// queue sees each other one start at most twice.
func (m *model) turnsAreShort(t *rapid.T) func(*running) {
	type pair struct{ waits, starts *Job }
	seen := map[pair]int{}
	return func(r *running) {
		started := r.Job
		for w := range r.Job.queue.jobs.All {
			if w == started {
				continue
			}
			p := pair{w, started}
			if seen[p]++; seen[p] > 2 {
				t.Fatal("a message starts for the third time while another waits")
			}
		}
		for p := range seen {
			if p.waits == started {
				delete(seen, p)
			}
		}
	}
}

// TestOneSenderHoldsNobodyUp lets one slot serve a huge list, a big message to one
// destination and small ones.
func TestOneSenderHoldsNobodyUp(t *testing.T) {
	cfg := config()
	cfg.Slots = 1
	m := newModel(cfg)
	all := make([]int, 500)
	for i := range all {
		all[i] = m.addDest(i)
	}
	var order []string
	m.onStart = func(r *running) { order = append(order, r.m.from) }
	m.arrive("list", 10, all...)
	m.arrive("list", 500, 7)
	m.arrive("one", 1, 499)
	m.arrive("two", 1, 7)
	m.arrive("two", 1, 8)
	for range 6 {
		m.end(0, Result{Verdict: Served})
	}
	if got := fmt.Sprint(order); got != "[list list one two list two list]" {
		t.Errorf("order of deliveries: %v", got)
	}
}

// TestABacklogTakesAQuarter: of four deliveries, three are of fresh mail.
func TestABacklogTakesAQuarter(t *testing.T) {
	cfg := config()
	cfg.Slots = 1
	m := newModel(cfg)
	d := m.addDest(1)
	n := map[Class]int{}
	m.onStart = func(r *running) { n[r.sender.key.class]++ }
	for i := range 60 {
		m.arrive(fmt.Sprint("fresh", i), 1, d)
		m.add(&mail{from: "old", class: Deferred, arrival: m.now, dest: d, waits: 1, perStart: 1})
	}
	for range 40 {
		m.end(0, Result{Verdict: Served})
	}
	if n[Deferred] != 10 || n[Fresh] != 31 {
		t.Errorf("%d deliveries of the backlog and %d of fresh mail", n[Deferred], n[Fresh])
	}
}

// TestHangingHostsHoldNobodyUp fills the slots with deliveries that never end.
func TestHangingHostsHoldNobodyUp(t *testing.T) {
	m := newModel(config())
	m.addDest(0)
	m.addDest(1)
	m.arrive("s", 1, 0)
	m.end(0, Result{Verdict: Served}) // host 0 serves
	all := make([]int, 3000)
	for i := range all {
		all[i] = m.addDest(100 + i)
	}
	for range 3 {
		m.arrive("dead list", 1, all...)
	}
	for range 300 {
		m.arrive("s", 1, 0)
	}
	m.arrive("s", 1, 1) // its host is new
	count := map[msg.Hop]int{}
	for _, r := range m.running {
		count[r.Hop]++
	}
	if count[hopOf(0)] != 11 || count[hopOf(1)] != 1 || m.s.slots.toNew > 400 {
		t.Errorf("%d deliveries to the host that serves, %d to the new one, %+v", count[hopOf(0)], count[hopOf(1)], m.s.slots)
	}
}

// TestOwnHangingHostsHoldASenderUpShortly: a sender has mail for 3,000 hosts that never
// greet, and then for one that serves. The bound is that of the package comment.
func TestOwnHangingHostsHoldASenderUpShortly(t *testing.T) {
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprint("known ", known), func(t *testing.T) {
			m := newModel(config())
			good := m.addDest(0)
			served := 0
			finish := func() {
				for {
					for _, r := range m.running {
						if r.Hop == hopOf(0) {
							m.s.Progress(m.now, r.Delivery)
						}
					}
					if !m.endOf(to(hopOf(0)), Result{Verdict: Served}) {
						return
					}
					served++
				}
			}
			if known {
				m.arrive("s", 1, good)
				finish()
			}
			const dead, mails = 3000, 500
			all := make([]int, dead)
			for i := range all {
				all[i] = m.addDest(100 + i)
			}
			for range 3 {
				m.arrive("s", 1, all...)
			}
			begin := m.now
			for range mails {
				m.arrive("s", 1, good)
			}
			served = 0
			for served < mails && m.now.Sub(begin) < time.Hour {
				finish()
				m.pass(100 * time.Millisecond)
				if used := m.s.slots.toNew; used > 750 {
					t.Fatalf("%d of the slots are in use for new hosts", used)
				}
			}
			bound := time.Duration(1+8*dead/(3*m.cfg.Slots)) * (m.cfg.GiveUpAfter + time.Second)
			if known {
				bound = time.Second
			}
			if took := m.now.Sub(begin); took > bound {
				t.Errorf("%d of %d messages were served within %v, the bound is %v", served, mails, took, bound)
			} else {
				t.Logf("all were served within %v of %v", took, bound)
			}
		})
	}
}

// TestOthersAreNotHeldUp: while one sender's mail for 3,000 hosts hangs, mail of others
// starts at once, whether its host serves or is new.
func TestOthersAreNotHeldUp(t *testing.T) {
	m := newModel(config())
	all := make([]int, 3000)
	for i := range all {
		all[i] = m.addDest(100 + i)
	}
	m.arrive("list", 1, all...)
	for i := range 60 {
		m.pass(5 * time.Second)
		before := len(m.running)
		m.arrive(fmt.Sprint("s", i), 1, m.addDest(i))
		if len(m.running) != before+1 {
			t.Fatalf("after %v mail of another sender does not start: %+v", m.now.Sub(time.Unix(1e9, 0)), m.s.slots)
		}
		if i%2 == 0 { // the others hang as well
			m.endOf(to(hopOf(i)), Result{Verdict: Served})
		}
	}
}

// TestManyListsHoldOthersUpShortly: when the mail of a thousand senders for hosts that hang
// has taken all slots for new hosts, the senders with the fewest take turns.
func TestManyListsHoldOthersUpShortly(t *testing.T) {
	m := newModel(config())
	for i := range 1000 {
		for range 5 {
			m.add(&mail{from: fmt.Sprint("list", i), arrival: m.now, dest: m.addDest(1000 + len(m.dests)), waits: 1, perStart: 1})
		}
	}
	m.settle()
	m.pass(20 * time.Second)
	if free := m.s.slots.freeForNew(); free > 0 {
		t.Fatalf("%d slots are left for new hosts", free)
	}
	var worst time.Duration
	for i := range 100 {
		began, sent := false, m.now
		m.onStart = func(r *running) { began = began || r.Hop == hopOf(i) }
		m.arrive(fmt.Sprint("s", i), 1, m.addDest(i))
		for !began && m.now.Sub(sent) < time.Hour {
			m.pass(500 * time.Millisecond)
		}
		worst = max(worst, m.now.Sub(sent))
		m.pass(700 * time.Millisecond)
	}
	bound := time.Duration(float64(m.cfg.GiveUpAfter+time.Second) * (1 + 1000.0*4/3/float64(m.cfg.Slots)))
	if worst > bound {
		t.Errorf("a sender with one message waited for %v, the bound is %v", worst, bound)
	}
	t.Logf("the longest wait was %v", worst)
}

// TestSlowGreetingsAreNotGivenUp while slots are left: deliveries that hang are given up
// for other mail only.
func TestSlowGreetingsAreNotGivenUp(t *testing.T) {
	m := newModel(config())
	for i := range 300 {
		m.arrive("s", 1, m.addDest(i))
	}
	m.pass(5 * time.Minute)
	if len(m.running) != 300 || m.s.hanging.Len() != 300 || !m.s.NextAlarm().IsZero() {
		t.Fatalf("%d deliveries are left, next alarm %v", len(m.running), m.s.NextAlarm())
	}
	// 375 is the sender's share. One more waits, so one is given up: the oldest.
	oldest := m.running[0]
	for i := range 300 {
		m.arrive("s", 1, m.addDest(1000+i))
	}
	m.s.Progress(m.now, m.running[1].Delivery)
	waits := m.s.limitedQueues
	m.pass(time.Second)
	if waits == 0 || slices.Contains(m.running, oldest) || !slices.ContainsFunc(m.running, to(hopOf(1))) || len(m.deferred) != waits {
		t.Errorf("%d waited, %d were given up", waits, len(m.deferred))
	}
}

// TestMailThatIsGone: a job whose recipients have gone while it waited is dropped, and a
// decision that the caller cannot follow costs nothing.
func TestMailThatIsGone(t *testing.T) {
	m := newModel(config())
	d := m.addDest(1)
	gone := &mail{from: "s", arrival: m.now, dest: d, waits: 3, perStart: 5}
	m.add(gone)
	m.s.AddEntries(m.destination(d), -3)
	gone.waits = 0
	kept := &mail{from: "s", arrival: m.now, dest: d, waits: 1, perStart: 5}
	j := m.add(kept)
	dec := m.s.Ready(m.now)
	if dec == nil || dec.Job != j {
		t.Fatalf("%+v", dec)
	}
	m.s.NotStarted(m.now, dec)
	if again := m.s.Ready(m.now); again == nil || again.Job != j || m.s.Stats().InUse.Now != 1 || m.s.Stats().Jobs.Now != 1 {
		t.Fatalf("%+v, %+v", again, m.s.Stats())
	}
}

// TestTimedOut: jobs that wait for too long are taken out, wherever they wait.
func TestTimedOut(t *testing.T) {
	cfg := config()
	cfg.Limits = limits(1, 1)
	m := newModel(cfg)
	d := m.addDest(1)
	m.arrive("s", 1, d)
	for range 3 {
		m.arrive("s", 1, d)
		m.now = m.now.Add(time.Minute)
	}
	if jobs := m.s.TimedOut(m.now, 90*time.Second); len(jobs) != 2 || m.s.Stats().Jobs.Now != 1 {
		t.Errorf("%d jobs timed out, %d are left", len(jobs), m.s.Stats().Jobs.Now)
	}
	for _, j := range m.s.TimedOut(m.now, 0) {
		m.s.AddEntries(j.Dest, -1)
	}
	m.s.AddEntries(m.destination(d), -2)
	m.end(0, Result{Verdict: Served})
	if s := m.s.Stats(); len(m.running) != 0 || s.Jobs.Now != 0 || s.Destinations.Now != 0 || s.InUse != (Gauge{Now: 0, Max: 1}) || s.Jobs.Max != 3 {
		t.Errorf("%+v", s)
	}
}

// TestSlowDeliveriesAreNotGivenUp while they move, however long they take and however
// much mail waits.
func TestSlowDeliveriesAreNotGivenUp(t *testing.T) {
	cfg := config()
	cfg.Slots = 4
	m := newModel(cfg)
	for i := range 20 {
		m.arrive(fmt.Sprint("s", i), 1, m.addDest(i))
	}
	slow := m.running[0]
	for range 120 {
		m.s.Progress(m.now, slow.Delivery)
		m.pass(time.Second)
	}
	if !slices.Contains(m.running, slow) || len(m.deferred) < 6 {
		t.Errorf("a delivery that moves was given up, or others were not: %d", len(m.deferred))
	}
	m.pass(31 * time.Second)
	if slices.Contains(m.running, slow) {
		t.Error("a delivery that stands still was not given up")
	}
}

// TestWaitIsBounded: no message waits for more deliveries than the rules say, whatever
// came with it: one of each sender, times the destinations of its own sender, times the
// messages there.
func TestWaitIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config()
		cfg.Slots = 1
		cfg.Limits = limits(1, 1)
		m := newModel(cfg)
		for i := range 6 {
			m.addDest(i)
		}
		type key struct {
			from string
			dest int
		}
		messages, dests, first := map[key]int{}, map[string]int{}, map[*mail]bool{}
		m.onStart = func(r *running) {
			original := r.Job.Mail.(*mail)
			if first[original] {
				return
			}
			first[original] = true
			k := key{r.m.from, r.m.dest}
			if bound := len(dests) * dests[k.from] * messages[k]; m.started > bound {
				t.Fatalf("mail of %s for d%d starts as delivery %d, the bound is %d", k.from, k.dest, m.started, bound)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "messages") {
			k := key{rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "from"), rapid.IntRange(0, 5).Draw(t, "dest")}
			if messages[k]++; messages[k] == 1 {
				dests[k.from]++
			}
			m.add(&mail{from: k.from, arrival: m.now, dest: k.dest, waits: rapid.IntRange(1, 20).Draw(t, "rcpts"), perStart: 2})
			m.now = m.now.Add(time.Duration(rapid.IntRange(-5, 9).Draw(t, "later")) * time.Second)
		}
		for m.settle(); len(m.running) > 0; {
			m.end(0, Result{Verdict: Served})
		}
		if m.s.Stats().Jobs.Now != 0 {
			t.Fatalf("%d jobs are left", m.s.Stats().Jobs.Now)
		}
	})
}
