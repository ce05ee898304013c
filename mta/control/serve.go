package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"meta1/mta/access"
	"meta1/mta/supervise"
)

const (
	// connectionsMax bounds the connections that are open at once, addressMax those from
	// one IP address. Probes and scrapers need a few.
	connectionsMax = 64
	addressMax     = 16
	// headerTime and readTime bound the reading of a request's header, and of all of it.
	headerTime = 5 * time.Second
	readTime   = 10 * time.Second
	// writeTime bounds an answer: a profile may take a while.
	writeTime = 10 * time.Minute
)

// Serve serves a handler on a listener until ctx ends, and closes it. It bounds the
// connections, their idle time, and the time for a request and its answer. A connection
// beyond the bounds is accepted at once, and another one is closed for it, so that slow
// clients keep nobody out. It suits the HTTP server for metrics as well.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return ServeUntil(ctx, nil, l, h)
}

// ServeUntil is Serve that also ends when moved is closed: it closes the listener then, and returns when the requests that
// have begun are answered. The listener may be closed before that.
func ServeUntil(ctx context.Context, moved <-chan struct{}, l net.Listener, h http.Handler) error {
	open := &connections{all: map[net.Conn]*connection{}}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: readTime,
		WriteTimeout: writeTime, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ConnState: open.note,
		ConnContext: access.WithConn, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	g := supervise.NewGroup(context.WithoutCancel(ctx))
	g.Go(func(context.Context) error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
		}
		return nil
	})
	select {
	case <-moved:
		_ = s.Shutdown(ctx) // if ctx ends it has taken too long
	case <-ctx.Done():
	case <-g.Context().Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.Shutdown(stop) != nil {
		_ = s.Close()
	}
	return g.Wait()
}

// connections are those that a server has open.
type connections struct {
	mu  sync.Mutex // guards the fields below
	all map[net.Conn]*connection
	n   int // states noted so far: the age of a state, without a clock
}

// connection is one of them.
type connection struct {
	from  string // IP address; "" for a Unix socket
	busy  bool   // a request is worked on
	since int
}

// note notes a connection's new state, and closes another one if there are too many. The
// server calls it for a new connection before it reads from it.
func (o *connections) note(c net.Conn, state http.ConnState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n++
	switch state {
	case http.StateNew:
		from := address(c)
		o.all[c] = &connection{from: from, since: o.n}
		if from != "" {
			o.bound(c, addressMax, func(other *connection) bool { return other.from == from })
		}
		o.bound(c, connectionsMax, func(*connection) bool { return true })
	case http.StateActive, http.StateIdle:
		if known := o.all[c]; known != nil {
			known.busy, known.since = state == http.StateActive, o.n
		}
	default:
		delete(o.all, c)
	}
}

// bound closes one connection if more than most are among those of a kind: the one whose
// request was waited for the longest, else the one that was worked on the longest. A new
// one stays.
func (o *connections) bound(fresh net.Conn, most int, kind func(*connection) bool) {
	n := 0
	var victim net.Conn
	for c, it := range o.all {
		if !kind(it) {
			continue
		}
		n++
		if c == fresh {
			continue
		}
		if worst := o.all[victim]; worst == nil || it.busy == worst.busy && it.since < worst.since || !it.busy && worst.busy {
			victim = c
		}
	}
	if n > most {
		delete(o.all, victim)
		_ = victim.Close() // its goroutine ends with the error of the next call
	}
}

// address is the IP address of a client.
func address(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}
