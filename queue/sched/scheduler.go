package sched

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"meta1/mta/lists"
	"meta1/mta/msg"
	"meta1/queue/retry"
	"meta1/queue/turns"
)

// Mail is what waits for one destination: the recipients of one message that go there.
type Mail interface {
	// Waiting returns how many recipients still wait. Mail with none is dropped when its
	// turn comes.
	Waiting() int
}

// Class tells mail that was never tried from mail that was deferred: the backlog.
type Class uint8

// The classes of mail.
const (
	Fresh Class = iota
	Deferred
	classes
)

// HostLimits are the limits of one host.
type HostLimits struct {
	Window  Limits
	Rate    int           // connections that may be opened within a minute; 0: no limit
	Timeout time.Duration // octo: how long an unused host is remembered, and a window closed; 0: not given
}

// Config is what the scheduler must know. It changes with Configure alone; Limits and ProviderLimits may
// answer anew after SetLimits, too.
type Config struct {
	Slots           int          // deliveries at once, at least 1
	HostsMax        int          // hosts that are remembered (OCC_entries_max)
	HostsPerAttempt int          // hosts that are tried for a job before it is deferred
	Retry           retry.Bounds // bounds the time for which a host is closed
	ReuseConnection bool         // the client keeps connections open for further deliveries
	Limits          func(HostKey) HostLimits
	// Ruled reports whether an address has limits of its own. They hold for all mail to
	// it: the host is one, whatever the connection_limits of the recipients.
	Ruled func(netip.Addr) bool
	// Providers are the names of all providers. Provider names that of a hop, "" for none, and
	// ProviderLimits gives the limits of one. Nil: there are none.
	Providers      []string
	Provider       func(msg.Hop) string
	ProviderLimits func(name string) ProviderLimits

	Name string // makes chance differ from that of other machines
	// HangAfter and GiveUpAfter are how long after its start, or after Progress was called
	// for it, a delivery hangs, and may be given up. 0: never. A caller that does not call
	// Progress while deliveries move must leave them 0.
	HangAfter, GiveUpAfter time.Duration
}

// Scheduler is the part of the active queue that knows what waits for whom, and decides
// what is delivered next. It is not safe for concurrent use.
type Scheduler struct {
	cfg     Config
	dests   map[destKey]*Destination
	listed  lists.List[*Destination] // the same, oldest first
	senders map[senderKey]*sender
	queues  map[queueKey]*readyQueue
	rounds  [classes]lists.List[*sender] // senders whose ready queues have turns
	turns   turns.Kinds
	slots   slots
	limited lists.Heap[*sender]  // senders that have used their share of the slots for new hosts
	blocked [2]lists.Heap[*Host] // hosts for which mail waits that only slots keep waiting

	hosts   map[HostKey]*Host
	recent  lists.List[*Host] // the same, the one that was unused for longest first
	alarms  lists.Heap[*Host]
	changes []HostChange

	families   families
	providers  map[string]*Provider
	provAlarms lists.Heap[*Provider] // those for which mail waits until their rates allow more

	moving  lists.List[*Delivery] // deliveryMoves, the one without progress for longest first
	hanging lists.List[*Delivery] // deliveryHangs, in the same order
	givenUp int                   // deliveries that are deliveryGivenUp
	lookAt  time.Time             // when to look for deliveries to be given up, at the earliest

	openQueues    int    // ready queues that have turns
	limitedQueues int    // ready queues in sender.limited
	limitedFirst  bool   // the next slot for new hosts is theirs, else that of blocked hosts
	order         uint64 // of those that began to wait
	stats         Stats
}

// The places in Scheduler.blocked.
const (
	newHosts = iota
	servingHosts
)

// New makes a scheduler that knows no mail and no host.
func New(cfg Config) *Scheduler {
	s := &Scheduler{
		cfg: cfg.complete(), dests: map[destKey]*Destination{}, senders: map[senderKey]*sender{}, queues: map[queueKey]*readyQueue{},
		hosts: map[HostKey]*Host{}, providers: map[string]*Provider{}, slots: slots{total: max(cfg.Slots, 1)},
		limited: lists.NewHeap(func(a, b *sender) bool {
			return cmp.Or(cmp.Compare(a.share, b.share), cmp.Compare(a.order, b.order)) < 0
		}, func(s *sender) *int { return &s.place }),
		alarms:     lists.NewHeap(func(a, b *Host) bool { return a.alarm.Before(b.alarm) }, func(h *Host) *int { return &h.alarmPlace }),
		provAlarms: lists.NewHeap(func(a, b *Provider) bool { return a.alarm.Before(b.alarm) }, func(p *Provider) *int { return &p.alarmPlace }),
	}
	for i := range s.blocked {
		s.blocked[i] = blockedHeap(func(h *Host) *int { return &h.place })
	}
	for _, name := range cfg.Providers {
		s.provider(name)
	}
	return s
}

// complete is the Config with a function for each that is nil.
func (cfg Config) complete() Config {
	if cfg.Ruled == nil {
		cfg.Ruled = func(netip.Addr) bool { return false }
	}
	if cfg.Provider == nil {
		cfg.Provider = func(msg.Hop) string { return "" }
	}
	return cfg
}

// Configure gives another Config. Deliveries in progress go on, however many they are: none begins while
// they are more than the new limits allow. No host stays closed for longer than it may by the new Retry.
// What waits for a host keeps its place.
func (s *Scheduler) Configure(now time.Time, cfg Config) {
	s.cfg = cfg.complete()
	s.slots.total = max(cfg.Slots, 1)
	for _, f := range s.senders {
		s.recount(f, func() {}) // their shares depend on the slots
	}
	for _, name := range cfg.Providers {
		s.provider(name)
	}
	for name, p := range s.providers {
		p.gone = !slices.Contains(cfg.Providers, name)
	}
	s.SetLimits(now)
	s.relax(now)
}

// chance spreads the times for which hosts are closed that had closed n times before.
func (s *Scheduler) chance(h *Host, n int) float64 {
	return retry.Chance(s.cfg.Name+" "+h.Name(), uint64(n))
}

// blockedHeap has hosts first that use the fewest slots, and that have waited longest.
func blockedHeap(place func(*Host) *int) lists.Heap[*Host] {
	return lists.NewHeap(func(a, b *Host) bool {
		return cmp.Or(cmp.Compare(a.used(), b.used()), cmp.Compare(a.order, b.order)) < 0
	}, place)
}

// Job is mail that waits for deliveries to one destination. It is a different job after
// an attempt. Its fields are set by the scheduler.
type Job struct {
	Mail  Mail
	Dest  *Destination
	Tried []msg.Hop // hosts that were tried in this attempt
	Since time.Time // when its mail became ready
	queue *readyQueue
}

// Add makes mail wait for its turn. sender is whose mail it is, "" for the null sender;
// arrival is when it came, for the order among the sender's mail. The destination must
// have hops.
func (s *Scheduler) Add(now time.Time, d *Destination, sender string, class Class, arrival time.Time, m Mail) *Job {
	q := s.queue(s.sender(senderKey{from: sender, class: class}), d)
	j := &Job{Mail: m, Dest: d, Since: now, queue: q}
	q.jobs.Add(j, arrival)
	s.stats.Jobs.add(1)
	if q.state == queueIdle {
		s.open(q)
	}
	return j
}

// Again makes what is left of a delivery's mail go on with the next host at once. It has
// a ready queue of its own, so it is ahead of the sender's other mail for the destination.
func (s *Scheduler) Again(d *Delivery, m Mail) *Job {
	return s.goOn(d.Job, append(slices.Clip(d.Job.Tried), d.Hop), m)
}

// PutBack makes the mail of a delivery wait again that was no attempt: its host refused
// one connection too many, or nothing was tried. In the second case the caller does not
// call Ready before something can be tried.
func (s *Scheduler) PutBack(d *Delivery, m Mail) *Job { return s.goOn(d.Job, d.Job.Tried, m) }

func (s *Scheduler) goOn(before *Job, tried []msg.Hop, m Mail) *Job {
	q := s.newQueue(s.sender(before.queue.sender.key), before.Dest)
	q.own = true
	j := &Job{Mail: m, Dest: before.Dest, Tried: tried, Since: before.Since, queue: q}
	q.jobs.Add(j, before.Since)
	s.stats.Jobs.add(1)
	s.open(q)
	return j
}

// Decision is what is to be done next.
type Decision struct {
	Kind DecisionKind
	Job  *Job
	Hop  msg.Hop // with Start
	Host *Host   // with Start

	turn     turns.Turn[*Job]
	delivery *Delivery
}

// DecisionKind says what is to be done.
type DecisionKind uint8

const (
	// Start: begin a delivery of the job. A slot and a place in the window of the host are
	// taken. The caller takes recipients out of the job's mail and calls Started, or
	// NotStarted.
	Start DecisionKind = iota
	// AllClosed: every host of the job's destination is closed. The caller calls TakeAll.
	AllClosed
	// NoneLeft: every host that this job has not tried is closed, but others of its
	// destination are not. The caller calls Take.
	NoneLeft
)

// Ready returns what to do next, nil if nothing can be done now. The caller does it before
// it calls anything else.
func (s *Scheduler) Ready(now time.Time) *Decision {
	for s.slots.free() > 0 {
		from := s.nextSender()
		if from == nil {
			if !s.resumeLimited() && !s.reserve(now, s.slots.free(), s.slots.freeForNew()) {
				return nil
			}
			continue
		}
		dec := s.turn(now, from.open.Front())
		s.enlist(from)
		if dec != nil {
			return dec
		}
	}
	return nil
}

// turn decides about the ready queue whose turn it is: a delivery starts, the queue waits
// where it must, or it has no mail any more. A place in a host's window that is reserved
// for it and that it does not use goes to another.
func (s *Scheduler) turn(now time.Time, q *readyQueue) (dec *Decision) {
	reserved := q.host
	s.leave(q)
	if reserved != nil {
		defer func() {
			if dec == nil || dec.Host != reserved {
				s.wake(now, reserved)
			}
		}()
	}
	j := s.nextJob(q)
	if j == nil {
		s.drop(q)
		return nil
	}
	hop, h := s.pick(now, q.dest, j)
	switch {
	case h == nil:
		q.state = queueDecided
		if s.anyOpen(now, q.dest) {
			q.jobs.Take()
			return &Decision{Kind: NoneLeft, Job: j}
		}
		return &Decision{Kind: AllClosed, Job: j}
	case h.free(now) <= 0 || h != reserved && (h.waits() || h.provider.waits()):
		s.waitFor(now, q, h, h == reserved)
		return nil
	case !h.serves && s.slots.forSender(q.sender.share) == 0:
		s.limit(q, h)
		return nil
	case !s.slots.forHost(h.used(), !h.serves):
		s.waitFor(now, q, h, h == reserved)
		return nil
	}
	d := &Delivery{Job: j, Hop: hop, Host: h, Start: now, moved: now, sender: q.sender, toNew: !h.serves}
	d.elem.V, d.own.V = d, d
	h.window.start()
	if h.provider != nil {
		h.provider.inflight++
		h.provider.pace.Start(now)
		s.offer(now, h.provider)
	}
	if d.counted = h.rate.start(now); h.rate != nil {
		s.arm(now, h) // the minute's connections may be used up now
	}
	s.slots.used++
	s.stats.InUse.add(1)
	if d.toNew {
		s.slots.toNew++
		s.recount(d.sender, func() { d.sender.toNew++ })
	}
	t, _ := q.jobs.Take()
	q.state, q.resumed = queueDecided, false
	return &Decision{Kind: Start, Job: j, Hop: hop, Host: h, turn: t, delivery: d}
}

// pick chooses the first host of a destination that a job may try. A host whose window is
// full is waited for: only hosts that fail are passed over, and those that another
// delivery probes if there is another host. h is nil if all are closed.
func (s *Scheduler) pick(now time.Time, d *Destination, j *Job) (hop msg.Hop, h *Host) {
	for next := range s.inOrder(now, d) {
		if slices.Contains(j.Tried, next) {
			continue
		}
		switch o := s.host(now, next, d); {
		case o.window.closed(now):
		case !o.probing():
			return next, o
		case h == nil:
			hop, h = next, o
		}
	}
	return hop, h
}

// Take takes out the job of a decision NoneLeft.
func (s *Scheduler) Take(dec *Decision) *Job {
	s.stats.Jobs.add(-1)
	s.goOnOrDrop(dec.Job.queue)
	return dec.Job
}

// TakeAll takes out all mail that waits for a destination.
func (s *Scheduler) TakeAll(now time.Time, d *Destination) (jobs []*Job) {
	for len(d.queues) > 0 {
		q := d.queues[len(d.queues)-1]
		for j := s.nextJob(q); j != nil; j = s.nextJob(q) {
			jobs = append(jobs, j)
			q.jobs.Take()
			s.stats.Jobs.add(-1)
		}
		s.abandon(now, q)
	}
	return jobs
}

// TimedOut takes out all jobs that have waited for longer than after.
func (s *Scheduler) TimedOut(now time.Time, after time.Duration) (jobs []*Job) {
	old := now.Add(-after)
	for d := range s.listed.All {
		for _, q := range slices.Clone(d.queues) {
			q.jobs.Keep(func(j *Job) bool {
				if j.Since.Before(old) {
					jobs = append(jobs, j)
					return false
				}
				return true
			})
			if q.jobs.Len() == 0 {
				s.abandon(now, q)
			}
		}
	}
	s.stats.Jobs.add(-len(jobs))
	return jobs
}
