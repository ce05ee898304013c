package sched

import (
	"net/netip"
	"time"

	"meta1/mta/lists"
	"meta1/mta/msg"
	"meta1/queue/retry"
)

// HostKey names a host for slow start (README 3.8.1). Two services on one address but
// different ports are different hosts, so that a hanging one does not stop the other.
// So is one host for recipients with and without connection_limits of their own, unless
// Config.Ruled says that its address has limits that override them.
type HostKey struct {
	Addr   netip.AddrPort
	Socket string
	Limits string // Destination.Limits
	// Provider is that of the name by which the host was found (Config.Provider), "" for none. The
	// same address by another name is another host.
	Provider string
}

func (s *Scheduler) hostKey(hop msg.Hop, d *Destination) HostKey {
	k := HostKey{Addr: hop.Addr, Socket: hop.Socket, Limits: d.key.limits, Provider: s.cfg.Provider(hop)}
	if k.Limits != "" && s.cfg.Ruled(hop.Addr.Addr()) {
		k.Limits = ""
	}
	return k
}

// Host is what is known of a host: an entry of the outgoing connection cache (OCC).
type Host struct {
	hop      msg.Hop
	limits   string
	provider *Provider // nil: none
	window   window
	rate     *rate         // nil: no limit
	timeout  time.Duration // HostLimits.Timeout
	serves   bool          // the last delivery was served; otherwise the host is new
	servedAt time.Time
	reason   string      // of the last failure, "" if the last delivery was served
	tls      msg.HostTLS // of the last connection
	lastUse  time.Time
	waiting  *waiting                // nil: nothing waits
	limited  lists.List[*readyQueue] // queueLimited
	reserved int                     // places that are reserved for ready queues that waited
	parked   int                     // recipients that the caller has parked until it serves
	probeAt  time.Time               // when one of those is to probe it

	recent     lists.Elem[*Host]  // in Scheduler.recent
	blocked    *lists.Heap[*Host] // the one of Scheduler.blocked in which it is, or of Provider.blocked
	place      int                // in Scheduler.blocked
	provPlace  int                // in Provider.blocked
	order      uint64             // when mail began to wait for it, or it had its last turn
	alarm      time.Time
	alarmPlace int // in Scheduler.alarms
}

// Name names the host for people: "mx.example.org[192.0.2.1]:25", or a socket.
func (h *Host) Name() string { return h.hop.String() }

// Provider returns the provider of the host, nil for none.
func (h *Host) Provider() *Provider { return h.provider }

// Closed reports whether nothing may be tried before Until.
func (h *Host) Closed(now time.Time) bool { return h.window.closed(now) }

// Until returns when a closed host may be probed.
func (h *Host) Until() time.Time { return h.window.until }

// Reason returns why the last delivery failed, "" if it was served.
func (h *Host) Reason() string { return h.reason }

// state returns what is thought of the host.
func (h *Host) state(now time.Time) msg.HostState {
	switch {
	case h.window.closed(now):
		return msg.HostClosed
	case h.window.size == 0:
		return msg.HostProbe
	case h.serves:
		return msg.HostServes
	default:
		return msg.HostNew
	}
}

// free returns how many deliveries may start for which no place is reserved.
func (h *Host) free(now time.Time) int {
	if h.provider != nil {
		return min(h.ownFree(now), h.provider.free(now))
	}
	return h.ownFree(now)
}

// ownFree is free but for the limits of its provider.
func (h *Host) ownFree(now time.Time) int {
	return min(h.window.free(now), h.rate.free(now)) - h.reserved
}

// reserve reserves n places more, or fewer.
func (h *Host) reserve(n int) {
	h.reserved += n
	if h.provider != nil {
		h.provider.reserved += n
	}
}

// used returns how many slots the host has, or will have at once.
func (h *Host) used() int { return h.window.inflight + h.reserved }

// probing reports whether a delivery finds out whether the host serves again.
func (h *Host) probing() bool { return h.window.size == 0 && h.used() > 0 }

// waits reports whether a ready queue waits for the host.
func (h *Host) waits() bool { return h.waiting != nil }

// idle reports whether no ready mail needs to know the host.
func (h *Host) idle() bool { return h.used() == 0 && !h.waits() && h.limited.Len() == 0 }

// HostChange is something that mail which is parked for a host depends on.
type HostChange struct {
	Host *Host
	What HostEvent
}

// HostEvent says what became of a host.
type HostEvent uint8

const (
	// Serves: it serves mail, after it was new or while mail was parked for it.
	Serves HostEvent = iota
	// ProbeDue: its time is over, mail is parked for it, and no other mail probes it. Some
	// of what is parked is to try. It is repeated until the host serves or fails.
	ProbeDue
	// Forgotten: nothing is known of it any more.
	Forgotten
)

// Changes returns what has changed since the last call.
func (s *Scheduler) Changes() []HostChange {
	all := s.changes
	s.changes = nil
	return all
}

// host finds the host of a hop, or makes one of which nothing is known.
func (s *Scheduler) host(now time.Time, hop msg.Hop, d *Destination) *Host {
	k := s.hostKey(hop, d)
	h := s.hosts[k]
	if h == nil {
		for n := 0; n < 2 && len(s.hosts) >= s.cfg.HostsMax; n++ { // one more than comes: HostsMax may have been lowered
			s.forgetOne()
		}
		limits := s.cfg.Limits(k)
		h = &Host{hop: hop, limits: k.Limits, provider: s.provider(k.Provider), window: newWindow(limits.Window)}
		h.recent.V = h
		h.setLimits(limits)
		s.hosts[k] = h
		s.stats.Hosts.add(1)
	}
	s.touch(now, h)
	return h
}

// touch notes that a host is used.
func (s *Scheduler) touch(now time.Time, h *Host) {
	h.lastUse = now
	h.recent.Remove()
	s.recent.PushBack(&h.recent)
	if h.timeout > 0 && h.alarmPlace == 0 {
		s.arm(now, h)
	}
}

func (h *Host) setLimits(l HostLimits) {
	h.window.setLimits(l.Window)
	h.timeout = l.Timeout
	switch {
	case l.Rate == 0:
		h.rate = nil
	case h.rate == nil:
		h.rate = &rate{}
		fallthrough
	default:
		h.rate.max = l.Rate
	}
}

// forgetOne forgets an idle host that was unused for long, if there is one among the
// first few: one without parked mail, if possible.
func (s *Scheduler) forgetOne() {
	const look = 32
	var victim *Host
	for n := 0; n < look && s.recent.Len() > 0 && (victim == nil || victim.parked > 0); n++ {
		h := s.recent.Front()
		h.recent.Remove()
		s.recent.PushBack(&h.recent) // the next search begins behind it
		if h.idle() && (victim == nil || h.parked == 0) {
			victim = h
		}
	}
	if victim != nil {
		s.forgetHost(victim)
	}
}

// key is that under which the host is known.
func (h *Host) key() HostKey {
	k := HostKey{Addr: h.hop.Addr, Socket: h.hop.Socket, Limits: h.limits}
	if h.provider != nil {
		k.Provider = h.provider.name
	}
	return k
}

func (s *Scheduler) forgetHost(h *Host) {
	h.recent.Remove()
	s.alarms.Remove(h)
	delete(s.hosts, h.key())
	s.stats.Hosts.add(-1)
	if h.window.size == 0 {
		s.stats.Down.add(-1)
	}
	s.changes = append(s.changes, HostChange{Host: h, What: Forgotten})
}

// served notes that a host has served a delivery.
func (s *Scheduler) served(now time.Time, h *Host) {
	if h.window.size == 0 {
		s.stats.Down.add(-1)
	}
	h.window.served(now)
	if !h.serves || h.parked > 0 {
		s.changes = append(s.changes, HostChange{Host: h, What: Serves})
	}
	h.serves, h.servedAt, h.reason = true, now, ""
	s.resumeAllLimited(h)
}

// closedFor bounds the time for which a host is closed: octo, if it is given (README
// 3.8.1).
func (s *Scheduler) closedFor(h *Host) retry.Bounds {
	if h.timeout > 0 {
		return retry.Bounds{Min: h.timeout, Max: h.timeout}
	}
	return s.cfg.Retry
}

// resumeAllLimited gives turns to the ready queues whose senders had used their shares
// when they came to a host that was new.
func (s *Scheduler) resumeAllLimited(h *Host) {
	for h.limited.Len() > 0 {
		q := h.limited.Last() // the last one first, so that they keep their order
		s.leave(q)
		s.openFirst(q)
	}
}

// arm sets the alarm of a host.
func (s *Scheduler) arm(now time.Time, h *Host) {
	if !h.recent.Listed() {
		return // it is forgotten
	}
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if h.window.size == 0 && h.parked > 0 {
		sooner(h.probeAt)
	}
	if h.waits() && h.free(now) <= 0 {
		sooner(h.rate.next())
		if now.Before(h.window.pauseEnd) {
			sooner(h.window.pauseEnd)
		}
	}
	if h.timeout > 0 && h.window.size > 0 {
		sooner(h.expires(now))
	}
	s.alarms.Remove(h)
	if h.alarm = at; !at.IsZero() {
		s.alarms.Push(h)
	}
}

// expires returns when a host is to be forgotten that stays unused: slow start begins
// anew. A closed host stays, so that one probe tells whether it serves again, and so does
// one whose connections of the last minute still count.
func (h *Host) expires(now time.Time) time.Time {
	unused := h.timeout
	if h.rate != nil {
		unused = max(unused, rateTime)
	}
	if !h.idle() || h.parked > 0 {
		return now.Add(unused)
	}
	return h.lastUse.Add(unused)
}

// strike does what the alarm of a host is for.
func (s *Scheduler) strike(now time.Time, h *Host) {
	s.alarms.Remove(h)
	if h.timeout > 0 && h.window.size > 0 && !now.Before(h.expires(now)) {
		s.forgetHost(h)
		return
	}
	if h.window.size == 0 && h.parked > 0 && !now.Before(h.probeAt) {
		if h.idle() {
			s.changes = append(s.changes, HostChange{Host: h, What: ProbeDue})
		}
		h.probeAt = now.Add(s.probeAgain())
	}
	s.wake(now, h)
}

// probeAgain is after how long a probe is asked for again that nobody made.
func (s *Scheduler) probeAgain() time.Duration { return max(s.cfg.Retry.Min, time.Second) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// AddParked counts recipients more, or fewer, that the caller has parked until a host
// serves. While there are some, ProbeDue is among the changes when one is to probe it.
func (s *Scheduler) AddParked(now time.Time, h *Host, n int) {
	if h.parked += n; h.recent.Listed() {
		s.arm(now, h)
	}
}

// ProbeAll lets one delivery through to each closed host: an operator who flushes the
// queue knows that something has changed.
func (s *Scheduler) ProbeAll(now time.Time) {
	for h := range s.recent.All {
		if h.window.size == 0 {
			h.window.probe(now)
			h.probeAt = now
			s.strike(now, h)
		}
	}
}

// SetLimits asks for the limits of all hosts anew. No host stays closed for longer than it may now.
func (s *Scheduler) SetLimits(now time.Time) {
	for h := range s.recent.All {
		h.setLimits(s.cfg.Limits(h.key()))
		if h.window.size == 0 {
			latest := now.Add(s.probeAgain())
			if n := h.window.downs; h.window.closed(now) {
				latest = now.Add(s.closedFor(h).Delay(n, s.chance(h, n-1)))
				h.window.until = earlier(h.window.until, latest)
			}
			h.probeAt = earlier(h.probeAt, latest)
		}
		s.wake(now, h)
	}
	for name, p := range s.providers {
		l := s.cfg.ProviderLimits(name)
		p.max = l.Connections
		p.pace.SetLimits(now, l.Pace)
		s.offer(now, p)
	}
}

// HostsOf returns the hosts of a destination that are known.
func (s *Scheduler) HostsOf(d *Destination) (known []*Host) {
	for _, hop := range d.hops {
		if h := s.hosts[s.hostKey(hop, d)]; h != nil {
			known = append(known, h)
		}
	}
	return known
}
