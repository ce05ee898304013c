package queue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestHandover: with a peer set and OpReroute, also what is parked for a host that is down is routed anew; what the
// peer refuses for good is deferred and not bounced, and goes its own way when the handover is over.
func TestHandover(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up bool
		w.route = func(q msg.RouteQ) msg.RouteA {
			a := routeTo(q.Rcpt.Domain)
			if q.Via != "" {
				a.Dest, a.Expires = q.Via+msg.DestHandover, time.Time{}
			}
			return a
		}
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.mu.Lock()
			now := up
			w.mu.Unlock()
			switch over := strings.HasSuffix(q.Dest, msg.DestHandover); {
			case over && q.Rcpts[0].To.Local == "r3":
				return w.take(q, smtp.NewReply(550, "5.7.1", "not here"))
			case over || now:
				return w.take(q, smtp.NewReply(250, "", "ok"))
			case q.Rcpts[0].To.Domain == "two.test":
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		q := w.start()
		for i := range 10 {
			w.mustSend(q, fmt.Sprintf("s%d@here.test", i), "Subject: x\r\n\r\nm", fmt.Sprintf("r%d@one.test", i), fmt.Sprintf("r%d@two.test", i))
		}
		time.Sleep(10 * time.Second)
		w.operate(msg.OpHold, msg.Selection{Rcpt: "r5@two.test"})
		w.ports.Handover.Set("peer.test")
		a, err := w.ports.Operate.Ask(context.Background(), msg.OperateQ{Op: msg.OpReroute})
		if err != nil || a.Done+a.Busy < 19 {
			t.Errorf("%+v %v", a, err)
		}
		time.Sleep(10 * time.Second)
		left := w.listAll()
		for _, e := range left {
			refused := e.Rcpt.Local == "r3" && e.State == msg.StateDeferred && strings.Contains(e.Reason, "450 4.7.1 not here")
			held := e.Rcpt.String() == "<r5@two.test>" && e.State == msg.StateHeld
			if !refused && !held {
				t.Errorf("%+v is left", e)
			}
		}
		if len(left) != 3 {
			t.Errorf("%d are left, want two that were refused and one that is held", len(left))
		}
		w.ports.Handover.Set("")
		set(w, &up)
		time.Sleep(24 * time.Hour)
		if left := w.listAll(); len(left) != 1 || left[0].State != msg.StateHeld {
			t.Errorf("%+v", left)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}
