package lda

import (
	"net"
	"sync/atomic"
	"time"
)

// wire is a connection with a deadline for each read and write. After the end of the
// agent's context an idle session ends at once, and one inside of a transaction has
// StopTimeout for the rest of it.
type wire struct {
	net.Conn
	a      *agent
	inside atomic.Bool // of a transaction
	until  atomic.Int64
}

func (w *wire) deadline() time.Time {
	if n := w.until.Load(); n != 0 {
		if !w.inside.Load() {
			return time.Unix(1, 0)
		}
		return time.Unix(0, n)
	}
	return time.Now().Add(w.a.Timeout)
}

func (w *wire) Read(p []byte) (int, error) {
	if err := w.SetReadDeadline(w.deadline()); err != nil {
		return 0, err
	}
	if w.until.Load() != 0 { // the end may have come between the two
		if err := w.SetReadDeadline(w.deadline()); err != nil {
			return 0, err
		}
	}
	return w.Conn.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	end := w.a.Timeout
	if w.until.Load() != 0 {
		end = min(end, w.a.StopTimeout)
	}
	if err := w.SetWriteDeadline(time.Now().Add(end)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// stopping is called when the agent's context ends.
func (w *wire) stopping() {
	w.until.Store(time.Now().Add(w.a.StopTimeout).UnixNano())
	_ = w.SetReadDeadline(w.deadline()) // fails only on a connection that is closed
}

// stopped reports that the agent is to end.
func (w *wire) stopped() bool { return w.until.Load() != 0 }
