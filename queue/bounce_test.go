package queue

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// refuse lets one domain give a reply; everything else is taken.
func (w *world) refuse(domain string, reply smtp.Reply) {
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		if q.Rcpts[0].To.Domain == domain {
			a := w.take(q, reply)
			a.Stage = msg.DeliverRcpt
			return a
		}
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
}

// says fails the test unless there is one notice, and it has all of these texts.
func says(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != 1 {
		t.Fatalf("%d notices: %q", len(got), got)
	}
	for _, s := range want {
		if !strings.Contains(got[0], s) {
			t.Errorf("%q is missing in\n%s", s, got[0])
		}
	}
}

// TestRecipientsShareANotice: those of one attempt are told of together, whether they
// still wait or their time is over. The host that gave the reply is named, and all
// lines of the reply are there.
func TestRecipientsShareANotice(t *testing.T) {
	for action, returnAfter := range map[string]time.Duration{"delayed": time.Hour, "failed": time.Second} {
		t.Run(action, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.DSN.RFC = true
				w.cfg.DelayDefault, w.cfg.ReturnDefault = time.Second, returnAfter
				w.refuse("down.test", smtp.Reply{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Lines: []string{"not now", "nor later"}})
				refuse := w.deliver
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					time.Sleep(2 * time.Second)
					return refuse(q)
				}
				w.start()
				w.sendMail(mailFrom("s@x.test"), to("a@down.test", ""), to("b@down.test", ""), to("c@down.test", ""))
				time.Sleep(10 * time.Second)
				got := w.all("s@x.test")
				want := "@down.test\r\nAction: " + action + "\r\nStatus: 4.3.0\r\nRemote-MTA: dns; mx.down.test\r\n" +
					"Diagnostic-Code: smtp; 451-4.3.0 not now\r\n 451 4.3.0 nor later\r\n"
				says(t, got, want)
				if n := strings.Count(got[0], want); n != 3 {
					t.Errorf("%d recipients, want 3", n)
				}
				if given := strings.Contains(got[0], "given up: maximum time in queue exceeded"); given != (action == "failed") {
					t.Errorf("given up: %v", given)
				}
				if err := w.stop(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestOwnRepliesNameNoHost: what the client says itself is not said to come from the
// host (RFC 3464 section 2.3.6).
func TestOwnRepliesNameNoHost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.RFC = true
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "x.test" {
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			a := w.take(q, smtp.NewReply(552, "5.3.4", "too large"))
			a.Own = true
			return a
		}
		w.start()
		w.sendMail(mailFrom("s@x.test"), to("a@d.test", ""))
		time.Sleep(time.Minute)
		got := w.all("s@x.test")
		says(t, got, "Diagnostic-Code: X-MeTA1; 552 5.3.4 too large\r\n")
		if strings.Contains(got[0], "Remote-MTA") {
			t.Errorf("a host is named:\n%s", got[0])
		}
		w.checkEmpty()
	})
}

// TestReturnedContent: by default the first bounce of a message returns all of it
// and further ones its header (README 3.8, item 5); RET= asks otherwise.
func TestReturnedContent(t *testing.T) {
	for ret, want := range map[string]int{"": 1, "FULL": 2, "HDRS": 0} {
		t.Run("RET="+ret, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.DSN.RFC = true
				w.refuse("bad.test", smtp.NewReply(550, "5.1.1", "no"))
				w.cfg.DSN.ErrorsMax = 1
				w.start()
				m := mailFrom("s@x.test")
				m.Ret = ret
				w.sendMail(m, to("a@bad.test", ""), to("b@bad.test", ""))
				time.Sleep(time.Minute)
				got := strings.Join(w.all("s@x.test"), "")
				if n := strings.Count(got, "\r\nbody\r\n"); n != want || strings.Count(got, "Subject: notice\r\n") != 2 {
					t.Errorf("%d bodies, want %d, in\n%s", n, want, got)
				}
				w.checkEmpty()
			})
		})
	}
}

// TestVERPBounces: our own bounces go where those of other hosts go, one for each
// recipient; a delay is no bounce.
func TestVERPBounces(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.RFC = true
		w.cfg.DelayDefault, w.cfg.ReturnDefault = time.Minute, 10*time.Minute
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			switch q.Rcpts[0].To.Domain {
			case "bad.test":
				return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
			case "down.test":
				a := w.take(q, smtp.NewReply(450, "4.2.2", "full"))
				a.Stage = msg.DeliverRcpt
				return a
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		w.start()
		m := mailFrom("list@x.test")
		m.VERP = true
		w.sendMail(m, to("a@bad.test", ""), to("b@bad.test", ""), to("c@down.test", ""))
		time.Sleep(30 * time.Minute)
		for sender, want := range map[string]string{
			"list+a=bad.test@x.test":  "To: <list+a=bad.test@x.test>\r\n",
			"list+b=bad.test@x.test":  "Final-Recipient: rfc822; b@bad.test\r\nAction: failed\r\n",
			"list+c=down.test@x.test": "Final-Recipient: rfc822; c@down.test\r\nAction: failed\r\n",
			"list@x.test":             "Final-Recipient: rfc822; c@down.test\r\nAction: delayed\r\n",
		} {
			says(t, w.all(sender), want)
		}
		w.checkEmpty()
	})
}

// TestDoubleBounce: what a bounce that failed makes, at most one message, and none
// about that.
func TestDoubleBounce(t *testing.T) {
	tests := []struct {
		name, address string
		alias         string // what the address stands for
		want          string // who gets it
	}{
		{"default", "", "", ""},
		{"default, written out", "<DoubleBounce@mta.test>", "", ""},
		{"an address", "<dbl@x.test>", "", "dbl@x.test"},
		{"an address that fails", "<dbl@bad.test>", "", ""},
		{"an alias", "<dbl@x.test>", "admin@x.test", "admin@x.test"},
		{"an alias that fails", "<dbl@x.test>", "admin@bad.test", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.DSN.RFC = true
				w.cfg.DoubleBounce = tt.address
				w.route = func(q msg.RouteQ) msg.RouteA {
					if tt.alias != "" && q.Rcpt.Addr() == "dbl@x.test" && !q.Expanded {
						return msg.RouteA{Expand: []msg.Expansion{{Rcpts: []smtp.Path{path(tt.alias)}}}}
					}
					return routeTo(q.Rcpt.Domain)
				}
				var attempts atomic.Int64
				w.refuse("bad.test", smtp.NewReply(550, "5.1.1", "no"))
				refuse := w.deliver
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					if attempts.Add(1) > 5 { // a loop: end it
						return w.take(q, smtp.NewReply(250, "", "ok"))
					}
					if !q.Mail.From.IsNull() {
						t.Errorf("a bounce from %s", q.Mail.From)
					}
					if n := q.Rcpts[0].Notify; (n == "NEVER") != (q.Rcpts[0].To.Local != "a") {
						t.Errorf("%s with NOTIFY=%s", q.Rcpts[0].To, n)
					}
					return refuse(q)
				}
				w.start()
				w.sendMail(msg.Mail{}, to("a@bad.test", ""))
				time.Sleep(time.Hour)
				if n := attempts.Load(); n > 2 {
					t.Errorf("%d deliveries: a loop", n)
				}
				if tt.want != "" {
					says(t, w.all(tt.want), "Final-Recipient: rfc822; a@bad.test\r\nAction: failed\r\n")
				} else if !strings.Contains(w.log.String(), "dropped: nobody is to be told") {
					t.Errorf("nothing in the log:\n%s", w.log)
				}
				w.checkEmpty()
			})
		})
	}
}

// TestAliasAndSuccess: an alias for one address hands the wish to be told on to it;
// one for several is itself told of (RFC 3461 section 5.2.7).
func TestAliasAndSuccess(t *testing.T) {
	tests := []struct {
		name   string
		expand []smtp.Path
		notify string // of the addresses
		want   string
	}{
		{"one", []smtp.Path{path("a@d.test")}, "SUCCESS,DELAY", "a@d.test\r\nAction: relayed\r\n"},
		{"two", []smtp.Path{path("a@d.test"), path("b@d.test")}, "DELAY", "alias@x.test\r\nAction: expanded\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.DSN.RFC = true
				w.route = func(q msg.RouteQ) msg.RouteA {
					if q.Rcpt.Local == "alias" {
						return msg.RouteA{Expand: []msg.Expansion{{Rcpts: tt.expand}}}
					}
					return routeTo(q.Rcpt.Domain)
				}
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					if got := q.Rcpts[0]; got.To.Domain == "d.test" && (got.Notify != tt.notify || got.ORcpt != "rfc822;o@x.test" || q.Mail.EnvID != "env+2B1") {
						t.Errorf("%s goes on with NOTIFY=%s ORCPT=%s ENVID=%s", got.To, got.Notify, got.ORcpt, q.Mail.EnvID)
					}
					return w.take(q, smtp.NewReply(250, "", "ok"))
				}
				w.start()
				rcpt := to("alias@x.test", "SUCCESS,DELAY")
				rcpt.ORcpt = "rfc822;o@x.test"
				w.sendMail(mailFrom("s@x.test"), rcpt)
				time.Sleep(time.Minute)
				says(t, w.all("s@x.test"), tt.want, "Original-Recipient: rfc822; o@x.test\r\n", "Original-Envelope-Id: env+1\r\n")
				w.checkEmpty()
			})
		})
	}
}
