package queue

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// TestBrokenRecordsGoAside: a record that cannot be decoded, of a recipient or of a message,
// goes aside, whether a start finds it or a queue at work. It is listed and counted, stays
// through a restart, and hinders nothing: other mail that is due is tried. An operator who
// names the message removes it.
func TestBrokenRecordsGoAside(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var later atomic.Bool
		later.Store(true)
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if later.Load() {
				return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 20_000)
		w.mustSend(q, "s@here.test", "one", "a@d.test", "b@d.test")
		w.mustSend(q, "s@here.test", large, "c@e.test")
		w.mustSend(q, "s@here.test", "three", "d@f.test")
		time.Sleep(time.Second)
		entries := w.listAll()
		if len(entries) != 4 {
			t.Fatalf("%d entries", len(entries))
		}
		spoil := func(key records.Key, value string) {
			b := q.db.NewBatch()
			if err := b.Set(key.Bytes(), []byte(value)); err != nil {
				t.Fatal(err)
			}
			if err := q.db.Commit(b); err != nil {
				t.Fatal(err)
			}
		}
		spoil(records.Key{Kind: records.KindDeferred, Ref: records.Ref{TA: entries[0].TA, Index: 0}}, "\x01\x00spoiled")
		spoil(records.Key{Kind: records.KindEnvelope, Ref: records.Ref{TA: entries[2].TA}}, "\x09spoiled")
		later.Store(false)
		time.Sleep(2 * time.Minute)
		if w.got("b@d.test", "one") != 1 || w.got("d@f.test", "three") != 1 {
			t.Error("what is beside a broken record was not tried")
		}
		if n := w.status("set_aside"); n == "0" {
			t.Error("nothing is counted as set aside")
		}
		list := func() (aside int) {
			for _, e := range w.listAll() {
				if e.State != msg.StateAside {
					t.Errorf("%+v is listed", e)
				}
				aside++
			}
			return aside
		}
		if n := list(); n != 2 {
			t.Errorf("%d recipients are listed as set aside", n)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		q = w.start()
		time.Sleep(2 * time.Hour) // far longer than the grace time of orphans
		if n := list(); n != 2 {
			t.Errorf("after a restart %d recipients are listed as set aside", n)
		}
		if _, err := q.cdb.Stat(entries[2].TA); err != nil {
			t.Errorf("the content of a message whose envelope is set aside: %v", err)
		}
		if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 0 {
			t.Errorf("removing everything has removed %d that are set aside", a.Done)
		}
		for _, e := range []int{0, 2} {
			if a := w.operate(msg.OpRemove, msg.Selection{TA: entries[e].TA}); a.Done == 0 || a.Err != "" {
				t.Errorf("removing by id: %+v", a)
			}
		}
		if n := list(); n != 0 {
			t.Errorf("%d recipients are left", n)
		}
		w.checkEmpty()
	})
}

// TestBrokenAtStart: a message that a start cannot decode does not keep the queue from starting.
func TestBrokenAtStart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.route = func(msg.RouteQ) msg.RouteA { time.Sleep(24 * time.Hour); return msg.RouteA{} }
		q := w.start()
		w.mustSend(q, "s@here.test", "one", "a@d.test")
		w.mustSend(q, "s@here.test", "two", "b@e.test")
		first := w.listAll()[0].TA
		b := q.db.NewBatch()
		if err := b.Set(records.Key{Kind: records.KindEnvelope, Ref: records.Ref{TA: first}}.Bytes(), []byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := q.db.Commit(b); err != nil {
			t.Fatal(err)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		w.route = func(q msg.RouteQ) msg.RouteA { return routeTo(q.Rcpt.Domain) }
		q = w.start()
		time.Sleep(time.Minute)
		if w.got("b@e.test", "two") != 1 {
			t.Error("the other message was not delivered")
		}
		if v, err := q.knows(first); err != nil || !v {
			t.Errorf("the broken message is not known: %v", err)
		}
		if a, err := w.ports.Operate.Ask(context.Background(), msg.OperateQ{Op: msg.OpRemove, Select: msg.Selection{TA: first}}); err != nil || a.Done == 0 {
			t.Errorf("%+v, %v", a, err)
		}
		w.checkEmpty()
	})
}
