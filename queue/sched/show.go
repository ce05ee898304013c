package sched

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"meta1/mta/msg"
)

// Gauge is a number and the largest that it was since the start (README 9.4).
type Gauge struct{ Now, Max int }

func (g *Gauge) add(n int) {
	g.Now += n
	g.Max = max(g.Max, g.Now)
}

// Stats are the sizes of things.
type Stats struct {
	InUse        Gauge // slots
	Jobs         Gauge // ready to be delivered
	Destinations Gauge
	Hosts        Gauge // remembered
	Down         Gauge // of these, those that failed and have not served since
}

// Stats returns the sizes of things now.
func (s *Scheduler) Stats() Stats { return s.stats }

// WaitReason says what a job waits for. date writes a time of the scheduler as one of day.
func (s *Scheduler) WaitReason(now time.Time, j *Job, date func(time.Time) string) string {
	q, n := j.queue, strconv.Itoa
	slots := "waiting for one of deliveries_max: " + n(s.slots.used) + " of " + n(s.slots.total) + " are in progress"
	switch h := q.host; {
	case q.state == queueLimited:
		return slots + ", and the sender has its share of those to hosts that have not served yet"
	case q.state != queueAtHost:
		return "waiting for its turn: " + n(s.slots.used) + " deliveries are in progress"
	case h.blocked != nil && h.provider.full(now):
		return h.provider.waitReason(now, date)
	case h.blocked != nil:
		return slots + ", the others are kept for other hosts"
	case h.probing():
		return "waiting for the probe of " + h.Name() + ", which failed: " + h.reason
	case h.window.free(now) > h.reserved:
		return "waiting for a connection to " + h.Name() + ": those of this minute are used up"
	default:
		return "waiting for a connection to " + h.Name() + ": " + n(h.window.inflight) + " of " + n(h.window.size) + " are in use"
	}
}

// HostInfo is what is known of a host, without its name.
type HostInfo struct {
	Hop msg.Hop
	msg.HostEntry
}

// Hosts returns what is known of the hosts. What waits is counted in recipients, for the host that
// would get them now: those that are ready, and those that are parked.
func (s *Scheduler) Hosts(now time.Time) []HostInfo {
	ready := map[*Host]int{}
	for d := range s.listed.All {
		for _, q := range d.queues {
			h := q.host
			if h == nil {
				h = s.firstOpen(now, d)
			}
			if h == nil {
				continue
			}
			for j := range q.jobs.All {
				ready[h] += j.Mail.Waiting()
			}
		}
	}
	all := make([]HostInfo, 0, s.recent.Len())
	for h := range s.recent.All {
		e := HostInfo{Hop: h.hop, HostEntry: msg.HostEntry{
			State: h.state(now), InUse: h.window.inflight, Window: h.window.size, Max: h.window.max(),
			Waiting: ready[h] + h.parked, LastUse: h.lastUse, Reason: h.reason, TLS: h.tls,
		}}
		if h.provider != nil {
			e.Provider = h.provider.name
		}
		if e.State == msg.HostClosed {
			e.Until = h.window.until
		}
		all = append(all, e)
	}
	return all
}

// firstOpen returns the host that mail for a destination would go to, nil if it is not
// known yet.
func (s *Scheduler) firstOpen(now time.Time, d *Destination) *Host {
	for hop := range s.inOrder(now, d) {
		if h := s.hosts[s.hostKey(hop, d)]; h == nil || !h.window.closed(now) {
			return h
		}
	}
	return nil
}

// hostsMax bounds the hosts of one answer.
const hostsMax = 10_000

// ListHosts names hosts, as many as are asked for, and puts them in order: closed ones first, then
// those with most mail, then by name. With q.Closed it leaves out providers whose rate is whole. date turns a time of the scheduler into one of day. It needs no
// scheduler, so that a goroutine of its own can call it.
func ListHosts(all []HostInfo, providers []msg.ProviderEntry, families []msg.FamilyEntry, q msg.HostsQ, date func(time.Time) time.Time) msg.HostsA {
	limit := q.Max
	if limit <= 0 || limit > hostsMax {
		limit = hostsMax
	}
	states := []msg.HostState{msg.HostClosed, msg.HostProbe, msg.HostNew, msg.HostServes}
	waiting := map[string]int{}
	list := make([]msg.HostEntry, 0, len(all))
	for _, h := range all {
		e := h.HostEntry
		waiting[e.Provider] += e.Waiting
		if q.Closed && e.State != msg.HostClosed {
			continue
		}
		e.Host, e.LastUse = h.Hop.String(), date(e.LastUse)
		if !e.Until.IsZero() {
			e.Until = date(e.Until)
		}
		list = append(list, e)
	}
	if q.Closed {
		providers = slices.DeleteFunc(providers, func(p msg.ProviderEntry) bool { return p.Reason == "" })
	}
	for i := range providers {
		p := &providers[i]
		p.Waiting = waiting[p.Provider]
		if !p.Until.IsZero() {
			p.Until = date(p.Until)
		}
	}
	for i := range families {
		families[i].Until = date(families[i].Until)
	}
	slices.SortFunc(providers, func(a, b msg.ProviderEntry) int { return cmp.Compare(a.Provider, b.Provider) })
	slices.SortFunc(list, func(a, b msg.HostEntry) int {
		return cmp.Or(cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)),
			cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Host, b.Host))
	})
	return msg.HostsA{Hosts: list[:min(len(list), limit)], More: len(list) > limit, Providers: providers, TriedLast: families}
}
