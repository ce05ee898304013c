package queue

import (
	"meta1/mta/smtp"
	"meta1/queue/sched"
)

// The order in which deliveries begin is fair, whatever the order of arrival:
//
//   - Places for deliveries go round the senders; a sender's turn goes round the
//     destinations of his mail, and within one of them round his messages, oldest
//     first (sched.Rounds). So a message waits at most for one delivery of each other
//     sender, times the sender's own destinations and, there, messages.
//   - Fresh and deferred mail are senders apart, and alternate (sched.Turns).
//   - The window of a host that is full is waited for in a line of its own: places that
//     become free go round the destinations that share the host, and within one of them
//     round its senders. Who comes later stands behind.
//   - No host and no sender takes all places, whatever hangs (sched.Share).
//
// A flow is in one line at a time, so a decision costs the same with one destination
// as with a hundred thousand.

// senderKey tells senders apart. All bounces have one, the null sender.
type senderKey struct {
	from     smtp.Path
	deferred bool // it comes from the DEFEDB
}

// sender is whose mail waits, of one kind.
type sender struct {
	key     senderKey
	flows   int
	running int         // deliveries to new hosts
	open    list[*flow] // they may start
	held    list[*holding]
	queued  bool // in loop.ring
	place   int  // in loop.held
}

// flow is the mail of one sender for one destination, or, by itself, a job that has
// tried hosts already.
type flow struct {
	s       *sender
	d       *dest
	slot    int  // in d.flows
	retry   bool // it is one job that has tried hosts
	gone    bool // it has no mail any more; lines may still have it
	line    sched.Rounds[*job]
	at      *parking // where it waits for a host
	granted *host    // the host that keeps a place for it
}

// holding is the wait of a flow until its sender may use another place at a new host,
// or the host is no longer new.
type holding struct {
	f    *flow
	h    *host
	done bool
}

type flowKey struct {
	s *sender
	d *dest
}

// parking is the line of one destination at a host.
type parking struct {
	h        *host
	d        *dest
	deferred bool
	flows    list[*flow]
}

type parkKey struct {
	d        *dest
	deferred bool
}

// index is the line for deferred mail or for fresh mail.
func index(deferred bool) int {
	if deferred {
		return 1
	}
	return 0
}

// sender finds the sender of a recipient's mail.
func (l *loop) sender(r *rcpt) *sender {
	k := senderKey{from: r.t.env.Mail.From, deferred: r.home == homeDEFEDB}
	s := l.senders[k]
	if s == nil {
		s = &sender{key: k}
		l.senders[k] = s
	}
	return s
}

// flow finds the mail of a sender for a destination.
func (l *loop) flow(s *sender, d *dest) *flow {
	k := flowKey{s: s, d: d}
	f := l.flows[k]
	if f == nil {
		f = l.newFlow(s, d)
		l.flows[k] = f
	}
	return f
}

func (l *loop) newFlow(s *sender, d *dest) *flow {
	f := &flow{s: s, d: d, slot: len(d.flows)}
	d.flows = append(d.flows, f)
	s.flows++
	return f
}

// drop forgets a flow that has no mail.
func (l *loop) drop(f *flow) {
	if f.gone {
		return
	}
	f.gone = true
	d, last := f.d, len(f.d.flows)-1
	d.flows[f.slot] = d.flows[last]
	d.flows[f.slot].slot = f.slot
	d.flows[last] = nil
	d.flows = d.flows[:last]
	if !f.retry {
		delete(l.flows, flowKey{s: f.s, d: d})
	}
	f.s.flows--
	l.forgetSender(f.s)
}

// forgetSender forgets a sender that has nothing waiting and nothing under way that
// counts.
func (l *loop) forgetSender(s *sender) {
	if s.flows == 0 && s.running == 0 && l.senders[s.key] == s {
		l.held.Remove(s)
		delete(l.senders, s.key)
	}
}

// open lets a flow take part in the senders' turns.
func (l *loop) open(f *flow) {
	f.s.open.push(f)
	l.line(f.s)
}

// openFirst is open for a flow that has waited already.
func (l *loop) openFirst(f *flow) {
	f.s.open.pushFront(f)
	l.line(f.s)
}

func (l *loop) line(s *sender) {
	if !s.queued && s.open.len() > 0 {
		s.queued = true
		l.ring[index(s.key.deferred)].push(s)
	}
}

// nextSender is the sender whose turn it is, nil if none has an open flow.
func (l *loop) nextSender() *sender {
	fresh, deferred := l.ring[0].len() > 0, l.ring[1].len() > 0
	if !fresh && !deferred {
		return nil
	}
	s, _ := l.ring[index(l.turns.Deferred(fresh, deferred))].pop()
	s.queued = false
	return s
}

// holdBack has a flow wait until its sender may use another place at a new host, or
// the host serves.
func (l *loop) holdBack(f *flow, h *host) {
	w := &holding{f: f, h: h}
	f.s.held.push(w)
	h.hold(w)
	if f.s.place == 0 {
		l.held.Push(f.s)
	}
}

// unhold opens a flow of the held sender that uses fewest places at new hosts, if he
// may use another.
func (l *loop) unhold() bool {
	s := l.held.First()
	if s == nil || l.share.Sender(s.running) == 0 {
		return false
	}
	w, _ := s.held.pop()
	if s.held.len() == 0 {
		l.held.Remove(s)
	}
	l.goOn(w)
	return true
}

// goOn ends the wait of a flow.
func (l *loop) goOn(w *holding) {
	if !w.done {
		w.done = true
		w.h.holds--
		l.openFirst(w.f)
	}
}

// goOnAll ends the wait of all flows until the host serves.
func (l *loop) goOnAll(h *host) {
	for w, ok := h.held.pop(); ok; w, ok = h.held.pop() {
		l.goOn(w)
	}
}

// hold notes that a flow waits until the host serves.
func (h *host) hold(w *holding) {
	h.holds++
	h.held.push(w)
	if h.held.len() < 2*h.holds+16 {
		return
	}
	for range h.held.len() { // most of them wait no longer
		if w, _ := h.held.pop(); !w.done {
			h.held.push(w)
		}
	}
}

// park has a flow wait for a host.
func (l *loop) park(f *flow, h *host, first bool) {
	k := parkKey{d: f.d, deferred: f.s.key.deferred}
	p := h.parked[k]
	if p == nil {
		p = &parking{h: h, d: f.d, deferred: k.deferred}
		if h.parked == nil {
			h.parked = map[parkKey]*parking{}
		}
		h.parked[k] = p
		h.lines[index(k.deferred)].push(p)
	}
	f.at = p
	if first {
		p.flows.pushFront(f)
	} else {
		p.flows.push(f)
	}
	l.file(h)
}

// unpark takes out the flow at a host whose turn it is, nil if none waits.
func (h *host) unpark() *flow {
	for {
		fresh, deferred := h.lines[0].len() > 0, h.lines[1].len() > 0
		if !fresh && !deferred {
			return nil
		}
		line := &h.lines[index(h.turns.Deferred(fresh, deferred))]
		p, _ := line.pop()
		f := p.pop()
		if p.flows.len() > 0 {
			line.push(p)
		} else {
			delete(h.parked, parkKey{d: p.d, deferred: p.deferred})
		}
		if f != nil {
			return f
		}
	}
}

// pop is the first flow of the line that still has mail, nil if there is none.
func (p *parking) pop() *flow {
	for f, ok := p.flows.pop(); ok; f, ok = p.flows.pop() {
		if f.at = nil; !f.gone {
			return f
		}
	}
	return nil
}

// waits tells whether a flow waits for the host.
func (h *host) waits() bool { return len(h.parked) > 0 }
