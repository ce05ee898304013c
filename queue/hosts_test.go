package queue

import (
	"context"
	"fmt"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

func (w *world) hostList(q msg.HostsQ) msg.HostsA {
	w.t.Helper()
	a, err := w.ports.Hosts.Ask(context.Background(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// TestHosts has one host that serves, one that hangs and one that fails.
func TestHosts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			switch q.Rcpts[0].To.Domain {
			case "down.test":
				return failedHost(q)
			case "hang.test":
				time.Sleep(time.Minute)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range 15 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@hang.test", i))
		}
		w.mustSend(q, "", "m", "b@good.test")
		for range 4 { // each failure halves the window of ten
			w.mustSend(q, "", "m", "a@down.test")
		}
		time.Sleep(time.Second)
		a := w.hostList(msg.HostsQ{})
		if len(a.Hosts) != 3 || a.More {
			t.Fatalf("%+v", a)
		}
		down, hang, good := a.Hosts[0], a.Hosts[1], a.Hosts[2]
		if down.State != msg.HostClosed || down.Host != routeTo("down.test").Hops[0].String() || down.Reason != "451 4.4.1 connection refused" ||
			time.Until(down.Until) < time.Second {
			t.Errorf("down: %+v", down)
		}
		if hang.State != msg.HostNew || hang.InUse != w.cfg.SMTPC.Initial || hang.Window != w.cfg.SMTPC.Initial ||
			hang.Max != w.cfg.SMTPC.Max || hang.Waiting != 15-w.cfg.SMTPC.Initial {
			t.Errorf("hang: %+v", hang)
		}
		if good.State != msg.HostServes || good.InUse != 0 || good.Window != w.cfg.SMTPC.Initial+1 || good.Reason != "" {
			t.Errorf("good: %+v", good)
		}
		if a := w.hostList(msg.HostsQ{Closed: true}); len(a.Hosts) != 1 || a.Hosts[0].State != msg.HostClosed {
			t.Errorf("closed: %+v", a)
		}
		if a := w.hostList(msg.HostsQ{Max: 2}); len(a.Hosts) != 2 || !a.More {
			t.Errorf("two of them: %+v", a)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
