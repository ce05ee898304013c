package queue

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestCrashBetweenTheDatabases: a crash leaves a recipient in both databases, because
// its end in the IBDB is not yet durable. It is delivered from the DEFEDB. While others
// keep its message in the IBDB there is another crash: it must not be delivered again.
func TestCrashBetweenTheDatabases(t *testing.T) {
	next := func(w *world) *pvfs.MemFS {
		return w.disk.CrashClone(pvfs.CrashCloneCfg{RNG: rand.New(rand.NewPCG(1, 2))})
	}
	life := func(disk *pvfs.MemFS, reply smtp.Reply, hangs bool, f func(w *world, q *Queue)) (left *pvfs.MemFS) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			if disk != nil {
				w.disk = disk
			}
			w.deliver = func(q msg.DeliverQ) msg.DeliverA {
				if hangs && q.Rcpts[0].To.Domain == "hang.test" {
					time.Sleep(time.Hour)
					return failedHost(q)
				}
				return w.take(q, reply)
			}
			f(w, w.start())
			left = next(w)
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		})
		return left
	}
	disk := life(nil, smtp.NewReply(451, "4.7.1", "later"), true, func(w *world, q *Queue) {
		w.mustSend(q, "s@here.test", "m", "a@d.test", "b@hang.test")
		time.Sleep(w.cfg.IBDB.CommitDelay / 2)
	})
	ok := smtp.NewReply(250, "", "ok")
	disk = life(disk, ok, true, func(w *world, q *Queue) {
		if len(q.recovery.moved) != 1 {
			t.Errorf("%d recipients are in both databases", len(q.recovery.moved))
		}
		time.Sleep(10 * time.Minute)
		if w.got("a@d.test", "m") != 1 {
			t.Error("it was not delivered")
		}
	})
	life(disk, ok, false, func(w *world, _ *Queue) {
		time.Sleep(2 * time.Hour)
		if w.got("a@d.test", "m") != 0 || w.got("b@hang.test", "m") != 1 {
			t.Errorf("delivered %d times again; the other %d times", w.got("a@d.test", "m"), w.got("b@hang.test", "m"))
		}
		w.checkEmpty()
		w.start()
	})
}
