package msg

import (
	"sync"
	"sync/atomic"
)

// Memory is the budget for content in memory, in bytes: from the first byte of DATA to the
// end of the first delivery attempt. Servers and QMGR share one. It outlives them, so what
// a session holds is counted over a restart of QMGR as well.
type Memory struct {
	mu      sync.Mutex // guards what follows
	max     int64
	used    int64
	reclaim func(n int64)
}

// NewMemory makes a budget of max bytes.
func NewMemory(max int64) *Memory { return &Memory{max: max} }

// Max is the budget in bytes.
func (m *Memory) Max() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.max
}

// SetMax sets another budget. If more is taken, QMGR is asked to give up some of what it holds; what
// servers hold they keep until their messages are complete.
func (m *Memory) SetMax(max int64) {
	m.mu.Lock()
	m.max = max
	over, reclaim := m.used-m.max, m.reclaim
	m.mu.Unlock()
	if over > 0 && reclaim != nil {
		reclaim(over)
	}
}

// Take takes n bytes, and reports whether it got them. If there are too few, QMGR is asked to
// give up some of what it holds.
func (m *Memory) Take(n int64) bool {
	missing, reclaim := m.try(n)
	if missing > 0 && reclaim != nil {
		reclaim(missing)
		missing, _ = m.try(n)
	}
	return missing <= 0
}

// try takes n bytes, unless some of them are missing.
func (m *Memory) try(n int64) (missing int64, reclaim func(n int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if missing = n - (m.max - m.used); missing > 0 {
		return missing, m.reclaim
	}
	m.used += n
	return 0, nil
}

// Give gives n bytes back. If n is negative it takes them, whatever the budget says: QMGR
// counts so what it holds already, and gives up other content for it.
func (m *Memory) Give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
}

// Used is how many bytes are taken. It is more than the budget only while QMGR makes room.
func (m *Memory) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Over is how many bytes are taken beyond the budget; it is negative while some are free.
func (m *Memory) Over() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used - m.max
}

// OnShort sets what Take calls when n bytes are not free: it gives back that many if it can.
// Nil is nothing.
func (m *Memory) OnShort(reclaim func(n int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reclaim = reclaim
}

// Reserve begins the account of one message. Nothing is taken yet.
func (m *Memory) Reserve() *Reservation { return &Reservation{of: m} }

// Reservation is what one message has taken of the budget. The server that receives the
// message gives it back, unless QMGR has taken it over at Commit: whichever comes first,
// so that nothing is given back twice, and nothing is kept if Commit is not answered.
type Reservation struct {
	of *Memory
	n  atomic.Int64
}

// Take takes n bytes more, and reports whether it got them.
func (r *Reservation) Take(n int64) bool {
	ok := r.of.Take(n)
	if ok {
		r.n.Add(n)
	}
	return ok
}

// Give gives n of the bytes back.
func (r *Reservation) Give(n int64) {
	r.n.Add(-n)
	r.of.Give(n)
}

// Release gives everything back that was not taken over.
func (r *Reservation) Release() { r.of.Give(r.n.Swap(0)) }

// TakeOver makes the bytes the caller's, and returns how many they are. A nil Reservation
// has none.
func (r *Reservation) TakeOver() int64 {
	if r == nil {
		return 0
	}
	return r.n.Swap(0)
}
