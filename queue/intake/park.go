package intake

import (
	"slices"
	"strings"
	"time"

	"meta1/queue/entry"
	"meta1/queue/sched"
)

// Mail for a destination none of whose hosts can be tried does not come back recipient by
// recipient: it is parked in the store, in the index of its destination. When a host is due
// for a probe, the oldest parked recipient of one of its destinations is loaded. If the host
// serves it, the others return in batches, oldest first; if not, they are not touched. The same
// is done for a domain that has no route for a while, and for the backlog of a destination.
// Each parked recipient has a next time to try of its own as well, in case that the park is
// forgotten: parks are in memory only, and bounded by OCC_entries_max.

const (
	// returnFirst and returnBatch bound the recipients of one park that are in the active
	// queue at once: at first, and when some were served.
	returnFirst = 20
	returnBatch = 400
	// routePark begins the name of the park for a domain without a route.
	routePark = "route:"
	// parkSendersMax bounds the senders that a park counts.
	parkSendersMax = 4096
	// probeLife is after how long a route that is being probed is probed again, for the
	// recipient that did it may have been withdrawn.
	probeLife = 15 * time.Minute
)

// ParkState is what is done with parked mail.
type ParkState uint8

// The states.
const (
	Returning ParkState = iota // it comes back in batches
	Closed                     // it stays where it is until a probe is due
	Probing                    // one recipient is out to find out whether the destination serves
)

// String is the word for it.
func (s ParkState) String() string { return [...]string{"returning", "closed", "probing"}[s] }

// Park is the mail that is parked for one destination, or for the route of a domain.
type Park struct {
	name    string // of the destination, or routePark and a domain
	state   ParkState
	queued  bool           // in Intake.wanted
	from    entry.Ref      // returning: the next of its index to be loaded
	active  int            // recipients of it in the active queue
	batch   int            // returning: the most of them
	senders map[string]int // how many of whose mail was parked since the start

	hosts []*sched.Host // closed, probing: one that serves ends the park
	count int           // recipients that were parked since the start and have not returned

	// Of a route:
	until  time.Time // closed: when it is probed; probing: when it is given up
	fails  int
	reason string
}

// probe is when a route is probed.
type probe struct {
	at   time.Time
	park *Park
}

// parkedRef is a recipient that was parked.
type parkedRef struct {
	ref          entry.Ref
	dest, sender string
}

// Name is the destination, or "route:" and a domain.
func (p *Park) Name() string { return p.name }

func (p *Park) isRoute() bool { return strings.HasPrefix(p.name, routePark) }

// first is the host that is probed first, nil if none is waited for.
func (p *Park) first() (first *sched.Host) {
	for _, h := range p.hosts {
		if first == nil || h.Until().Before(first.Until()) {
			first = h
		}
	}
	return first
}

// known reports whether a park was not forgotten.
func (i *Intake) known(p *Park) bool { return i.parks[p.name] == p }

// parkFor finds or makes the park of a destination; nil if there are too many, or its name is
// too long. A new one is returning.
func (i *Intake) parkFor(name string) *Park {
	p := i.parks[name]
	if p == nil && len(i.parks) < i.cfg.ParksMax && name != "" && len(name) <= entry.DestMax {
		p = &Park{name: name, batch: returnFirst}
		i.parks[name] = p
	}
	return p
}

// Backlog is the park of what a destination has beyond its share; nil if there are too many.
func (i *Intake) Backlog(dest string) *Park {
	p := i.parkFor(dest)
	if p != nil && p.state == Returning {
		i.want(p)
	}
	return p
}

// Behind is the park behind which a fresh recipient must wait: mail of its sender returns
// from there, and newer mail must not overtake it.
func (i *Intake) Behind(dest, sender string) *Park {
	if p := i.parks[dest]; p != nil && p.state == Returning && p.senders[sender] > 0 {
		return p
	}
	return nil
}

// Close parks mail for a destination until one of its closed hosts serves; nil if there are too
// many parks.
func (i *Intake) Close(now time.Time, d *sched.Destination) *Park {
	p := i.parkFor(d.Key())
	if p == nil {
		return nil
	}
	p.state = Closed
	for _, h := range i.cfg.Sched.HostsOf(d) {
		if h.Closed(now) && !slices.Contains(p.hosts, h) {
			p.hosts = append(p.hosts, h)
			i.byHost[h] = append(i.byHost[h], p)
			i.cfg.Sched.AddParked(now, h, p.count)
		}
	}
	return p
}

// park takes note that the record of a parked recipient is durable. If nobody keeps the park
// any more it comes back.
func (i *Intake) park(now time.Time, r parkedRef) {
	p := i.Backlog(r.dest)
	if p == nil {
		return
	}
	if r.ref.Compare(p.from) < 0 {
		p.from = r.ref
	}
	i.count(now, p, 1)
	if r.sender != "" && (p.senders[r.sender] > 0 || len(p.senders) < parkSendersMax) {
		if p.senders == nil {
			p.senders = map[string]int{}
		}
		p.senders[r.sender]++
	}
}

// count counts recipients of a park, for it and for the hosts that it waits for.
func (i *Intake) count(now time.Time, p *Park, n int) {
	n = max(n, -p.count) // what was parked before the start was not counted
	p.count += n
	for _, h := range p.hosts {
		i.cfg.Sched.AddParked(now, h, n)
	}
}

// Returned takes note that a recipient came out of the index of its destination, and returns its
// park, which hears by Left that it has left the active queue; nil for none.
func (i *Intake) Returned(now time.Time, st *entry.State, sender string) *Park {
	p := i.parks[st.Dest]
	if !st.Parked || p == nil {
		return nil
	}
	p.active++
	i.count(now, p, -1)
	if n := p.senders[sender]; n > 1 {
		p.senders[sender] = n - 1
	} else {
		delete(p.senders, sender)
	}
	return p
}

// Left takes note that a recipient that had returned is not in the active queue any more.
func (p *Park) Left() { p.active-- }

// Served takes note that a recipient that had returned was served.
func (i *Intake) Served(now time.Time, p *Park) {
	if !i.known(p) {
		return
	}
	if p.state != Returning {
		i.giveBack(now, p)
	}
	p.batch = returnBatch
}

// giveBack ends what parked mail waits for: it returns in batches.
func (i *Intake) giveBack(now time.Time, p *Park) {
	i.leaveHosts(now, p)
	p.until, p.fails = time.Time{}, 0
	if p.state != Returning {
		p.state, p.from, p.batch = Returning, entry.Ref{}, returnFirst
	}
	i.want(p)
}

// leaveHosts has a park wait for no host.
func (i *Intake) leaveHosts(now time.Time, p *Park) {
	for _, h := range p.hosts {
		i.cfg.Sched.AddParked(now, h, -p.count)
		left := slices.DeleteFunc(i.byHost[h], func(o *Park) bool { return o == p })
		if i.byHost[h] = left; len(left) == 0 {
			delete(i.byHost, h)
		}
	}
	p.hosts = nil
}

// forget forgets a park of which nothing is left.
func (i *Intake) forget(now time.Time, p *Park) {
	i.leaveHosts(now, p)
	delete(i.parks, p.name)
}

// want has a scan load something of a park.
func (i *Intake) want(p *Park) {
	if !p.queued {
		p.queued = true
		i.wanted.Push(p)
	}
}

// need is how many recipients of a park are to be loaded now.
func (p *Park) need(now time.Time) int {
	switch {
	case p.state == Returning && p.active <= p.batch/2:
		return p.batch - p.active
	case p.state == Probing && !p.isRoute(), p.state == Closed && p.isRoute() && !now.Before(p.until):
		return max(1-p.active, 0)
	}
	return 0
}

// HostChanges goes on after a host serves, is due for a probe, or was forgotten.
func (i *Intake) HostChanges(now time.Time) {
	for _, ch := range i.cfg.Sched.Changes() {
		list := i.byHost[ch.Host]
		switch {
		case len(list) == 0:
		case ch.What == sched.ProbeDue:
			p := list[0]
			copy(list, list[1:])
			list[len(list)-1] = p // the next probe is another's
			p.state = Probing
			i.want(p)
		case ch.What == sched.Serves:
			for _, p := range slices.Clone(list) {
				i.giveBack(now, p)
			}
		case ch.What == sched.Forgotten:
			for _, p := range slices.Clone(list) {
				p.hosts = slices.DeleteFunc(p.hosts, func(h *sched.Host) bool { return h == ch.Host })
				if len(p.hosts) == 0 {
					i.giveBack(now, p)
				}
			}
			delete(i.byHost, ch.Host)
		}
	}
}

// NoRoute parks mail for a domain for which no route is found, until it is looked up again; nil
// if there are too many parks. chance spreads the times, by the number of failures.
func (i *Intake) NoRoute(now time.Time, domain, reason string, chance func(n int) float64) *Park {
	p := i.parkFor(routePark + domain)
	if p != nil && (p.state != Closed || !now.Before(p.until)) { // the others of a batch fail with it
		p.fails++
		p.state, p.reason = Closed, reason
		p.until = now.Add(i.cfg.Retry.Delay(p.fails, chance(p.fails)))
		i.probes.Push(probe{p.until, p})
	}
	return p
}

// probeRoute has one recipient loaded, which looks a route up, if it is time.
func (i *Intake) probeRoute(pr probe) {
	if p := pr.park; i.known(p) && !pr.at.Before(p.until) && p.state != Returning {
		p.state = Closed
		i.want(p)
	}
}

// RouteFails is the park of a domain of which it is known that no route is found now, or nil.
// One recipient looks it up when it is time.
func (i *Intake) RouteFails(now time.Time, domain string) *Park {
	if len(i.parks) == 0 {
		return nil
	}
	p := i.parks[routePark+domain]
	switch {
	case p == nil || p.state == Returning:
		return nil
	case p.state == Probing || now.Before(p.until):
		return p
	}
	p.state, p.until = Probing, now.Add(probeLife)
	i.probes.Push(probe{p.until, p})
	return nil
}

// RouteClosed is the park of a domain whose route is not to be looked up now, not even by those
// who wait for that, or nil.
func (i *Intake) RouteClosed(now time.Time, domain string) *Park {
	if len(i.parks) > 0 {
		if p := i.parks[routePark+domain]; p != nil && p.state == Closed && now.Before(p.until) {
			return p
		}
	}
	return nil
}

// RouteFound ends the park for the route of a domain.
func (i *Intake) RouteFound(now time.Time, domain string) {
	if len(i.parks) == 0 {
		return
	}
	if p := i.parks[routePark+domain]; p != nil && p.state != Returning {
		i.giveBack(now, p)
	}
}

// ProbeAll lets each closed host and route be probed at once, by what is due or comes: an
// operator who flushes knows that something has changed. What is parked and was not flushed
// is not loaded for it.
func (i *Intake) ProbeAll(now time.Time) {
	i.HostChanges(now)
	i.cfg.Sched.ProbeAll(now)
	i.cfg.Sched.Changes()
	for _, p := range i.parks {
		if p.isRoute() && p.state == Closed {
			p.until = now
			i.probes.Push(probe{now.Add(i.cfg.Retry.Min), p})
		}
	}
	i.schedule.looked = time.Time{} // at once
}

// Reason tells what parked mail waits for.
func (i *Intake) Reason(p *Park) string {
	domain := strings.TrimPrefix(p.name, routePark)
	switch first := p.first(); {
	case p.state == Returning:
		return "waits for its turn: there is much mail for " + domain
	case p.isRoute():
		return "waits for the probe of the route to " + domain + " at " + i.cfg.Date(p.until) + ": " + p.reason
	case first != nil:
		return "waits for the probe of " + first.Name() + " at " + i.cfg.Date(first.Until()) + ": " + first.Reason()
	default:
		return "waits for a host of " + p.name
	}
}

// ParkInfo is what a listing shows of parked mail, in place of what its record says.
type ParkInfo struct {
	State  ParkState
	Reason string
	Next   time.Time // when it is probed, by the queue's clock; zero if not known
}

// Parks are all parks as they stand now, by destination.
func (i *Intake) Parks() map[string]ParkInfo {
	all := make(map[string]ParkInfo, len(i.parks))
	for name, p := range i.parks {
		info := ParkInfo{State: p.state, Reason: i.Reason(p)}
		if h := p.first(); h != nil && p.state != Returning {
			info.Next = h.Until()
		} else if p.isRoute() && p.state == Closed {
			info.Next = p.until
		}
		all[name] = info
	}
	return all
}
