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

func (w *world) operate(op msg.Operation, s msg.Selection) msg.OperateA {
	w.t.Helper()
	a, err := w.ports.Operate.Ask(context.Background(), msg.OperateQ{Op: op, Select: s})
	if err != nil || a.Err != "" {
		w.t.Fatalf("%s: %v %s", op, err, a.Err)
	}
	return a
}

func (w *world) listAll() []msg.ListEntry {
	w.t.Helper()
	a, err := w.ports.List.Ask(context.Background(), msg.ListQ{})
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Entries
}

// downWorld is a queue with twenty deferred recipients: ten at one.test, ten at
// two.test.
func downWorld(w *world, up *bool) *Queue {
	w.deliver = func(q msg.DeliverQ) msg.DeliverA {
		w.mu.Lock()
		now := *up
		w.mu.Unlock()
		if !now && strings.HasSuffix(q.Rcpts[0].To.Domain, "o.test") {
			return failedHost(q)
		}
		if !now && q.Rcpts[0].To.Domain != "here.test" {
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		return w.take(q, smtp.NewReply(250, "", "ok"))
	}
	q := w.start()
	for i := range 10 {
		w.mustSend(q, fmt.Sprintf("s%d@here.test", i), "Subject: x\r\n\r\nm", fmt.Sprintf("r%d@one.test", i), fmt.Sprintf("r%d@two.test", i))
	}
	time.Sleep(10 * time.Second)
	return q
}

func set(w *world, up *bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*up = true
}

func TestHoldAndRelease(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up bool
		downWorld(w, &up)
		if a := w.operate(msg.OpHold, msg.Selection{Domain: "ONE.test"}); a.Done != 10 {
			t.Fatalf("held %+v", a)
		}
		set(w, &up)
		time.Sleep(6 * time.Hour)
		held := w.listAll()
		if len(held) != 10 || held[0].State != msg.StateHeld || held[0].Rcpt.Domain != "one.test" {
			t.Fatalf("%d entries, first %+v", len(held), held[0])
		}
		if err := w.stop(); err != nil { // a hold survives a restart
			t.Fatal(err)
		}
		w.start()
		time.Sleep(6 * time.Hour)
		if a := w.operate(msg.OpFlush, msg.Selection{}); a.Done != 0 {
			t.Errorf("a flush touched %d held recipients", a.Done)
		}
		if a := w.operate(msg.OpRelease, msg.Selection{Sender: "<S3@here.test>"}); a.Done != 1 {
			t.Errorf("released %+v", a)
		}
		time.Sleep(time.Second)
		if w.got("r3@one.test", "Subject: x\r\n\r\nm") != 1 || len(w.listAll()) != 9 {
			t.Errorf("after the release: %d left", len(w.listAll()))
		}
		w.operate(msg.OpRelease, msg.Selection{})
		time.Sleep(time.Minute)
		w.checkEmpty()
	})
}

func TestFlushTriesNow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up bool
		downWorld(w, &up)
		set(w, &up)
		if n := len(w.listAll()); n != 20 {
			t.Fatalf("%d entries", n)
		}
		if a := w.operate(msg.OpFlush, msg.Selection{Domain: "one.test"}); a.Done != 10 {
			t.Fatalf("flushed %+v", a)
		}
		time.Sleep(time.Second)
		if n := len(w.listAll()); n != 10 {
			t.Errorf("%d entries after the flush", n)
		}
		// Its host is closed, after failed connections: a flush probes it at once.
		w.operate(msg.OpFlush, msg.Selection{Domain: "two.test"})
		time.Sleep(time.Second)
		if n := len(w.listAll()); n != 0 {
			t.Errorf("%d entries after the flush of a closed host", n)
		}
		time.Sleep(2 * time.Hour)
		w.checkEmpty()
	})
}

func TestRemoveAndExpire(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var up bool
		downWorld(w, &up)
		first := w.listAll()[0].TA
		if a := w.operate(msg.OpRemove, msg.Selection{TA: first}); a.Done != 2 {
			t.Errorf("removed %+v", a)
		}
		if a := w.operate(msg.OpExpire, msg.Selection{Rcpt: "r5@two.test"}); a.Done != 1 {
			t.Errorf("expired %+v", a)
		}
		if a := w.operate(msg.OpExpire, msg.Selection{MinAge: time.Hour}); a.Done != 0 {
			t.Errorf("too young: %+v", a)
		}
		time.Sleep(time.Second)
		if n := len(w.listAll()); n != 17 {
			t.Errorf("%d entries are left", n)
		}
		if got := strings.Join(w.all("s5@here.test"), ""); !strings.Contains(got, "given up by the postmaster") {
			t.Errorf("bounce %q", got)
		}
		if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 17 {
			t.Errorf("removed %+v", a)
		}
		time.Sleep(time.Minute)
		w.checkEmpty()
	})
}

// TestExpiredTogether: recipients of one message that are given up by one command
// share a bounce.
func TestExpiredTogether(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "down.test" {
				return w.take(q, smtp.NewReply(450, "4.2.0", "later"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "s@here.test", "m", "a@down.test", "b@down.test", "c@down.test")
		time.Sleep(time.Second)
		if a := w.operate(msg.OpExpire, msg.Selection{}); a.Done != 3 {
			t.Errorf("expired %+v", a)
		}
		time.Sleep(time.Second)
		if got := w.all("s@here.test"); len(got) != 1 || strings.Count(got[0], "given up by the postmaster") != 3 {
			t.Errorf("bounces %q", got)
		}
		w.checkEmpty()
	})
}

func TestOperationsOnWaitingRecipients(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "one.test" {
				time.Sleep(10 * time.Minute)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range 30 {
			w.mustSend(q, "s@here.test", "m", fmt.Sprintf("r%d@one.test", i))
		}
		time.Sleep(time.Second)
		a := w.operate(msg.OpRemove, msg.Selection{})
		if a.Done != 20 || a.Busy != 10 {
			t.Errorf("%+v, want 20 waiting removed and 10 busy", a)
		}
		time.Sleep(time.Hour)
		if w.served() != 10 {
			t.Errorf("%d delivered", w.served())
		}
		w.checkEmpty()
	})
}
