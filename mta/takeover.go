package mta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"meta1/mta/exit"
	"meta1/mta/handover"
	"meta1/mta/listen"
	"meta1/mta/supervise"
	"meta1/mta/systemd"
)

const (
	// offerTime is how long a new process waits for the sockets, and doneTime for the end of the old process.
	offerTime = 30 * time.Second
	doneTime  = time.Minute
)

// meet takes the sockets of the process whose place this one takes.
func (m *mta) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, offerTime, errors.New("the running process has offered no sockets"))
	defer cancel()
	var sockets []listen.Passed
	for {
		offer, listeners, err := m.hand.link.Receive(ctx)
		if err == nil && offer.Step != handover.Offer {
			err = fmt.Errorf("the running process says %.20q in place of an offer", offer.Step)
		}
		if err != nil {
			for _, s := range sockets {
				_ = s.Listener.Close()
			}
			return exit.With(exit.Unavailable, fmt.Errorf("taking over: %w", err))
		}
		for i, l := range listeners {
			p := listen.Passed{Listener: l, Unlink: offer.Sockets[i].Unlink}
			p.KeepPath(true) // as long as the other process may go on
			sockets = append(sockets, p)
		}
		if !offer.More {
			m.hand.from = offer
			break
		}
	}
	m.sockets.inherited = listen.Handed(sockets)
	if m.hand.from.Spool != m.dir {
		return exit.With(exit.Config, fmt.Errorf("the main queue directory is now %s and the running process has its queue in %s: an upgrade cannot change that: restart meta1 instead", m.dir, m.hand.from.Spool))
	}
	return nil
}

// takeOver waits until the old process has closed the spool, and locks it. If that process ends
// without a word, the spool is free as well.
func (m *mta) takeOver(ctx context.Context) error {
	if err := m.hand.link.Send(handover.Message{Step: handover.Prepared, Version: m.setup.Version, PID: os.Getpid(), Spool: m.dir}); err != nil && !errors.Is(err, handover.ErrGone) {
		return exit.With(exit.OSErr, fmt.Errorf("taking over: %w", err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ends := supervise.NewGroup(ctx)
	ends.Go(func(ctx context.Context) error { // nobody else obeys signals yet
		for {
			select {
			case s := <-m.setup.Signals:
				if s == syscall.SIGTERM || s == syscall.SIGINT {
					cancel(fmt.Errorf("ended by %v", s))
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	yours, _, err := m.hand.link.Receive(ctx)
	switch {
	case errors.Is(err, handover.ErrGone):
		err = nil
	case err == nil && yours.Step != handover.Yours:
		err = fmt.Errorf("the running process says %.20q and gives no spool", yours.Step)
	}
	if err == nil {
		m.hand.throttles = yours.Throttles
		err = m.lockSpool(ctx)
	}
	ends.Stop()
	_ = ends.Wait()
	cancel(nil)
	if err != nil {
		return exit.With(exit.Unavailable, fmt.Errorf("taking over: %w", err))
	}
	return nil
}

// inherit sets the limits that an operator has set in the old process.
func (m *mta) inherit() {
	for _, l := range m.hand.throttles {
		if err := m.ports.Throttles.Put(l); err != nil {
			m.log.LogAttrs(context.Background(), slog.LevelWarn, "a limit that was set is lost", slog.String("limit", string(l.Kind)), slog.Any("error", err))
		}
	}
}

// succeed waits until all is up, has the old process end, and does then what only one process may do.
func (m *mta) succeed(ctx context.Context, side *supervise.Group) {
	select {
	case <-m.hand.isReady:
	case <-ctx.Done():
		return
	}
	_ = m.hand.link.Send(handover.Message{Step: handover.Ready})
	late, cancel := context.WithTimeout(ctx, doneTime)
	defer cancel()
	done, _, err := m.hand.link.Receive(late)
	m.hand.link.Close()
	m.hand.muted.Store(false)
	if err != nil || done.Step != handover.Done {
		m.log.LogAttrs(ctx, slog.LevelWarn, "the process before this one ended without a word", slog.Int("pid", m.hand.from.PID))
		m.notify(fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid())) // for NotifyAccess=all
	}
	for _, l := range m.sockets.list() {
		l.KeepPath(!l.Unlink)
	}
	m.sockets.inherited.Close()
	m.log.LogAttrs(ctx, levelNotice, "taken over", slog.String("from", m.hand.from.Version), slog.Int("pid", m.hand.from.PID))
	m.serveHTTP(side)
}

// notify tells systemd of a change of state, unless it listens to another process.
func (m *mta) notify(state string) {
	if !m.hand.muted.Load() {
		systemd.Notify(state)
	}
}
