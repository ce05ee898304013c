package queue

import (
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestTLSOptionalRoute: mail with TLS-Required: no (RFC 8689) is looked up apart from other mail
// for its domain. It does not wait for a route with other mail whose policy leaves no host, nor
// does its route end that wait; and once a policy has come it does not take a route that others
// have found under it.
func TestTLSOptionalRoute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var ordinary, optional atomic.Int64 // questions
		var policy atomic.Bool              // of c.test
		named, other := routeTo("named.test").Hops[0], routeTo("other.test").Hops[0]
		w.route = func(q msg.RouteQ) msg.RouteA {
			a := msg.RouteA{Hops: []msg.Hop{other}, Dest: "mx:" + q.Rcpt.Domain, Expires: time.Now().Add(time.Hour)}
			if q.TLSOptional {
				optional.Add(1)
			} else {
				ordinary.Add(1)
			}
			switch {
			case q.Rcpt.Domain == "c.test" && !policy.Load():
			case q.TLSOptional:
				a.Dest += msg.DestTLSOptional
			case q.Rcpt.Domain == "c.test":
				a.Hops = []msg.Hop{named}
			default:
				a.Hops, a.Reply = nil, smtp.NewReply(451, "4.7.0", "no MX host")
			}
			return a
		}
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "c.test" && !policy.Load() {
				return w.take(q, smtp.NewReply(451, "4.2.0", "later"))
			}
			if q.Rcpts[0].To.Domain == "c.test" && q.Mail.TLSOptional && q.Hop != other {
				return w.take(q, smtp.NewReply(550, "5.0.0", "the named host"))
			}
			return w.take(q, smtp.NewReply(250, "2.0.0", "ok"))
		}
		w.start()
		wish := mailFrom("s@x.test")
		wish.TLSOptional = true
		content := "Subject: notice\r\n\r\nbody\r\n"
		send := func(m msg.Mail, rcpt string) {
			t.Helper()
			w.sendMail(m, to(rcpt, ""))
			time.Sleep(time.Second)
		}
		send(mailFrom("s@x.test"), "waits@d.test")
		send(wish, "goes@d.test")
		send(mailFrom("s@x.test"), "waits2@d.test")
		if w.got("goes@d.test", content) != 1 || w.got("waits@d.test", content)+w.got("waits2@d.test", content) != 0 {
			t.Error("the message that no policy keeps back has to go, and only that")
		}
		if n := ordinary.Load(); n != 1 {
			t.Errorf("the route that is not there was looked up %d times", n)
		}

		optional.Store(0)
		send(wish, "goes@c.test")
		policy.Store(true)
		send(mailFrom("s@x.test"), "named@c.test")
		time.Sleep(5 * time.Minute)
		if w.got("goes@c.test", content) != 1 || w.got("named@c.test", content) != 1 || optional.Load() != 2 {
			t.Errorf("%q, %q; %d questions", w.all("goes@c.test"), w.all("named@c.test"), optional.Load())
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
