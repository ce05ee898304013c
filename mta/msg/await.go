package msg

import (
	"context"
	"errors"
	"time"
)

// The pause between two questions whether a module serves doubles from the first to
// the last of these.
const (
	readyPauseMin = 100 * time.Microsecond
	readyPauseMax = 20 * time.Millisecond
)

// AwaitStatus waits until a module answers on its status port, or ctx ends. An error that is not ErrDown ends it, too.
func AwaitStatus(ctx context.Context, port *Port[StatusQ, StatusA]) error {
	for pause := readyPauseMin; ; pause = min(2*pause, readyPauseMax) {
		if _, err := port.Ask(ctx, StatusQ{}); !errors.Is(err, ErrDown) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
