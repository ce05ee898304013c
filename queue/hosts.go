package queue

import (
	"cmp"
	"context"
	"slices"

	"meta1/mta/msg"
)

type hostsRequest = msg.Request[msg.HostsQ, msg.HostsA]

// hostsMax bounds the hosts of one answer.
const hostsMax = 10_000

// listHosts copies what is known of the hosts and has a goroutine put them in order.
func (l *loop) listHosts(r *hostsRequest) {
	l.now = l.q.clock.now()
	all := make([]msg.HostEntry, 0, len(l.hosts))
	hops := make(map[int]msg.Hop, len(l.hosts))
	for _, h := range l.hosts {
		e := h.entry(l)
		if r.Q.Closed && e.State != msg.HostClosed {
			continue
		}
		hops[len(all)] = h.hop
		all = append(all, e)
	}
	l.q.group.Go(func(context.Context) error {
		for i := range all {
			all[i].Host = hops[i].String()
		}
		r.Answer(orderHosts(all, r.Q.Max))
		return nil
	})
}

// entry is what is told of a host.
func (h *host) entry(l *loop) msg.HostEntry {
	e := msg.HostEntry{
		State: msg.HostNew, InUse: h.window.Inflight(), Window: h.window.Size(), Max: h.window.Max(),
		LastUse: l.q.clock.date(h.lastUse), Reason: h.reason,
	}
	for _, p := range h.parked {
		e.Waiting += p.waiting()
	}
	switch {
	case h.window.Closed(l.now):
		e.State, e.Until = msg.HostClosed, l.q.clock.date(h.window.Until())
	case h.window.Size() == 0:
		e.State = msg.HostProbe
	case h.serves:
		e.State = msg.HostServes
	}
	return e
}

// waiting is the number of messages in a line; one that goes on elsewhere may still be
// counted.
func (p *parking) waiting() (n int) {
	for _, f := range p.flows.items[p.flows.head:] {
		if !f.gone {
			n += f.line.Len()
		}
	}
	return n
}

// orderHosts puts closed hosts first, then those with most mail, then by name.
func orderHosts(all []msg.HostEntry, limit int) msg.HostsA {
	if limit <= 0 || limit > hostsMax {
		limit = hostsMax
	}
	slices.SortFunc(all, func(a, b msg.HostEntry) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Host, b.Host))
	})
	return msg.HostsA{Hosts: all[:min(len(all), limit)], More: len(all) > limit}
}

func rank(e *msg.HostEntry) int {
	return slices.Index([]msg.HostState{msg.HostClosed, msg.HostProbe, msg.HostNew, msg.HostServes}, e.State)
}
