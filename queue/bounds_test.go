package queue

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// TestExpireKeepsTheBounds: many notices at once take neither more memory nor more of
// the active queue than they may, and all arrive.
func TestExpireKeepsTheBounds(t *testing.T) {
	const n, size = 200, 20_000
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.AQEntriesMax, w.cfg.ContentMemory, w.cfg.DSN.RFC = 80, 200_000, true
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "down.test" {
				return failedHost(q)
			}
			time.Sleep(time.Second)
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range n {
			w.mustSend(q, fmt.Sprintf("s%d@here.test", i), "Subject: x\r\n\r\n"+strings.Repeat("text\r\n", size/6), fmt.Sprintf("r%d@down.test", i))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		var entries, memory int64
		watch := supervise.NewGroup(context.Background())
		watch.Go(func(ctx context.Context) error {
			for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) { // what begins and ends takes a second
				entries, memory = max(entries, q.inAQ()), max(memory, q.deps.Memory.Used())
			}
			return nil
		})
		if a := w.operate(msg.OpExpire, msg.Selection{Domain: "down.test"}); a.Done+a.Busy != n {
			t.Errorf("expired %+v", a)
		}
		time.Sleep(20 * time.Minute)
		w.operate(msg.OpFlush, msg.Selection{})
		time.Sleep(20 * time.Minute)
		watch.Stop()
		if err := watch.Wait(); err != nil {
			t.Error(err)
		}
		if limit := int64(2 * w.cfg.AQEntriesMax); entries > limit {
			t.Errorf("%d recipients in the active queue, the limit is %d", entries, limit)
		}
		if limit := w.cfg.ContentMemory + makersMax*size*2; memory > limit {
			t.Errorf("%d bytes of content in memory, the limit is %d", memory, limit)
		}
		if got := w.served(); got != n {
			t.Errorf("%d of %d notices arrived", got, n)
		}
		w.checkEmpty()
	})
}

// TestNoticeOnAFullDisk: a recipient whose time is over and whose notice has no room
// waits for a while, again and again, and is not lost.
func TestNoticeOnAFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.IBDB.ContentMax, w.cfg.ReturnDefault, w.cfg.DSN.RFC = 1000, time.Hour, true
		var full atomic.Bool
		w.space = func() (int64, int64) {
			if full.Load() {
				return 1 << 20, 64 << 20
			}
			return 1 << 30, 64 << 20
		}
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "down.test" {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		w.mustSend(q, "s@here.test", "Subject: x\r\n\r\n"+strings.Repeat("text\r\n", 1000), "r@down.test")
		time.Sleep(50 * time.Minute)
		full.Store(true)
		time.Sleep(time.Hour)
		if n := strings.Count(w.log.String(), "cannot make a message"); n == 0 || n > 60 {
			t.Errorf("it was tried %d times within an hour", n)
		}
		full.Store(false)
		time.Sleep(time.Hour)
		if got := w.all("s@here.test"); len(got) != 1 {
			t.Errorf("%d notices", len(got))
		}
		w.checkEmpty()
	})
}
