package aq

import (
	"fmt"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/queue/budget"
)

// BenchmarkDelivered is a message of fifty recipients from its acceptance to its end, with the
// lines that are logged of it.
func BenchmarkDelivered(b *testing.B) {
	const n = 50
	w := newScript(nil)
	w.cfg.Budget = budget.New(1000)
	core := New(w.cfg, w.now)
	e := &msg.Envelope{Mail: msg.Mail{From: path("s@a.test")}, Arrival: w.now}
	for i := range n {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: path(fmt.Sprintf("r%d@d.test", i))})
	}
	served := reply("250 2.0.0 ok")
	now := w.now
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Second)
		one := *e
		one.TA = id(i + 1)
		w.cfg.Budget.Accept(one.TA, n)
		core.Step(now, &Accepted{Message{Envelope: &one, Inline: true}})
		for rd := core.Ready(); !rd.Empty(); rd = core.Ready() {
			for _, l := range rd.Lookup {
				ev := &Routed{Lookup: l, Done: true}
				for range l.Rcpts {
					ev.Answers = append(ev.Answers, msg.RouteA{Dest: "mx:d.test", Hops: []msg.Hop{hop("mx.d.test")}})
				}
				core.Step(now, ev)
			}
			for _, d := range rd.Deliver {
				ev := &Delivered{Delivery: d, A: msg.DeliverA{Stage: msg.DeliverDone}}
				for range d.Rcpts {
					ev.A.Rcpts = append(ev.A.Rcpts, served)
				}
				core.Step(now, ev)
			}
			for _, s := range rd.Save {
				core.Advance(now, s.ID)
			}
			if s := rd.Scan; s != nil {
				core.Step(now, &Scanned{Scan: s})
			}
		}
	}
	if got := core.Counts().Delivered; got != uint64(b.N*n) {
		b.Fatalf("%d recipients were delivered, want %d", got, b.N*n)
	}
}
