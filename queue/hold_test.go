package queue

import (
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestCommitHeld: a message that comes in held is not tried, not even after a restart, until
// an operator releases it; then it goes out whole.
func TestCommitHeld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(250, "", "ok")) }
		q := w.start()
		const content = "Subject: x\r\n\r\nquarantined"
		w.hold = "milter av: virus"
		w.mustSend(q, "s@here.test", content, "a@one.test", "b@two.test")
		w.hold = ""
		w.mustSend(q, "s@here.test", content, "c@one.test")
		time.Sleep(time.Hour)
		if n := w.got("a@one.test", content) + w.got("b@two.test", content); n != 0 || w.got("c@one.test", content) != 1 {
			t.Fatalf("%d held recipients were delivered", n)
		}
		if got := w.status("deferred"); got != "2" {
			t.Errorf("%s deferred", got)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(6 * time.Hour)
		for _, e := range w.listAll() {
			if e.State != msg.StateHeld || e.Reason != "milter av: virus" {
				t.Errorf("%+v", e)
			}
		}
		if a := w.operate(msg.OpRelease, msg.Selection{Rcpt: "a@one.test"}); a.Done != 1 {
			t.Errorf("released %+v", a)
		}
		time.Sleep(time.Minute)
		if w.got("a@one.test", content) != 1 || len(w.listAll()) != 1 {
			t.Errorf("after the release: %d left", len(w.listAll()))
		}
		if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 1 {
			t.Errorf("removed %+v", a)
		}
		time.Sleep(time.Minute)
		w.checkEmpty()
	})
}
