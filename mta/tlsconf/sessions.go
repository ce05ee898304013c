package tlsconf

import (
	"container/list"
	"crypto/tls"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// tickets are the keys with which a server encrypts session tickets. A new one is made after
// half of the time for which tickets are good, and the old one is kept for that time: a
// ticket is good for at least that time, and at most for half as long again.
type tickets struct {
	next atomic.Int64 // when the next key is due, in nanoseconds since 1970

	mu   sync.Mutex // guards keys
	keys []ticketKey
}

// ticketKey is a key and when it became the one that encrypts.
type ticketKey struct {
	key   [32]byte
	since time.Time
}

// begin gives the keys to a new configuration. Those that are there stay good: a reload ends
// no session.
func (t *tickets) begin(c *tls.Config, timeout time.Duration, d Deps) error {
	if c.SessionTicketsDisabled {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refreshLocked(c, timeout, d)
}

// rotate replaces the key if it is time. A failure of the source of random numbers is tried
// again with the next handshake; meanwhile the old key holds.
func (t *tickets) rotate(c *tls.Config, timeout time.Duration, d Deps) {
	if c.SessionTicketsDisabled || d.Now().UnixNano() < t.next.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.refreshLocked(c, timeout, d)
}

func (t *tickets) refreshLocked(c *tls.Config, timeout time.Duration, d Deps) error {
	now, half := d.Now(), timeout/2
	if len(t.keys) == 0 || now.Sub(t.keys[0].since) >= half || now.Before(t.keys[0].since) {
		k := ticketKey{since: now}
		if _, err := io.ReadFull(d.Rand, k.key[:]); err != nil {
			return err
		}
		t.keys = append([]ticketKey{k}, t.keys...)
	}
	// A key encrypts for no longer than half: with every handshake it is looked whether the
	// next one is due.
	t.keys = slices.DeleteFunc(t.keys, func(k ticketKey) bool {
		age := now.Sub(k.since)
		return age < 0 || age >= half+timeout
	})
	raw := make([][32]byte, 0, len(t.keys))
	for _, k := range t.keys {
		raw = append(raw, k.key)
	}
	c.SetSessionTicketKeys(raw)
	t.next.Store(t.keys[0].since.Add(half).UnixNano())
	return nil
}

// maxSession bounds one remembered session in bytes. What takes the most is the server's
// chain of certificates, some 5 KB.
const maxSession = 64 << 10

// sessions are the TLS sessions that a client can resume, within limits of number, size and
// time (README 11.3). The one that was not used for the longest time goes first.
type sessions struct {
	mu     sync.Mutex // guards the fields below
	limits Cache
	now    func() time.Time
	byKey  map[string]*list.Element
	order  list.List // of *session, the one used last first
}

// session is one that can be resumed.
type session struct {
	key   string
	state *tls.ClientSessionState
	made  time.Time
}

// limit sets the limits. Sessions that are beyond new ones go.
func (s *sessions) limit(c Cache, now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits, s.now = c, now
	if s.byKey == nil {
		s.byKey = map[string]*list.Element{}
	}
	s.shrinkLocked()
}

func (s *sessions) shrinkLocked() {
	for s.order.Len() > s.limits.Size {
		s.dropLocked(s.order.Back())
	}
}

func (s *sessions) dropLocked(e *list.Element) {
	delete(s.byKey, s.order.Remove(e).(*session).key)
}

func (s *sessions) get(key string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		return nil, false
	}
	found := e.Value.(*session)
	if age := s.now().Sub(found.made); age >= s.limits.Timeout || age < 0 {
		s.dropLocked(e)
		return nil, false
	}
	s.order.MoveToFront(e)
	return found.state, true
}

// put remembers a session; nil forgets the one there is.
func (s *sessions) put(key string, state *tls.ClientSessionState) {
	if state != nil && !small(state) {
		state = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byKey[key]; e != nil {
		s.dropLocked(e)
	}
	if state == nil {
		return
	}
	s.byKey[key] = s.order.PushFront(&session{key, state, s.now()})
	s.shrinkLocked()
}

// small reports that a session is within maxSession.
func small(state *tls.ClientSessionState) bool {
	ticket, inner, err := state.ResumptionState()
	if err != nil || inner == nil {
		return false
	}
	b, err := inner.Bytes()
	return err == nil && len(ticket)+len(b) <= maxSession
}

// keyedSessions is the cache of one handshake. The key that crypto/tls has, the name or
// address of the server, says too little.
type keyedSessions struct {
	all *sessions
	key string
}

// Get is that of tls.ClientSessionCache.
func (k *keyedSessions) Get(string) (*tls.ClientSessionState, bool) { return k.all.get(k.key) }

// Put is that of tls.ClientSessionCache.
func (k *keyedSessions) Put(_ string, state *tls.ClientSessionState) { k.all.put(k.key, state) }
