package sched

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/queue/retry"
)

// mail is the recipients of one message for one destination.
type mail struct {
	from     string
	class    Class
	arrival  time.Time
	dest     int
	waits    int
	perStart int
	looks    *int // counts how often the scheduler looks at it
}

func (m *mail) Waiting() int {
	if m.looks != nil {
		*m.looks++
	}
	return m.waits
}

// running is a delivery that is in progress, with the recipients that it took.
type running struct {
	*Delivery
	m    *mail
	took int
}

// model is a caller of the scheduler that keeps it honest: deliveries end when the test
// says so, and what is parked or deferred comes back when it wants it.
type model struct {
	s        *Scheduler
	cfg      Config
	now      time.Time
	dests    [][]msg.Hop
	class    func(dest int) string
	running  []*running
	deferred []*mail // it comes back when the test says so
	parked   map[int][]*mail
	parkedAt map[*Host]map[int]bool
	onStart  func(*running)
	another  func() Config // for Configure
	started  int
}

func newModel(cfg Config) *model {
	m := &model{
		s: New(cfg), cfg: cfg, now: time.Unix(1e9, 0), class: func(int) string { return "" },
		parked: map[int][]*mail{}, parkedAt: map[*Host]map[int]bool{}, onStart: func(*running) {},
	}
	return m
}

func config() Config {
	return Config{
		Slots: 1000, HostsMax: 10_000, HostsPerAttempt: 5, Retry: retry.Bounds{Min: 5 * time.Minute, Max: time.Hour},
		ReuseConnection: true, Name: "mta.test", HangAfter: 5 * time.Second, GiveUpAfter: 30 * time.Second,
		Limits: func(HostKey) HostLimits { return HostLimits{Window: Limits{Initial: 10, Max: 100}} },
	}
}

func limits(initial, most int) func(HostKey) HostLimits {
	return func(HostKey) HostLimits { return HostLimits{Window: Limits{Initial: initial, Max: most}} }
}

func hopOf(i int) msg.Hop {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return msg.Hop{Addr: netip.AddrPortFrom(addr, 25), Host: fmt.Sprintf("h%d.test", i)}
}

// addDest adds a destination with some of the hosts.
func (m *model) addDest(hosts ...int) int {
	var hops []msg.Hop
	for _, h := range hosts {
		hops = append(hops, hopOf(h))
	}
	m.dests = append(m.dests, hops)
	return len(m.dests) - 1
}

func (m *model) destination(i int) *Destination {
	d := m.s.Destination(fmt.Sprintf("mx:d%d", i), m.class(i))
	d.SetHops(m.dests[i])
	return d
}

// arrive takes a message with rcpts recipients at each of the destinations.
func (m *model) arrive(from string, rcpts int, dests ...int) {
	for _, d := range dests {
		m.add(&mail{from: from, arrival: m.now, dest: d, waits: rcpts, perStart: 2})
	}
	m.settle()
}

func (m *model) add(x *mail) *Job {
	d := m.destination(x.dest)
	m.s.AddEntries(d, x.waits)
	return m.s.Add(m.now, d, x.from, x.class, x.arrival, x)
}

// settle does what the scheduler decides.
func (m *model) settle() {
	for dec := m.s.Ready(m.now); dec != nil; dec = m.s.Ready(m.now) {
		switch dec.Kind {
		case Start:
			x := dec.Job.Mail.(*mail)
			n := min(x.waits, x.perStart)
			x.waits -= n
			part := *x
			part.waits = 0
			r := &running{m: &part, took: n}
			r.Delivery = m.s.Started(dec)
			m.started++
			m.running = append(m.running, r)
			m.onStart(r)
		case AllClosed:
			m.park(dec.Job.Dest)
		case NoneLeft:
			m.takeOut(m.s.Take(dec))
		}
	}
	m.react()
}

// park parks all mail of a destination until one of its hosts serves.
func (m *model) park(d *Destination) {
	for _, j := range m.s.TakeAll(m.now, d) {
		x := j.Mail.(*mail)
		for _, h := range m.s.HostsOf(d) {
			if h.Closed(m.now) {
				m.s.AddParked(m.now, h, x.waits)
				if m.parkedAt[h] == nil {
					m.parkedAt[h] = map[int]bool{}
				}
				m.parkedAt[h][x.dest] = true
			}
		}
		m.parked[x.dest] = append(m.parked[x.dest], x)
		m.s.AddEntries(d, -x.waits)
	}
}

// takeOut defers the mail of one job.
func (m *model) takeOut(j *Job) {
	x := j.Mail.(*mail)
	m.s.AddEntries(j.Dest, -x.waits)
	m.deferred = append(m.deferred, x)
}

// react does what hosts' changes make due.
func (m *model) react() {
	changes := m.s.Changes()
	for _, c := range changes {
		switch c.What {
		case Serves, Forgotten:
			for _, d := range slices.Sorted(maps.Keys(m.parkedAt[c.Host])) {
				m.unpark(d, len(m.parked[d]))
			}
			delete(m.parkedAt, c.Host)
		case ProbeDue:
			for _, d := range slices.Sorted(maps.Keys(m.parkedAt[c.Host])) {
				m.unpark(d, 1)
				break
			}
		}
	}
	if len(changes) > 0 {
		m.settle()
	}
}

// unpark makes n of the messages ready that are parked for a destination.
func (m *model) unpark(dest, n int) {
	back := m.parked[dest][:n]
	m.parked[dest] = m.parked[dest][n:]
	for h, dests := range m.parkedAt {
		for _, x := range back {
			if dests[dest] {
				m.s.AddParked(m.now, h, -x.waits)
			}
		}
		if len(m.parked[dest]) == 0 {
			delete(dests, dest)
		}
	}
	for _, x := range back {
		x.class = Deferred
		m.add(x)
	}
}

// end ends the delivery that is at place i of those in progress.
func (m *model) end(i int, r Result) Outcome {
	d := m.running[i]
	m.running[i] = m.running[len(m.running)-1]
	m.running = m.running[:len(m.running)-1]
	return m.finish(d, r)
}

func (m *model) finish(d *running, r Result) Outcome {
	out := m.s.Done(m.now, d.Delivery, r)
	switch {
	case out.Verdict == Served:
		m.s.AddEntries(d.Job.Dest, -d.took)
	case out.Verdict == HostFailed && out.HasNext:
		d.m.waits = d.took
		m.s.Again(d.Delivery, d.m)
	case out.Verdict == HostFailed, out.Verdict == SlowDown:
		d.m.waits, d.m.class = d.took, Deferred
		m.s.AddEntries(d.Job.Dest, -d.took)
		m.deferred = append(m.deferred, d.m)
	default:
		d.m.waits = d.took
		m.s.PutBack(d.Delivery, d.m)
	}
	m.settle()
	return out
}

// endOf ends the oldest delivery of a kind.
func (m *model) endOf(which func(*running) bool, r Result) bool {
	for i, d := range m.running {
		if which(d) {
			m.running = append(m.running[:i], m.running[i+1:]...)
			m.finish(d, r)
			return true
		}
	}
	return false
}

func to(hop msg.Hop) func(*running) bool { return func(r *running) bool { return r.Hop == hop } }

// comeBack makes deferred mail ready.
func (m *model) comeBack(n int) {
	for n = min(n, len(m.deferred)); n > 0; n-- {
		x := m.deferred[0]
		m.deferred = m.deferred[1:]
		x.class = Deferred
		m.add(x)
	}
	m.settle()
}

// pass lets time go by, alarm by alarm.
func (m *model) pass(d time.Duration) {
	end := m.now.Add(d)
	for at := m.s.NextAlarm(); !at.IsZero() && !at.After(end); at = m.s.NextAlarm() {
		if at.After(m.now) {
			m.now = at
		}
		m.tick()
	}
	m.now = end
	m.tick()
}

func (m *model) tick() {
	for _, d := range m.s.Tick(m.now) {
		m.endOf(func(r *running) bool { return r.Delivery == d }, Result{Verdict: HostFailed, Reason: "no greeting"})
	}
	m.settle()
}
