package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
)

const (
	// drainTime is how long deliveries are waited for by default, and drainMax at most.
	drainTime = 5 * time.Minute
	drainMax  = 24 * time.Hour
	// drainReasonMax bounds the reason, which clients see.
	drainReasonMax = 200
)

// drain is the state of a drain.
type drain struct {
	mu    sync.Mutex // guards state and quiet
	state control.Drain
	quiet int // looks in a row that found nothing to do
}

// quietLooks is how many looks in a row must find nothing to do: mail on its way from one list of
// the queue to another may be in none for a moment.
const quietLooks = 3

// Drain begins or cancels a drain.
func (a *API) Drain(ctx context.Context, q control.DrainQuestion) (control.Drain, error) {
	switch {
	case q.Until < 0 || q.Until > drainMax:
		return control.Drain{}, errors.New("a drain takes no longer than a day")
	case len(q.Reason) > drainReasonMax || !printable(q.Reason):
		return control.Drain{}, errors.New("the reason must be printable ASCII of at most 200 characters, since clients see it")
	}
	d := &a.drain
	d.mu.Lock()
	if q.Cancel {
		if d.state.Phase == control.DrainEnds {
			d.mu.Unlock()
			return control.Drain{}, errors.New("it is too late: meta1 is stopping")
		}
		d.state = control.Drain{}
		a.deps.Gate.Open()
		d.mu.Unlock()
		a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drain cancelled by an operator")
		return a.DrainState(ctx), nil
	}
	now := a.deps.Now()
	d.state = control.Drain{
		Phase: control.Draining, Reason: cmp.Or(q.Reason, "this host is going to be stopped"), Keep: q.Keep, Since: now,
		Until: now.Add(cmp.Or(q.Until, drainTime)),
	}
	d.quiet = 0
	a.deps.Gate.Close(d.state.Reason)
	d.mu.Unlock()
	a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drain begun by an operator", slog.String("reason", d.state.Reason), slog.Bool("keep", q.Keep))
	if q.Flush {
		if err := a.deps.Flush(ctx); err != nil {
			return a.DrainState(ctx), err
		}
	}
	return a.DrainState(ctx), nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Draining is the state without what the queue tells.
func (a *API) Draining() control.Drain {
	a.drain.mu.Lock()
	defer a.drain.mu.Unlock()
	s := a.drain.state
	s.Phase = cmp.Or(s.Phase, control.NotDraining)
	return s
}

// DrainState tells where a drain stands.
func (a *API) DrainState(ctx context.Context) control.Drain {
	s := a.Draining()
	s.Left, s.Kept, _ = a.left(ctx)
	return s
}

// left counts the recipients that may be delivered now, those of transactions that go on included, and those
// that wait for a time or an operator.
func (a *API) left(ctx context.Context) (left, kept int64, known bool) {
	m, known := a.deps.Modules(ctx, msg.StatusQ{})["qmgr"]
	for _, v := range m.Values {
		switch v.Name {
		case "AQ_entries", "open_transactions":
			left += v.Number
		case "deferred":
			kept = v.Number
		}
	}
	return left, kept, known
}

// drainOn leads a drain on: when nothing is left that can be delivered now, or its time is over,
// meta1 ends, or waits. What is left then stays in the queue.
func (a *API) drainOn(ctx context.Context) {
	d := &a.drain
	if a.Draining().Phase != control.Draining {
		return
	}
	left, kept, known := a.left(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Phase != control.Draining {
		return
	}
	if d.quiet++; left > 0 || !known {
		d.quiet = 0
	}
	late := !a.deps.Now().Before(d.state.Until)
	if d.quiet < quietLooks && !late {
		return
	}
	attrs := []slog.Attr{slog.Int64("left", left), slog.Int64("kept", kept), slog.Bool("late", late)}
	a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drained", attrs...)
	if d.state.Phase = control.Drained; !d.state.Keep {
		d.state.Phase = control.DrainEnds
		a.deps.Stop()
	}
}
