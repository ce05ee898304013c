package queue

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestHugeMessageHoldsNobodyUp sends one message to very many recipients, more
// than the active queue holds, and then another one.
func TestHugeMessageHoldsNobodyUp(t *testing.T) {
	const n = hugeRcpts
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			time.Sleep(10 * time.Millisecond)
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		rcpts := make([]msg.Rcpt, n)
		for i := range rcpts {
			rcpts[i] = to(fmt.Sprintf("r%d@d%d.test", i, i%5), "")
		}
		began := realTime()
		w.sendMail(mailFrom("s@x.test"), rcpts...)
		w.mustSend(q, "s@x.test", "small", "one@other.test")
		time.Sleep(30 * time.Second)
		if w.got("one@other.test", "small") != 1 {
			t.Error("the small message waits for the huge one")
		}
		time.Sleep(10 * time.Minute)
		if got := w.served(); got != n+1 {
			t.Errorf("%d of %d recipients were served", got, n+1)
		}
		if took := realTime() - began; took > 60*time.Second {
			t.Errorf("it took %v of real time", took)
		}
		w.checkEmpty()
	})
}

// realTime is the time outside of the bubble: that of the process.
func realTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano())
}
