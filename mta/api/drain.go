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
	mu    sync.Mutex // guards the rest
	state control.Drain
	quiet int // looks in a row that found nothing to do
	// again says that the handover may have to be begun once more when all is quiet.
	again bool
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
	case q.Cancel:
		return a.cancelDrain(ctx)
	}
	if q.To != "" {
		if err := a.deps.CheckPeer(ctx, q.To); err != nil {
			return control.Drain{}, err
		}
	}
	d := &a.drain
	d.mu.Lock()
	now := a.deps.Now()
	d.state = control.Drain{
		Phase: control.Draining, Reason: cmp.Or(q.Reason, "this host is going to be stopped"), Keep: q.Keep, To: q.To, Since: now,
		Until: now.Add(cmp.Or(q.Until, drainTime)),
	}
	d.quiet, d.again = 0, false
	a.deps.Handover.Set("")
	a.deps.Gate.Close(d.state.Reason)
	d.mu.Unlock()
	a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drain begun by an operator", slog.String("reason", d.state.Reason), slog.Bool("keep", q.Keep), slog.String("to", q.To))
	if q.Flush {
		if err := a.deps.Flush(ctx); err != nil {
			return a.DrainState(ctx), err
		}
	}
	return a.DrainState(ctx), nil
}

// cancelDrain has mail taken again, and go its own way.
func (a *API) cancelDrain(ctx context.Context) (control.Drain, error) {
	d := &a.drain
	d.mu.Lock()
	if d.state.Phase == control.DrainEnds {
		d.mu.Unlock()
		return control.Drain{}, errors.New("it is too late: meta1 is stopping")
	}
	handing := d.state.Phase == control.HandingOver
	d.state = control.Drain{}
	a.deps.Handover.Set("")
	a.deps.Gate.Open()
	d.mu.Unlock()
	a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drain cancelled by an operator")
	if handing {
		if _, err := a.deps.Reroute(ctx); err != nil {
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
	if left, kept, known := a.left(ctx); known { // else what was found at the end: QMGR may be down already
		s.Left, s.Kept = left, kept
	}
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

// drainOn leads a drain on: when nothing is left that can be delivered now the rest is handed over, if there is
// a peer for it; then, or when its time is over, meta1 ends, or waits. What is left stays in the queue.
func (a *API) drainOn(ctx context.Context) {
	if p := a.Draining().Phase; p != control.Draining && p != control.HandingOver {
		return
	}
	left, kept, known := a.left(ctx)
	if a.drainStep(ctx, left, kept, known) {
		a.handOver(ctx, left, kept)
	}
}

// drainStep decides what follows from what is left, and reports whether mail is to be handed over.
func (a *API) drainStep(ctx context.Context, left, kept int64, known bool) (handOver bool) {
	d := &a.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.state
	if s.Phase != control.Draining && s.Phase != control.HandingOver {
		return false
	}
	if d.quiet++; left > 0 || !known {
		d.quiet = 0
	}
	now := a.deps.Now()
	quiet, late := d.quiet >= quietLooks, !now.Before(s.Until)
	begins := s.To != "" && s.Phase == control.Draining && (quiet || now.Sub(s.Since) >= s.Until.Sub(s.Since)/2)
	switch {
	case !late && (begins || d.again && quiet):
		s.Phase, d.quiet, d.again = control.HandingOver, 0, begins
		a.deps.Handover.Set(s.To)
		return true
	case quiet || late:
		a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "drained", slog.Int64("left", left), slog.Int64("kept", kept), slog.Bool("late", late))
		a.deps.Handover.Set("") // what the peer has not taken goes its own way, here or after the next start
		s.Left, s.Kept = left, kept
		if s.Phase = control.Drained; !s.Keep {
			s.Phase = control.DrainEnds
			a.deps.Stop()
		}
	}
	return false
}

// handOver has all that is not held go to the peer. A recipient that is being delivered at that moment is
// left alone; if there were such, it is done once more when all is quiet.
func (a *API) handOver(ctx context.Context, left, kept int64) {
	busy, err := a.deps.Reroute(ctx)
	d := &a.drain
	d.mu.Lock()
	d.again = d.again && (busy > 0 || err != nil)
	attrs := []slog.Attr{slog.String("to", d.state.To), slog.Int64("left", left), slog.Int64("kept", kept), slog.Int("busy", busy)}
	d.mu.Unlock()
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	a.deps.Log.LogAttrs(ctx, slog.LevelWarn, "mail is handed over to another host", attrs...)
}
