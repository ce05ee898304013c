package queue

import (
	"context"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// sendMail submits a message with all parameters of MAIL and RCPT.
func (w *world) sendMail(m msg.Mail, rcpts ...msg.Rcpt) {
	w.t.Helper()
	ctx := context.Background()
	a, err := w.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction})
	if err != nil || !a.Reply.IsZero() {
		w.t.Fatal(a.Reply, err)
	}
	content := []byte("Subject: notice\r\n\r\nbody\r\n")
	e := &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: m, Rcpts: rcpts}
	c, err := w.ports.Commit.Ask(ctx, msg.CommitQ{Envelope: e, Inline: content, Size: int64(len(content))})
	if err != nil || !c.Reply.IsZero() {
		w.t.Fatal(c.Reply, err)
	}
}

func mailFrom(s string) msg.Mail { return msg.Mail{From: path(s), EnvID: "env+2B1"} }

func to(s, notify string) msg.Rcpt { return msg.Rcpt{To: path(s), Notify: notify} }

func TestNoticesAreAsTheSenderAsked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.RFC = true
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "bad.test" {
				return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
			}
			a := w.take(q, smtp.NewReply(250, "2.0.0", "ok"))
			a.DSN = q.Rcpts[0].To.Domain == "dsn.test"
			return a
		}
		w.start()
		w.sendMail(mailFrom("never@x.test"), to("a@bad.test", "NEVER"), to("b@good.test", "NEVER"))
		w.sendMail(mailFrom("delay@x.test"), to("a@bad.test", "DELAY"))
		w.sendMail(mailFrom("fail@x.test"), to("a@bad.test", "FAILURE"), to("b@good.test", "FAILURE"))
		w.sendMail(mailFrom("success@x.test"), to("b@good.test", "SUCCESS"), to("c@dsn.test", "SUCCESS"))
		w.sendMail(msg.Mail{}, to("b@good.test", "SUCCESS"))
		time.Sleep(time.Minute)
		for sender, want := range map[string]string{"fail@x.test": "Action: failed", "success@x.test": "Action: relayed"} {
			got := w.all(sender)
			if len(got) != 1 || strings.Count(got[0], "Action: ") != 1 || !strings.Contains(got[0], want) ||
				!strings.Contains(got[0], "Original-Envelope-Id: env+1") {
				t.Errorf("%s got %d notices: %q", sender, len(got), got)
			}
		}
		for _, sender := range []string{"never@x.test", "delay@x.test"} {
			if got := w.all(sender); len(got) != 0 {
				t.Errorf("%s got %q", sender, got)
			}
		}
		w.checkEmpty()
	})
}

func TestDelayedNoticeIsSentOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.RFC = true
		w.cfg.DelayDefault, w.cfg.ReturnDefault = 4*time.Hour, 36*time.Hour
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "down.test" {
				return w.take(q, smtp.NewReply(451, "4.3.0", "later"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		w.start()
		w.sendMail(mailFrom("s@x.test"), to("a@down.test", ""), to("b@down.test", "FAILURE"))
		time.Sleep(3 * time.Hour)
		if n := len(w.all("s@x.test")); n != 0 {
			t.Errorf("%d notices before the time", n)
		}
		time.Sleep(24 * time.Hour)
		got := w.all("s@x.test")
		if len(got) != 1 || strings.Count(got[0], "Action: delayed") != 1 || !strings.Contains(got[0], "Will-Retry-Until: ") {
			t.Errorf("%d notices: %q", len(got), got)
		}
		time.Sleep(12 * time.Hour)
		if n := strings.Count(strings.Join(w.all("s@x.test"), ""), "Action: failed"); n != 2 {
			t.Errorf("%d final notices, want 2", n)
		}
		w.checkEmpty()
	})
}

func TestNoticesAreMerged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.DSN.MergeDelay = time.Minute
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			switch q.Rcpts[0].To.Domain {
			case "slow.test":
				time.Sleep(20 * time.Second)
			case "x.test":
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			return w.take(q, smtp.NewReply(550, "5.1.1", "no"))
		}
		w.start()
		w.sendMail(mailFrom("s@x.test"), to("a@fast.test", ""), to("b@slow.test", ""))
		time.Sleep(10 * time.Minute)
		if got := w.all("s@x.test"); len(got) != 1 || strings.Count(got[0], "550 5.1.1") != 2 {
			t.Errorf("%d notices: %q", len(got), got)
		}
		w.checkEmpty()
	})
}

func TestVERP(t *testing.T) {
	for when, want := range map[string]map[string]bool{
		"always": {"s+a=d.test@x.test": true, "s+b=d.test@x.test": true, "v+a=d.test@x.test": true},
		"never":  {"s@x.test": true, "v@x.test": true},
		"":       {"s@x.test": true, "v+a=d.test@x.test": true},
	} {
		t.Run("when="+when, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.cfg.VERP.When = when
				senders := map[string]bool{}
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					w.mu.Lock()
					senders[q.Mail.From.Addr()] = true
					w.mu.Unlock()
					return w.take(q, smtp.NewReply(250, "", "ok"))
				}
				w.start()
				w.sendMail(msg.Mail{From: path("s@x.test")}, to("a@d.test", ""), to("b@d.test", ""))
				w.sendMail(msg.Mail{From: path("v@x.test"), VERP: true}, to("a@d.test", ""))
				time.Sleep(time.Second)
				w.mu.Lock()
				if len(senders) != len(want) {
					t.Errorf("senders %v, want %v", senders, want)
				}
				for s := range want {
					if !senders[s] {
						t.Errorf("senders %v, want %v", senders, want)
					}
				}
				w.mu.Unlock()
				w.checkEmpty()
			})
		})
	}
}
