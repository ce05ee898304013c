package queue

import (
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestSpill: content of a deferred message becomes a file if it is not small, and the store
// gives its copy up; small content stays. A full disk leaves all where it is. What is delivered
// at once never becomes a file, and nothing is left of any.
func TestSpill(t *testing.T) {
	for _, fills := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			var scarce, full atomic.Bool
			full.Store(fills)
			w.space = func() (int64, int64) {
				if scarce.Load() {
					return 1 << 20, 64 << 20
				}
				return 1 << 30, 64 << 20
			}
			var later atomic.Bool
			later.Store(true)
			w.deliver = func(q msg.DeliverQ) msg.DeliverA {
				scarce.Store(full.Load() && later.Load()) // between acceptance and deferral
				time.Sleep(time.Second)
				if later.Load() {
					return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
				}
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			q := w.start()
			large, small := strings.Repeat("0123456789abcd\r\n", 1000), "Subject: small\r\n\r\n"
			w.mustSend(q, "s@here.test", small, "b@d.test")
			w.mustSend(q, "s@here.test", large, "a@d.test", "c@e.test")
			time.Sleep(5 * time.Second)
			for _, e := range w.listAll() {
				_, inStore, err := q.db.Content(e.TA)
				if err != nil {
					t.Fatal(err)
				}
				_, err = q.cdb.Stat(e.TA)
				if inFile := err == nil; inFile != (e.Size > spillOver && !fills) || inStore == inFile || err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("content of %d bytes: in the store %v, in a file %v (%v), disk full %v", e.Size, inStore, inFile, err, fills)
				}
			}
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			scarce.Store(false)
			full.Store(false)
			q = w.start()
			time.Sleep(2 * time.Minute) // it is deferred again, by another instance
			for _, e := range w.listAll() {
				if _, err := q.cdb.Stat(e.TA); (err == nil) != (e.Size > spillOver) {
					t.Errorf("after a restart, content of %d bytes: %v", e.Size, err)
				}
			}
			later.Store(false)
			time.Sleep(2 * time.Hour)
			if w.got("a@d.test", large) != 1 || w.got("b@d.test", small) != 1 || w.got("c@e.test", large) != 1 {
				t.Error("not all arrived whole and once")
			}
			w.checkEmpty()
		})
	}
}

// TestSpillOfWhatEnds: a message that ends while its content is being spilled leaves no file.
func TestSpillOfWhatEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA { return w.take(q, smtp.NewReply(451, "4.7.1", "later")) }
		q := w.start()
		for range spillers { // nothing is spilled for now
			q.spilling <- struct{}{}
		}
		large := strings.Repeat("0123456789abcd\r\n", 1000)
		w.mustSend(q, "s@here.test", large, "a@d.test")
		time.Sleep(time.Second)
		ta := w.listAll()[0].TA
		if a := w.operate(msg.OpRemove, msg.Selection{}); a.Done != 1 {
			t.Fatalf("%+v", a)
		}
		for range spillers {
			<-q.spilling
		}
		time.Sleep(time.Second)
		if _, err := q.cdb.Stat(ta); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file of a message that has ended: %v", err)
		}
		w.checkEmpty()
	})
}

// TestSpillAfterACrash: a file that a crash left beside content in the store, whole or not, is
// used or made anew.
func TestSpillAfterACrash(t *testing.T) {
	for name, whole := range map[string]bool{"whole": true, "cut short": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				large := strings.Repeat("0123456789abcd\r\n", 1000)
				var tries atomic.Int64
				w.deliver = func(q msg.DeliverQ) msg.DeliverA {
					if tries.Add(1) < 3 {
						return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
					}
					return w.take(q, smtp.NewReply(250, "", "ok"))
				}
				q := w.start()
				for range spillers {
					q.spilling <- struct{}{}
				}
				w.mustSend(q, "s@here.test", large, "a@d.test")
				time.Sleep(time.Second)
				ta := w.listAll()[0].TA
				e := deferredEnvelope(ta, 1, 1)
				if whole {
					if err := q.files.Copy(e, q.contents.Stored(ta, int64(len(large)), false)); err != nil {
						t.Fatal(err)
					}
				} else if c, err := q.cdb.Create(ta); err != nil {
					t.Fatal(err)
				} else if _, err := c.Write([]byte(large[:100])); err != nil {
					t.Fatal(err)
				}
				for range spillers {
					<-q.spilling
				}
				time.Sleep(2 * time.Minute)
				if _, inStore, err := q.db.Content(ta); err != nil || inStore {
					t.Errorf("the content is in the store still: %v", err)
				}
				time.Sleep(time.Hour)
				if w.got("a@d.test", large) != 1 {
					t.Error("it did not arrive whole and once")
				}
				w.checkEmpty()
			})
		})
	}
}
