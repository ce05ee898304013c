package server

import (
	"strings"
	"sync/atomic"
	"time"

	"meta1/mta/msg"
)

// sighting is what others than its goroutine may know of a session.
type sighting struct {
	begun    time.Time
	since    atomic.Int64 // of the phase, in nanoseconds since 1970
	phase    atomic.Uint32
	messages atomic.Int64
	facts    atomic.Pointer[facts] // nil: none yet
}

// facts are what changes seldom.
type facts struct {
	id     string
	client msg.Client
}

// show notes where the session stands.
func (c *session) show() {
	c.seen.phase.Store(uint32(c.phase))
	c.seen.since.Store(time.Now().UnixNano())
	if old := c.seen.facts.Load(); c.admitted && (old == nil || old.client != c.client) {
		c.seen.facts.Store(&facts{c.id.String(), c.client})
	}
}

// connections are at most n of the open sessions.
func (s *Server) connections(n int) []msg.Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]msg.Connection, 0, min(n, len(s.sessions)))
	for _, c := range s.sessions {
		if len(list) == n {
			break
		}
		list = append(list, c.connection())
	}
	return list
}

func (c *session) connection() msg.Connection {
	k := msg.Connection{
		Peer: c.wire.Raw().RemoteAddr().String(), State: phase(c.seen.phase.Load()).String(), Begun: c.seen.begun, Since: c.seen.begun,
		Messages: c.seen.messages.Load(),
	}
	if at := c.seen.since.Load(); at != 0 {
		k.Since = time.Unix(0, at)
	}
	f := c.seen.facts.Load()
	if f == nil {
		return k
	}
	k.ID, k.User = f.id, f.client.Auth.User
	if f.client.IP.IsValid() { // it may be that of the client of a proxy
		k.Peer = f.client.IP.String()
	}
	if k.Name = strings.TrimSuffix(f.client.Name, "."); k.Name == "" {
		k.Name = f.client.Helo
	}
	if f.client.TLS != nil {
		k.TLS = f.client.TLS.Version
	}
	return k
}

// closeSession ends a session at once, and reports whether there is one of that id. What the client
// was not told to be accepted it will send again.
func (s *Server) closeSession(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		if f := c.seen.facts.Load(); f != nil && f.id == id {
			c.wire.Abort()
			return true
		}
	}
	return false
}
