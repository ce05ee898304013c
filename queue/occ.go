package queue

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/queue/sched"
)

// hostKey names a host for slow start (README 3.8.1). Two services on one address
// but different ports are different hosts, so that a hanging one does not stop
// the other. So are the same host for recipients with and without connection_limits
// of their own, unless the configuration map has limits for the address: those
// override them and hold for all.
type hostKey struct {
	addr   netip.AddrPort
	socket string
	limits *ConnectionLimits
}

func (l *loop) hostKey(h msg.Hop, d *dest) hostKey {
	k := hostKey{addr: h.Addr, socket: h.Socket, limits: d.limits}
	if k.limits != nil && l.q.conf.Load().ruled(h.Addr.Addr()) {
		k.limits = nil
	}
	return k
}

// host is an entry of the OCC, the outgoing connection cache.
type host struct {
	hop     msg.Hop
	window  sched.Window
	serves  bool // the last delivery was served; else it is new for sched.Share
	rate    rate
	parked  map[parkKey]*parking // flows that found the window full, or the rate used up
	lines   [2]list[*parking]    // the same in their order: fresh mail, deferred mail
	turns   sched.Turns
	name    string         // for people, since it closed
	blocks  []*wait        // mail that waits for it in the DEFEDB; some may not any more
	probe   time.Time      // when it is probed by that mail
	held    list[*holding] // flows that wait until it serves; some no longer do
	holds   int            // those that do
	granted int            // places that are kept for flows that waited
	place   int            // in loop.blocked
	alarm   time.Time      // when it is looked at next; zero: not asked for
	lastUse time.Time
	timeout time.Duration // octo: how long the entry lasts, and a closed window; 0: not given
	reason  string        // why the window closed
}

// places is how many deliveries may start for which no place is kept.
func (h *host) places(now time.Time) int {
	return min(h.window.Free(now), h.rate.free(now)) - h.granted
}

// used is how many places of sched.Share the host has, or will have at once.
func (h *host) used() int { return h.window.Inflight() + h.granted }

// idle tells whether the host can be forgotten without harm.
func (h *host) idle() bool { return h.used() == 0 && !h.waits() && h.holds == 0 }

// host finds the OCC entry of a hop.
func (l *loop) host(hop msg.Hop, d *dest) *host {
	k := l.hostKey(hop, d)
	h := l.hosts[k]
	if h == nil {
		if len(l.hosts) >= l.q.cfg.OCCEntries {
			l.forgetHost()
		}
		limits := l.q.hostLimits(k)
		h = &host{hop: hop, window: sched.NewWindow(limits.window), timeout: limits.timeout, rate: rate{max: limits.rate}}
		l.hosts[k] = h
	}
	h.lastUse = l.now
	return h
}

// forgetHost drops an idle host. It looks at a few entries, which Go picks by
// chance, and takes the one that was unused for longest.
func (l *loop) forgetHost() {
	const look = 32
	var victim hostKey
	var oldest *host
	n := 0
	for k, h := range l.hosts {
		if n++; n > look && oldest != nil || n > 64*look {
			break
		}
		if h.idle() && (oldest == nil || h.lastUse.Before(oldest.lastUse)) {
			victim, oldest = k, h
		}
	}
	if oldest != nil {
		delete(l.hosts, victim)
		l.forgotten(oldest)
	}
}

// expireHosts forgets the hosts that were unused for the time octo: slow start begins
// anew. A closed host stays, so that one probe tells whether it serves again, and so
// does one whose connections of the last minute still count.
func (l *loop) expireHosts() {
	for k, h := range l.hosts {
		unused := l.now.Sub(h.lastUse)
		if h.timeout > 0 && unused >= h.timeout && (h.rate.max == 0 || unused >= rateWindow) &&
			h.window.Size() > 0 && h.idle() {
			delete(l.hosts, k)
			l.forgotten(h)
		}
	}
}

// wake keeps places for as many waiting flows as the host has now. If the host is
// closed, they look for another.
func (l *loop) wake(h *host) {
	l.unfile(h)
	closed := h.window.Closed(l.now)
	if closed {
		l.goOnAll(h)
	}
	for h.waits() && (closed || h.places(l.now) > 0 && l.share.Host(h.used(), !h.serves)) {
		f := h.unpark()
		switch {
		case f == nil:
		case closed:
			l.openFirst(f)
		case !h.serves && l.share.Sender(f.s.running) == 0:
			l.holdBack(f, h)
		default:
			f.granted = h
			h.granted++
			l.openFirst(f)
		}
	}
	l.file(h)
}

// file has a host with waiting flows be looked at again: when others leave places if
// it is sched.Share that keeps them waiting, at some time if it is the rate.
func (l *loop) file(h *host) {
	switch {
	case !h.waits():
	case h.places(l.now) <= 0:
		if at := h.rate.next(); !at.IsZero() {
			l.alarm(h, at)
		}
	case h.place == 0:
		l.blocked[kind(!h.serves)].Push(h)
	}
}

func (l *loop) unfile(h *host) {
	for i := range l.blocked {
		if p := h.place; p > 0 && p <= l.blocked[i].Len() && l.blocked[i].All()[p-1] == h {
			l.blocked[i].Remove(h)
		}
	}
}

// alarm has a host be looked at at some time.
func (l *loop) alarm(h *host, at time.Time) {
	if !h.alarm.IsZero() && !h.alarm.After(at) {
		return
	}
	h.alarm = at
	l.at(at, func() {
		if h.alarm.Equal(at) {
			h.alarm = time.Time{}
			l.wake(h)
		}
	})
}

// relax lets flows go on that sched.Share kept back, after a delivery has ended.
func (l *loop) relax() {
	for i := range l.blocked {
		for h := l.blocked[i].First(); h != nil && l.share.Host(h.used(), !h.serves); h = l.blocked[i].First() {
			l.wake(h)
		}
	}
	l.unhold()
}

// kind is the place in loop.blocked of a new host or of one that serves.
func kind(isNew bool) int {
	if isNew {
		return 1
	}
	return 0
}

// keptFor is how long a connection is taken to stay open after a delivery. SMTPC keeps
// it for longer, by default.
const keptFor = 2 * time.Second

// rate bounds the connections that are opened to a host within a minute (ocr). Only
// the answer to a delivery tells whether a connection was opened for it: until then
// one is counted, unless the host is known to keep connections and one should be
// free. To find that out, one delivery may start when the minute's are used up: if it
// opens a connection after all, that is one too many, once, and it counts as well.
// The zero rate has no bound.
type rate struct {
	max     int
	opened  []time.Time // connections of the last minute, in order of time
	kept    int         // connections that should be open and without work
	keptAt  time.Time   // when the last of them became free
	reuse   reuse
	finding bool // the delivery that finds out runs
}

// reuse is what is known of a host's keeping connections.
type reuse uint8

const (
	reuseUnknown reuse = iota
	reuseYes
	reuseNo
)

// free is how many deliveries may start.
func (r *rate) free(now time.Time) int {
	if r.max == 0 {
		return math.MaxInt
	}
	old := 0
	for old < len(r.opened) && now.Sub(r.opened[old]) >= rateWindow {
		old++
	}
	r.opened = slices.Delete(r.opened, 0, old)
	if now.Sub(r.keptAt) >= keptFor {
		r.kept = 0
	}
	n := max(r.max-len(r.opened), 0)
	switch {
	case r.reuse == reuseYes:
		n += r.kept
	case r.reuse == reuseUnknown && r.kept > 0 && !r.finding:
		n++
	}
	return n
}

// next is when another connection may be opened, zero if the rate does not hinder it.
func (r *rate) next() time.Time {
	if r.max == 0 || len(r.opened) < r.max {
		return time.Time{}
	}
	return r.opened[len(r.opened)-r.max].Add(rateWindow)
}

// start counts a delivery that begins, one of those that free allows. counted says
// that it took a connection of the minute's.
func (r *rate) start(now time.Time) (counted bool) {
	full := len(r.opened) >= r.max
	switch {
	case r.max == 0:
		return false
	case r.kept > 0 && (r.reuse == reuseYes || full):
		r.kept--
		r.finding = r.finding || r.reuse == reuseUnknown
		return false
	}
	r.opened = append(r.opened, now)
	return true
}

// ended corrects the count by what was found out about a delivery. kept says that its
// connection may be open and free now.
func (r *rate) ended(e *deliveredEvent, now time.Time, kept bool) {
	if r.max == 0 {
		return
	}
	if !e.counted {
		r.finding = false
	}
	switch reused := e.err == nil && e.a.Reused; {
	case e.unconnected():
		if i := slices.Index(r.opened, e.start); e.counted && i >= 0 {
			r.opened = slices.Delete(r.opened, i, i+1)
		} else if !e.counted {
			r.kept++
		}
	case reused:
		r.reuse = reuseYes
		if i := slices.Index(r.opened, e.start); e.counted && i >= 0 {
			r.opened = slices.Delete(r.opened, i, i+1)
		}
	case !e.counted: // there was none that was free
		r.reuse, r.kept = reuseNo, 0
		r.opened = append(r.opened, now)
	}
	if kept {
		r.kept++
		r.keptAt = now
	}
}
