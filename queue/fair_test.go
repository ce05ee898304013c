package queue

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/conf"
	"meta1/queue/defedb"
)

// model is the loop without its surroundings: deliveries end when the test says so,
// and what is deferred comes back when it wants it.
type model struct {
	l        *loop
	dests    []msg.RouteA
	running  []*deliveredEvent
	deferred []defedb.State
	all      map[smtp.ID]*transaction
	next     uint64
	onStart  func(*deliveredEvent)
	seen     map[turnPair]int
}

func newModel(cfg Config) *model {
	q := &Queue{cfg: cfg, log: slog.New(slog.DiscardHandler), clock: newClock(nil), events: newMailbox[event]()}
	q.journal = &journal{q: q, ops: newMailbox[journalOp]()}
	q.deferrer = &deferrer{q: q, ops: newMailbox[deferOp]()}
	q.metrics, _ = newMetrics(q, nil)
	q.conf.Store(&confTable{Table: &conf.Table{}})
	m := &model{l: newLoop(q), onStart: func(*deliveredEvent) {}, all: map[smtp.ID]*transaction{}, seen: map[turnPair]int{}}
	m.l.now = time.Unix(1e9, 0)
	m.l.begin = func(_ msg.DeliverQ, e *deliveredEvent) {
		m.onStart(e)
		m.running = append(m.running, e)
	}
	return m
}

func modelHop(i int) msg.Hop {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return msg.Hop{Addr: netip.AddrPortFrom(addr, 25)}
}

// addDest adds a destination with some of the hosts.
func (m *model) addDest(hosts ...int) {
	a := msg.RouteA{Dest: fmt.Sprintf("mx:d%d", len(m.dests))}
	for _, h := range hosts {
		a.Hops = append(a.Hops, modelHop(h))
	}
	m.dests = append(m.dests, a)
}

// arrive takes a message whose recipients go to the destinations in turn.
func (m *model) arrive(from string, rcpts int, dests ...int) {
	m.next++
	env := &msg.Envelope{TA: smtp.ID{Counter: m.next}, Arrival: m.l.now, Mail: msg.Mail{From: smtp.Path{Local: from, Domain: "s.test"}}}
	for i := range rcpts {
		env.Rcpts = append(env.Rcpts, msg.Rcpt{To: smtp.Path{Local: "r", Domain: m.dests[dests[i%len(dests)]].Dest}})
	}
	t := newTransaction(env, 10, memBody("x"), nil, m.l.now, 0)
	m.l.tas[env.TA], m.all[env.TA] = t, t
	m.l.entries += rcpts
	for i, r := range append([]*rcpt(nil), t.rcpts...) {
		m.l.join(r, &m.dests[dests[i%len(dests)]], m.l.now)
	}
	m.settle()
}

// end ends a delivery that runs.
func (m *model) end(i int, code int, hostFailed bool) {
	e := m.running[i]
	m.running[i] = m.running[len(m.running)-1]
	m.running = m.running[:len(m.running)-1]
	e.a = msg.DeliverA{HostFailed: hostFailed, Stage: msg.DeliverDot, Rcpts: make([]smtp.Reply, len(e.j.rcpts))}
	if hostFailed {
		e.a.Stage = msg.DeliverConnect
	}
	for i := range e.a.Rcpts {
		e.a.Rcpts[i] = smtp.NewReply(code, "", "said so")
	}
	e.apply(m.l)
	m.settle()
}

// settle lets the loop decide, and takes what it gives to the disk.
func (m *model) settle() {
	m.l.schedule()
	m.l.q.journal.ops.take(nil)
	for {
		ops := m.l.q.deferrer.ops.take(nil)
		if len(ops) == 0 {
			return
		}
		ev := &deferredEvent{}
		for _, op := range ops {
			switch op.kind {
			case deferPut:
				ev.put = append(ev.put, putResult{r: op.r, state: op.state})
				m.deferred = append(m.deferred, op.state)
			case deferEnd:
				ev.ended = append(ev.ended, op.r)
			}
		}
		ev.apply(m.l)
		m.l.schedule()
		m.l.q.journal.ops.take(nil)
	}
}

// pass lets time go by.
func (m *model) pass(d time.Duration) {
	m.l.now = m.l.now.Add(d)
	m.l.strike()
	m.settle()
}

// comeBack takes deferred recipients of which the message is still known.
func (m *model) comeBack(n int) {
	clear(m.seen) // a message joins its line anew
	for ; n > 0 && len(m.deferred) > 0; n-- {
		st := m.deferred[0]
		m.deferred = m.deferred[1:]
		if m.l.tas[st.TA] == nil { // the loop forgets what is deferred as a whole
			m.l.tas[st.TA] = m.all[st.TA]
		}
		_, rcpts := m.l.adopt(&loadedTA{ta: st.TA, states: []defedb.State{st}})
		for _, r := range rcpts {
			for i := range m.dests {
				if m.dests[i].Dest == r.path().Domain {
					m.l.join(r, &m.dests[i], m.l.now)
				}
			}
		}
	}
	m.settle()
}

// check finds a flow that waits without need.
func (m *model) check(t *rapid.T) {
	l := m.l
	s := &l.share
	if s.Used != len(m.running) || s.Used > s.Places || s.New > s.Places-s.Places/4 {
		t.Fatalf("%d deliveries run, counted as %+v", len(m.running), *s)
	}
	for k, h := range l.hosts {
		if h.window.Inflight() > max(l.q.cfg.SMTPC.Max, 1) || h.granted < 0 {
			t.Fatalf("host %v: %d under way, %d kept", k.addr, h.window.Inflight(), h.granted)
		}
		if s.Used < s.Places && h.granted > 0 {
			t.Fatalf("host %v keeps %d places that nobody takes", k.addr, h.granted)
		}
	}
	if s.Used == s.Places {
		return // all places are taken
	}
	for _, d := range l.dests {
		for _, f := range d.flows {
			j := l.next(f)
			if j == nil {
				continue
			}
			_, h, _ := l.pick(d, j)
			if f.at != nil { // it stays there, even if a host before it in the route opens
				h = f.at.h
			}
			switch {
			case h == nil:
				t.Fatalf("mail for %s waits though no host can be tried", d.key)
			case h.window.Free(l.now) == 0: // it waits for the host
			case !s.Host(h.window.Inflight(), !h.serves): // the host has its share
			case !h.serves && s.Sender(f.s.running) == 0: // the sender has his share
			default:
				t.Fatalf("%s waits for %s with %d of %d under way at a host, serving %v, and %+v", f.s.key.from, d.key, h.window.Inflight(), h.window.Size(), h.serves, *s)
			}
		}
	}
}

// TestNobodyWaitsWithoutNeed is the rule of the scheduler, whatever comes in whatever
// order: no mail waits that has a host with a free window and a place of sched.Share.
func TestNobodyWaitsWithoutNeed(t *testing.T) {
	cfg := defaults(t)
	rapid.Check(t, func(t *rapid.T) {
		cfg.SMTPC.DeliveriesAtOnce = rapid.IntRange(1, 40).Draw(t, "places")
		cfg.SMTPC.Initial = rapid.IntRange(1, 4).Draw(t, "initial")
		cfg.SMTPC.Max = cfg.SMTPC.Initial + rapid.IntRange(0, 6).Draw(t, "more")
		cfg.SMTPC.SMTPRcpts, cfg.OCCEntries = 2, rapid.IntRange(2, 20).Draw(t, "hosts known")
		m := newModel(cfg)
		m.onStart = m.turnsAreShort(t)
		for range 8 {
			m.addDest(rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 3, rapid.ID).Draw(t, "hosts")...)
		}
		for range 150 {
			m.step(t)
			m.check(t)
			m.checkWaits(t)
		}
		m.drain(t)
	})
}

func (m *model) step(t *rapid.T) {
	any := rapid.IntRange(0, 1<<20)
	switch n := rapid.IntRange(0, 9).Draw(t, "step"); {
	case n < 4:
		dests := rapid.SliceOfN(rapid.IntRange(0, len(m.dests)-1), 1, 4).Draw(t, "dests")
		m.arrive(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "from"), rapid.IntRange(1, 12).Draw(t, "rcpts"), dests...)
	case n < 8 && len(m.running) > 0:
		code := rapid.SampledFrom([]int{250, 250, 250, 451}).Draw(t, "code")
		m.end(any.Draw(t, "which")%len(m.running), code, code != 250 && rapid.Bool().Draw(t, "host failed"))
	case n == 8:
		m.comeBack(rapid.IntRange(1, 20).Draw(t, "back"))
	default:
		m.pass(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
	}
}

// drain serves everything and expects that nothing is left behind.
func (m *model) drain(t *rapid.T) {
	for range 100_000 {
		switch {
		case len(m.running) > 0:
			m.end(0, 250, false)
		case len(m.l.dests) > 0:
			m.pass(time.Hour)
		default:
			l := m.l
			if n := len(l.senders) + len(l.flows) + l.held.Len() + l.blocked[0].Len() + l.blocked[1].Len(); n != 0 || l.share.Used+l.share.New != 0 {
				t.Fatalf("left behind: %d senders, %d flows, %+v", len(l.senders), len(l.flows), l.share)
			}
			return
		}
		m.check(t)
	}
	t.Fatal("it never ends")
}

// turnPair is a message that waits in a flow and one that starts there.
type turnPair struct {
	f             *flow
	waits, starts *transaction
}

// turnsAreShort checks each delivery that starts: a message that waits in the same flow
// sees each other one start at most twice.
func (m *model) turnsAreShort(t *rapid.T) func(*deliveredEvent) {
	seen := m.seen
	return func(e *deliveredEvent) {
		f := e.j.f
		f.line.Keep(func(j *job) bool {
			p := turnPair{f, j.t, e.j.t}
			if seen[p]++; j.t != e.j.t && seen[p] > 2 {
				t.Fatalf("a message starts for the third time while another waits")
			}
			return true
		})
		for p := range seen {
			if p.waits == e.j.t {
				delete(seen, p)
			}
		}
	}
}

// TestPlacesOfAHostGoRound: of the destinations that wait for a host, none gets a third
// place while another waits for one.
func TestPlacesOfAHostGoRound(t *testing.T) {
	m := newModel(defaults(t))
	rapid.Check(t, func(t *rapid.T) {
		h := &host{}
		dests := []*dest{{key: "a"}, {key: "b"}, {key: "c"}}
		type pair struct{ waits, served *dest }
		seen := map[pair]int{}
		count := func(waits, served *dest) {
			if seen[pair{waits, served}]++; waits != served && seen[pair{waits, served}] > 2 {
				t.Fatal("a third place while another waits")
			}
		}
		for range 100 {
			if rapid.Bool().Draw(t, "park") {
				s := &sender{}
				m.l.park(&flow{s: s, d: rapid.SampledFrom(dests).Draw(t, "dest"), gone: rapid.IntRange(0, 5).Draw(t, "gone") == 0}, h, false)
				continue
			}
			f := h.unpark()
			if f == nil {
				clear(seen)
				continue
			}
			for k, p := range h.parked {
				if p.alive() {
					count(k.d, f.d)
				}
			}
			for p := range seen {
				if p.waits == f.d || !h.parked[parkKey{d: p.waits}].alive() {
					delete(seen, p)
				}
			}
		}
	})
}

// alive tells whether a line has a flow that still waits.
func (p *parking) alive() bool {
	return p != nil && slices.ContainsFunc(p.flows.items[p.flows.head:], func(f *flow) bool { return !f.gone })
}

// TestOneSenderHoldsNobodyUp lets one place serve a huge list, a big message to one
// destination and small ones.
func TestOneSenderHoldsNobodyUp(t *testing.T) {
	cfg := defaults(t)
	cfg.SMTPC.DeliveriesAtOnce = 1
	m := newModel(cfg)
	all := make([]int, 500)
	for i := range all {
		m.addDest(i)
		all[i] = i
	}
	var order []string
	m.onStart = func(e *deliveredEvent) { order = append(order, e.j.t.env.Mail.From.Local) }
	m.arrive("list", 5000, all...)
	m.arrive("list", 500, 7)
	m.arrive("one", 1, 499)
	m.arrive("two", 1, 7)
	m.arrive("two", 1, 8)
	for range 6 {
		m.end(0, 250, false)
	}
	if got := fmt.Sprint(order); got != "[list list one two list two list]" {
		t.Errorf("order of deliveries: %v", got)
	}
}

// TestABacklogTakesAQuarter: of four deliveries, three are of fresh mail.
func TestABacklogTakesAQuarter(t *testing.T) {
	cfg := defaults(t)
	cfg.SMTPC.DeliveriesAtOnce = 1
	cfg.SMTPC.SMTPRcpts = 1
	m := newModel(cfg)
	m.addDest(1)
	m.arrive("old", 40, 0)
	m.end(0, 451, true) // it closes the host at once
	if m.l.share.Used != 0 {
		for m.l.share.Used > 0 {
			m.end(0, 451, true)
		}
	}
	m.pass(time.Hour)
	m.comeBack(40)
	n := map[bool]int{}
	m.onStart = func(e *deliveredEvent) { n[e.j.f.s.key.deferred]++ }
	for i := range 60 {
		m.arrive(fmt.Sprint("fresh", i), 1, 0)
	}
	for range 20 {
		m.end(0, 250, false)
	}
	if n[true] < 4 || n[true] > 6 || n[true]+n[false] != 20 {
		t.Errorf("%d deliveries of the backlog and %d of fresh mail", n[true], n[false])
	}
}

// TestHangingHostsHoldNobodyUp fills the places with deliveries that never end.
func TestHangingHostsHoldNobodyUp(t *testing.T) {
	m := newModel(defaults(t))
	m.addDest(0)
	m.addDest(1)
	m.arrive("s", 1, 0)
	m.end(0, 250, false) // host 0 serves
	all := make([]int, 3000)
	for i := range all {
		m.addDest(100 + i)
		all[i] = 2 + i
	}
	m.arrive("dead list", 9000, all...)
	m.arrive("s", 300, 0)
	m.arrive("s", 1, 1) // its host is new
	var good, fresh int
	for _, e := range m.running {
		switch e.hop {
		case modelHop(0):
			good++
		case modelHop(1):
			fresh++
		}
	}
	if good != 3 || fresh != 1 || m.l.share.New > 400 {
		t.Errorf("%d deliveries to the host that serves, %d to the new one, %+v", good, fresh, m.l.share)
	}
}

// checkWaits finds mail that waits for a host that nobody will probe.
func (m *model) checkWaits(t *rapid.T) {
	known := map[*host]bool{}
	for _, h := range m.l.hosts {
		known[h] = true
	}
	for _, st := range m.deferred {
		if st.Waits && m.l.waits[st.Dest] == nil {
			t.Fatalf("%s waits for %s, and nobody knows", smtp.RcptID(st.TA, st.Index), st.Dest)
		}
	}
	for dest, w := range m.l.waits {
		if w.comes {
			if !w.wanted {
				t.Fatalf("what waits for %s comes back, but is not asked for", dest)
			}
			continue
		}
		for _, h := range w.hosts {
			if !known[h] || h.serves || h.probe.Before(m.l.now) && !w.wanted || !slices.Contains(h.blocks, w) {
				t.Fatalf("mail waits for the probe of %s at %v, now %v: known %v, serving %v", h.name, h.probe, m.l.now, known[h], h.serves)
			}
		}
		if len(w.hosts) == 0 {
			t.Fatalf("mail waits for %s, and for nothing", dest)
		}
	}
}
