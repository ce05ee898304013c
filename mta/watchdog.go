package mta

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/systemd"
)

// watchdog tells systemd twice within its interval that all modules answer. A module that is down or
// being started is no reason to start everything again, nor is a full disk: only one that hangs is.
func (m *mta) watchdog(side *supervise.Group) {
	interval := systemd.WatchdogInterval(os.Getenv, os.Getpid())
	if interval == 0 {
		return
	}
	side.Go(func(ctx context.Context) error {
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			if hangs := m.hanging(ctx, interval/2); hangs != "" {
				m.log.LogAttrs(ctx, slog.LevelError, "a module does not answer", slog.String("unit", hangs), slog.Duration("watchdog", interval))
			} else {
				m.notify("WATCHDOG=1")
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
}

// hanging is a module that does not answer within a time, "" if there is none.
func (m *mta) hanging(ctx context.Context, limit time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for unit, port := range m.ports.Status {
		if _, err := port.Ask(ctx, msg.StatusQ{}); errors.Is(err, context.DeadlineExceeded) {
			return unit
		}
	}
	return ""
}
