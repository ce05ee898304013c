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
		if g.Waiting.Load() != 2 || g.Oldest.Load() != arrival || g.Closed.Load() != 1 {
			t.Errorf("%d wait, the oldest of %d, %d hosts closed; want 2, %d, 1", g.Waiting.Load(), g.Oldest.Load(), g.Closed.Load(), arrival)
		}
		time.Sleep(w.cfg.ReturnDefault + 3*time.Hour)
		if g.Waiting.Load() != 0 || g.Oldest.Load() != 0 {
			t.Errorf("%d wait, the oldest of %d; want none", g.Waiting.Load(), g.Oldest.Load())
		}
		w.checkEmpty()
	})
}
