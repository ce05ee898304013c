package mta

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"

	"meta1/mta/control"
	"meta1/mta/supervise"
)

// doors are the HTTP servers for the control socket, the API over TCP and the metrics: one for each of their
// listeners, which come and go with reloads.
type doors struct {
	mu       sync.Mutex       // guards the fields below
	side     *supervise.Group // nil: nobody is let in yet
	handlers map[string]http.Handler
	open     map[net.Listener]func() // each ends the taking of connections
}

// serveHTTP serves the control socket, the API over TCP and the metrics. A failure of theirs is
// logged; mail goes on without them.
func (m *mta) serveHTTP(side *supervise.Group) {
	m.doors.mu.Lock()
	m.doors.side, m.doors.open = side, map[net.Listener]func(){}
	m.doors.handlers = map[string]http.Handler{
		forControl: control.Handler(m, m.localDoor, m.log), forHTTP: m.controlHandler(), forMetrics: m.httpHandler(),
	}
	m.doors.mu.Unlock()
	m.moveDoors()
	side.Go(m.API.Run)
}

// moveDoors serves those sockets that are there now. Requests that have come by others are answered yet.
func (m *mta) moveDoors() {
	d, all := &m.doors, m.sockets.list()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.side == nil {
		return
	}
	for _, b := range all {
		if h := d.handlers[b.want.owner]; h != nil && d.open[b.Listener] == nil {
			d.open[b.Listener] = m.openDoor(d.side, b, h)
		}
	}
	for l, end := range d.open {
		if !slices.ContainsFunc(all, func(b bound) bool { return b.Listener == l }) {
			delete(d.open, l)
			end()
		}
	}
}

// openDoor serves HTTP on a listener until end is called, and then what has begun by then.
func (m *mta) openDoor(side *supervise.Group, b bound, h http.Handler) (end func()) {
	l := b.Listener
	if b.want.owner == forHTTP {
		l = &securing{l, m}
	}
	moved, end := context.WithCancel(context.Background())
	side.Go(func(ctx context.Context) error {
		if err := control.ServeUntil(ctx, moved.Done(), l, h); err != nil {
			m.log.LogAttrs(ctx, slog.LevelError, doorNames[b.want.owner]+" failed", slog.Any("error", err), slog.String("listen", l.Addr().String()))
		}
		return nil
	})
	return end
}

// doorNames are what the log calls them.
var doorNames = map[string]string{forControl: "control socket", forHTTP: "control http", forMetrics: "metrics"}
