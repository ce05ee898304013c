package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"meta1/mta/supervise"
)

// failurePause is how long an Accept service accepts nothing after its program
// failed to start, so that a lack of resources is not made worse.
const failurePause = time.Second

// acceptor starts a process for each connection.
type acceptor struct {
	Config
	Deps

	mu      sync.Mutex // guards history and busy
	history supervise.History
	busy    []bool // by the number of the process
}

// errTooOften ends a service whose processes fail beyond its limit. It does not pass
// by itself, so it is not restarted.
var errTooOften = errors.New("its processes failed too often (failure_max)")

// run accepts on all listeners until ctx ends or the processes fail too often.
func (a *acceptor) run(ctx context.Context) error {
	a.busy = make([]bool, max(1, a.Program.Max))
	slots := make(chan struct{}, len(a.busy))
	g := supervise.NewGroup(ctx)
	for _, l := range a.Listeners {
		g.Go(func(ctx context.Context) error { return a.accept(ctx, g, l, slots) })
	}
	return ignoreEnd(ctx, g.Wait())
}

// accept accepts a connection whenever a process may be started.
func (a *acceptor) accept(ctx context.Context, g *supervise.Group, l net.Listener, slots chan struct{}) error {
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := acceptOne(ctx, l)
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		g.Go(func(ctx context.Context) error {
			defer func() { <-slots }()
			return a.serve(ctx, c)
		})
	}
}

// acceptOne accepts a connection until ctx ends. The listener stays open, and
// can be used again afterwards.
func acceptOne(ctx context.Context, l net.Listener) (net.Conn, error) {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return l.Accept()
	}
	_ = d.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = d.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return l.Accept()
}

// serve runs one process with a connection.
func (a *acceptor) serve(ctx context.Context, c net.Conn) error {
	id := a.take()
	defer a.release(id)
	f, err := descriptor(c)
	_ = c.Close()
	if err != nil {
		return err
	}
	p, err := start(a.Config, a.Deps, id, []*os.File{f})
	_ = f.Close()
	if err != nil {
		a.Log.LogAttrs(ctx, slog.LevelError, "process not started", slog.String("service", a.Program.Service), slog.Any("error", err))
		return a.failed(ctx, startOutcome(err))
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(stopGrace)
	}
	if err := ended(a.Config, a.Deps, p); err != nil && ctx.Err() == nil {
		return a.judge(supervise.OutcomeOf(err))
	}
	return nil
}

// failed waits a little after a program that could not be started.
func (a *acceptor) failed(ctx context.Context, o supervise.Outcome) error {
	select {
	case <-time.After(failurePause):
	case <-ctx.Done():
	}
	return a.judge(o)
}

// judge notes a failure; the error says that there were too many. A fatal one
// counts as hard: the next request may be another matter.
func (a *acceptor) judge(o supervise.Outcome) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, restart := a.history.Next(a.Policy, min(o, supervise.Hard), time.Now()); !restart {
		return supervise.Mark(supervise.Fatal, errTooOften)
	}
	return nil
}

// take gives the least free number of a process. There is one: a slot was taken.
func (a *acceptor) take() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, busy := range a.busy {
		if !busy {
			a.busy[id] = true
			return id
		}
	}
	return len(a.busy) // cannot be; the starter refuses it
}

func (a *acceptor) release(id int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id < len(a.busy) {
		a.busy[id] = false
	}
}
