package aq

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/entry"
)

// load is a core under load, in virtual time: SMAR and the store answer at once, a delivery
// takes a second.
type load struct {
	*script
	slots int
	ends  []running // in the order of their ends
	tried map[smtp.ID]time.Time
	next  int
	took  map[smtp.ID]time.Duration // from acceptance to delivery
	done  map[string][]smtp.ID      // in the order of their deliveries, by sender and recipient
}

type running struct {
	d  *Delivery
	at time.Time
}

func newLoad(t *testing.T, aq, slots int) *load {
	l := &load{script: newScript(t), slots: slots, tried: map[smtp.ID]time.Time{}, took: map[smtp.ID]time.Duration{}, done: map[string][]smtp.ID{}}
	l.cfg.Budget = budget.New(aq)
	l.cfg.SMTPRcpts = 1
	l.script.slots, l.window = slots, slots
	l.limits()
	l.core = New(l.cfg, l.now)
	return l
}

// settle does all that the core asks for, except that deliveries run.
func (l *load) settle() {
	rounds := 0
	for rd := l.core.Ready(); !rd.Empty(); rd = l.core.Ready() {
		if rounds++; rounds > 10_000 {
			l.t.Fatalf("the core never has enough: %+v", *rd)
		}
		saves, lookups, scan := slices.Clone(rd.Save), slices.Clone(rd.Lookup), rd.Scan
		for _, d := range rd.Deliver {
			l.tried[d.Envelope.TA] = l.now
			l.ends = append(l.ends, running{d, l.now.Add(time.Second)})
		}
		for _, s := range saves {
			for i := range s.Changes {
				l.change(&s.Changes[i])
			}
			l.core.Advance(l.now, s.ID)
		}
		for _, x := range lookups {
			ev := &Routed{Lookup: x, Done: true}
			for _, r := range x.Rcpts {
				domain := r.Envelope.Rcpts[r.Ref.Index].To.Domain
				ev.Answers = append(ev.Answers, msg.RouteA{Hops: []msg.Hop{hop("mx." + domain)}, Dest: "mx:" + domain, Expires: l.now.Add(time.Hour)})
			}
			l.core.Step(l.now, ev)
		}
		if scan != nil {
			l.core.Step(l.now, l.read(scan))
		}
	}
}

// pass lets time pass, in which deliveries end.
func (l *load) pass(d time.Duration) {
	l.now = l.now.Add(d)
	for len(l.ends) > 0 && !l.ends[0].at.After(l.now) {
		x := l.ends[0].d
		l.ends = l.ends[1:]
		l.took[x.Envelope.TA] = l.now.Sub(x.Envelope.Arrival)
		key := x.Envelope.Mail.From.Addr() + " " + x.Envelope.Rcpts[0].To.Addr()
		l.done[key] = append(l.done[key], x.Envelope.TA)
		l.core.Step(l.now, &Delivered{Delivery: x, A: msg.DeliverA{Stage: msg.DeliverDone, Rcpts: []smtp.Reply{smtp.NewReply(250, "", "ok")}}})
		l.settle()
	}
	l.core.Tick(l.now)
	l.settle()
}

// offer has a client send a message. It reports whether it was granted.
func (l *load) offer(from, to string) bool {
	l.next++
	ta := id(l.next)
	if !l.cfg.Budget.Grant(ta, l.now) {
		return false
	}
	l.arrive(ta, from, to)
	return true
}

func (l *load) arrive(ta smtp.ID, from, to string) {
	e := &msg.Envelope{TA: ta, Arrival: l.now, Mail: msg.Mail{From: path(from)}, Rcpts: []msg.Rcpt{{To: path(to)}}}
	l.store[ta] = &stored{env: e, inline: true, fresh: true, ended: map[int]bool{}, deferred: map[int]State{}, broken: map[int]bool{}}
	l.cfg.Budget.Accept(ta, 1)
	l.core.Step(l.now, &Accepted{Message{Envelope: e, Inline: true}})
	l.settle()
}

// TestOverload offers a fifth more mail than is delivered for five minutes, of one sender and of many, to
// one destination and to many. Every deferred recipient is tried within the bound that the
// package comment states, the active queue keeps to its own, and mail of one sender for one
// destination is delivered in its order, but for what the destination has in the active queue.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name          string
		senders, dest int
	}{{"one sender, one destination", 1, 1}, {"many senders, one destination", 20, 1}, {"one sender, many destinations", 1, 20}} {
		t.Run(c.name, func(t *testing.T) {
			const aq, slots, rate, deferred, minutes = 200, 10, 12, 60, 5
			l := newLoad(t, aq, slots)
			due := l.now.Add(2 * time.Minute)
			for i := range deferred { // they were tried before, and are due during the overload
				l.next++
				ta := id(l.next)
				e := &msg.Envelope{TA: ta, Arrival: l.now, Mail: msg.Mail{From: path("old@o.test")}, Rcpts: []msg.Rcpt{{To: path(fmt.Sprintf("r@old%d.test", i%7))}}}
				st := State{Ref: Ref{TA: ta}, NextTry: due.Add(time.Duration(i) * time.Millisecond), Stored: l.now, Attempts: 1}
				l.store[ta] = &stored{env: e, inline: true, ended: map[int]bool{}, deferred: map[int]State{0: st}, broken: map[int]bool{}}
			}
			l.settle()
			granted, most := 0, 0
			for i := range minutes * 60 * rate {
				from, to := fmt.Sprintf("s%d@x.test", i%c.senders), fmt.Sprintf("r@d%d.test", i%c.dest)
				if l.offer(from, to) {
					granted++
				}
				l.pass(time.Second / rate)
				total, _, _, _ := l.cfg.Budget.Used()
				most = max(most, total)
			}
			if most > aq {
				t.Errorf("%d recipients in an active queue of %d", most, aq)
			}
			// The package comment: N + aq/4 others before it, at a quarter of the rate.
			bound := time.Duration((deferred+aq/4)*4/slots+2) * time.Second
			for i := range deferred {
				ta := id(i + 1)
				at, ok := l.tried[ta]
				if !ok {
					if l.now.After(due.Add(bound)) {
						t.Fatalf("deferred recipient %d was never tried", i)
					}
					continue
				}
				if late := at.Sub(due); late > bound {
					t.Fatalf("deferred recipient %d was tried %v after it was due, the bound is %v", i, late, bound)
				}
			}
			for key, list := range l.done { // no message is overtaken by more than its destination's share
				share := aq*l.cfg.DestinationShare/100 + slots
				for i, ta := range list {
					over := 0
					for _, other := range list[:i] {
						if entry.CompareTA(other, ta) > 0 {
							over++
						}
					}
					if over > share {
						t.Fatalf("%s: %v was overtaken by %d newer ones", key, ta, over)
					}
				}
			}
			if n := len(l.took); n < minutes*60*slots*6/10 { // a host that serves has three quarters of the slots
				t.Errorf("%d messages were delivered within %d minutes by %d slots", n, minutes, slots)
			}
			t.Logf("%d messages granted, %d of them delivered", granted, len(l.took))
		})
	}
}
