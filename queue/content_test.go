package queue

import (
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestMemoryOverARestart: what a session has reserved is counted while the queue is started
// again, and is given back once, by the session: the new queue refuses its message and takes
// nothing over. What the former queue held is free.
func TestMemoryOverARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.ContentMemory, w.memory = 100_000, msg.NewMemory(100_000)
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			time.Sleep(time.Minute)
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "s@here.test", strings.Repeat("text\r\n", 5000), "a@d.test")
		if w.memory.Used() < 30_000 {
			t.Errorf("%d bytes are taken for what is accepted", w.memory.Used())
		}
		a, err := w.ports.Admit.Ask(w.ctx, msg.AdmitQ{Kind: msg.NewTransaction})
		if err != nil {
			t.Fatal(err)
		}
		session := w.memory.Reserve()
		if !session.Take(40_000) {
			t.Fatal("there is no memory")
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		w.start()
		if w.memory.Used() != 40_000 {
			t.Errorf("%d bytes are taken after the restart, want the session's", w.memory.Used())
		}
		e := &msg.Envelope{TA: a.ID, Arrival: time.Now(), Mail: msg.Mail{From: path("s@here.test")}, Rcpts: []msg.Rcpt{{To: path("b@d.test")}}}
		c, err := w.ports.Commit.Ask(w.ctx, msg.CommitQ{Envelope: e, Inline: make([]byte, 40_000), Memory: session, Size: 40_000})
		if err != nil || c.Reply.Code != 451 || w.memory.Used() != 40_000 {
			t.Errorf("a transaction of the former queue: %v, %v, %d bytes are taken", c.Reply, err, w.memory.Used())
		}
		session.Release()
		if w.memory.Used() != 0 {
			t.Errorf("%d bytes are taken of nobody", w.memory.Used())
		}
		time.Sleep(2 * time.Hour)
		if len(w.all("a@d.test")) == 0 {
			t.Error("what was accepted did not arrive")
		}
		w.checkEmpty()
	})
}
