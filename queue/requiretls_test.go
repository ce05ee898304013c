package queue

import (
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestRequireTLSBounce: what one host lacks is asked of the next one of the route. If none has
// it the message comes back at once, with its header alone whatever RET= says, and its bounce
// is protected as it was (RFC 8689 sections 4.2.1 and 5).
func TestRequireTLSBounce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.RFC = true
		first, second := routeTo("one.test").Hops[0], routeTo("two.test").Hops[0]
		w.route = func(q msg.RouteQ) msg.RouteA {
			if q.Rcpt.Domain == "d.test" {
				return msg.RouteA{Hops: []msg.Hop{first, second}, Dest: "mx:d.test"}
			}
			return routeTo(q.Rcpt.Domain)
		}
		var mu sync.Mutex // guards asked and protected
		var asked []string
		protected := 0
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			mu.Lock()
			defer mu.Unlock()
			if q.Rcpts[0].To.Domain == "x.test" {
				if q.Mail.RequireTLS {
					protected++
				}
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			asked = append(asked, q.Hop.Host)
			a := w.take(q, smtp.NewReply(550, "5.7.30", "does not offer REQUIRETLS"))
			a.Own = true
			return a
		}
		w.start()
		m := mailFrom("s@x.test")
		m.RequireTLS, m.Ret = true, "FULL"
		w.sendMail(m, to("a@d.test", ""))
		time.Sleep(time.Second)
		mu.Lock()
		hosts, bounces := strings.Join(asked, " "), protected
		mu.Unlock()
		if hosts != "mx.one.test mx.two.test" {
			t.Errorf("asked %s", hosts)
		}
		got := w.all("s@x.test")
		says(t, got, "550 5.7.30 does not offer REQUIRETLS", "Subject: notice\r\n")
		if strings.Contains(got[0], "\r\nbody\r\n") || bounces != 1 {
			t.Errorf("%d protected bounces, the last:\n%s", bounces, got[0])
		}
		w.checkEmpty()
	})
}
