package queue

import (
	"testing"
	"time"

	"meta1/mta/msg"
)

func TestGauges(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.ReturnDefault = 6 * time.Hour
		w.deliver = func(q msg.DeliverQ) msg.DeliverA { return failedHost(q) }
		q := w.start()
		arrival := time.Now().Unix()
		w.mustSend(q, "", "m", "a@d.test")
		time.Sleep(time.Hour)
		w.mustSend(q, "", "m", "b@d.test")
		time.Sleep(30 * time.Second)
		g := &q.gauges
		if g.waiting.Load() != 2 || g.oldest.Load() != arrival || g.closed.Load() != 1 {
			t.Errorf("%d wait, the oldest of %d, %d hosts closed; want 2, %d, 1", g.waiting.Load(), g.oldest.Load(), g.closed.Load(), arrival)
		}
		time.Sleep(w.cfg.ReturnDefault + 3*time.Hour)
		if g.waiting.Load() != 0 || g.oldest.Load() != 0 {
			t.Errorf("%d wait, the oldest of %d; want none", g.waiting.Load(), g.oldest.Load())
		}
		w.checkEmpty()
	})
}
