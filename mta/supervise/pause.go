package supervise

import (
	"context"
	"errors"
	"slices"
)

// ErrPaused is the cause (context.Cause) with which the context of an instance ends that is stopped
// by Pause: others wait to go on where it ends, so it ends what it does in order.
var ErrPaused = errors.New("paused")

// ErrEnded says that a tree does not run any more.
var ErrEnded = errors.New("it has ended")

// request asks a tree to pause, or to go on.
type request struct {
	resume bool
	first  []string
	all    bool
	paused chan struct{} // closed when the units have stopped

	reshape *shape // nil: it is about a pause
}

// Pause stops the units named first, in that order, and then, if all is set, all the others in the reverse order of
// their start. It returns when they have stopped, and nothing is started then until Resume. Its error is
// that of ctx, after which the units go on to stop, or ErrEnded. It is for one goroutine at a time, and may be called
// again to stop more of them. A unit that does not stop in its grace ends the tree.
func (t *Tree) Pause(ctx context.Context, all bool, first ...string) error {
	r := request{first: first, all: all, paused: make(chan struct{})}
	if err := t.request(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.paused:
		return nil
	case <-t.done:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resume starts the units again after Pause, in their order. It does not wait until they are up.
func (t *Tree) Resume(ctx context.Context) error { return t.request(ctx, request{resume: true}) }

func (t *Tree) request(ctx context.Context, r request) error {
	select {
	case t.requests <- r:
		return nil
	case <-t.done:
		return ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause obeys a request.
func (t *Tree) pause(r request) {
	if r.resume {
		t.paused = nil
		return
	}
	t.paused = &r
}

// tellPaused tells whoever has asked for a pause when all units have stopped that were to.
func (t *Tree) tellPaused() {
	p := t.paused
	if p == nil || p.paused == nil {
		return
	}
	for _, n := range t.units {
		if t.pauses(n) && (n.state == Starting || n.state == Up || n.state == Stopping) {
			return
		}
	}
	close(p.paused)
	p.paused = nil
}

// pauses reports whether a unit is to stop for a pause.
func (t *Tree) pauses(n *node) bool {
	return t.paused != nil && (t.paused.all || slices.Contains(t.paused.first, n.Name))
}

// stopOrder are the units in the order in which they stop: the last that was started first, but for those that a
// pause names.
func (t *Tree) stopOrder() []*node {
	var order []*node
	if t.paused != nil {
		for _, name := range t.paused.first {
			if n := t.find(name); n != nil {
				order = append(order, n)
			}
		}
	}
	for _, n := range slices.Backward(t.units) {
		if !slices.Contains(order, n) {
			order = append(order, n)
		}
	}
	return order
}

// stopCause is the cause for the end of an instance.
func (t *Tree) stopCause() error {
	if t.paused != nil && !t.stopping {
		return ErrPaused
	}
	return nil
}
