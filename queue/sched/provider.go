package sched

import (
	"strconv"
	"time"

	"meta1/mta/lists"
	"meta1/mta/msg"
	"meta1/queue/pace"
)

// ProviderLimits are the limits that all hosts of a provider share.
type ProviderLimits struct {
	Connections int // deliveries at once; 0: no limit
	Pace        pace.Limits
}

// Provider is what is known of a provider: hosts with limits in common. Each has its own window
// besides. It is never forgotten: one that is not configured any more has no limits.
type Provider struct {
	name     string
	max      int
	pace     *pace.Pace
	inflight int
	reserved int // places that are reserved, at all its hosts
	// blocked are its hosts for which mail waits that only slots and the provider keep waiting, as
	// in Scheduler.blocked. The first of each is there, too, while the provider has a place.
	blocked [2]lists.Heap[*Host]
	first   [2]*Host
	slowed  int  // how often the rate was halved
	gone    bool // it is not configured any more

	alarm      time.Time
	alarmPlace int // in Scheduler.provAlarms
}

// Name returns the name that the configuration gives it, "" for a nil one.
func (p *Provider) Name() string {
	if p == nil {
		return ""
	}
	return p.name
}

// Until returns when its rate is whole again after a slow-down.
func (p *Provider) Until() time.Time { return p.pace.Until() }

// Rate is its present rate for people: "30 messages in 1m0s".
func (p *Provider) Rate(now time.Time) string {
	return strconv.FormatFloat(p.pace.Rate(now), 'f', 0, 64) + " messages in " + p.pace.Limits().Per.String()
}

// free returns how many deliveries may start to hosts of a provider for which no place is
// reserved. A nil one has no limits.
func (p *Provider) free(now time.Time) int {
	n := p.pace.Free(now)
	if p.max > 0 {
		n = min(n, p.max-p.inflight)
	}
	return n - p.reserved
}

// waits reports whether mail waits for a place of the provider.
func (p *Provider) waits() bool { return p != nil && p.blocked[0].Len()+p.blocked[1].Len() > 0 }

func providerPlace(h *Host) *int { return &h.provPlace }

// provider finds or makes the provider of a name, nil for "".
func (s *Scheduler) provider(name string) *Provider {
	if name == "" {
		return nil
	}
	p := s.providers[name]
	if p == nil {
		p = &Provider{name: name, blocked: [2]lists.Heap[*Host]{blockedHeap(providerPlace), blockedHeap(providerPlace)}}
		l := s.cfg.ProviderLimits(name)
		p.max, p.pace = l.Connections, pace.New(l.Pace)
		s.providers[name] = p
	}
	return p
}

// offer lets relax look at the first of a provider's hosts, if the provider has a place, and sees to
// it that it does when the rate allows one. It follows each change of what a provider has or of
// who waits for it.
func (s *Scheduler) offer(now time.Time, p *Provider) {
	if p == nil {
		return
	}
	free := p.free(now) > 0
	for kind := range p.first {
		var h *Host
		if free {
			h = p.blocked[kind].First()
		}
		if was := p.first[kind]; was != h {
			if p.first[kind] = h; was != nil {
				s.blocked[kind].Remove(was)
			}
			if h != nil {
				s.blocked[kind].Push(h)
			}
		}
	}
	s.provAlarms.Remove(p)
	if free || !p.waits() {
		return
	}
	if p.alarm = p.pace.Next(now); !p.alarm.IsZero() {
		s.provAlarms.Push(p)
	}
}

// slow notes that a provider asks for less mail, in a reply to a delivery that began at start. It
// reports whether that halves the rate.
func (s *Scheduler) slow(now time.Time, p *Provider, start time.Time, reason string) bool {
	if p == nil || !p.pace.Slow(now, start, reason) {
		return false
	}
	p.slowed++
	s.offer(now, p)
	return true
}

// full reports whether a provider has no place for a delivery. A nil one has no limits.
func (p *Provider) full(now time.Time) bool { return p != nil && p.free(now) <= 0 }

// waitReason says what mail waits for that waits for a provider that is full.
func (p *Provider) waitReason(now time.Time, date func(time.Time) string) string {
	switch {
	case p.max > 0 && p.inflight >= p.max:
		return "waiting for a connection to the provider " + p.name + ": " + strconv.Itoa(p.inflight) + " of " + strconv.Itoa(p.max) + " are in use"
	case !p.pace.Slowed(now):
		return "waiting for the provider " + p.name + ": no more than " + p.Rate(now)
	default:
		return "waiting for the provider " + p.name + ", which asked for less mail: " + p.Rate(now) + " until " +
			date(p.pace.Until()) + ": " + p.pace.Reason(now)
	}
}

// Providers returns what is known of the providers, in no order. ListHosts counts what waits.
func (s *Scheduler) Providers(now time.Time) (all []msg.ProviderEntry) {
	for _, p := range s.providers {
		if p.gone && p.inflight == 0 {
			continue
		}
		l := p.pace.Limits()
		e := msg.ProviderEntry{
			Provider: p.name, InUse: p.inflight, Max: p.max, Rate: p.pace.Rate(now), RateMax: l.Rate, Per: l.Per,
			SlowDowns: p.slowed, Reason: p.pace.Reason(now),
		}
		if e.Reason != "" {
			e.Until = p.pace.Until()
		}
		all = append(all, e)
	}
	return all
}
