package supervise

import (
	"context"
	"slices"
	"time"
)

// shape is what Reshape makes of a tree.
type shape struct {
	units  []Unit
	renew  []string
	obeyed chan struct{} // closed when those that go have been told to end
}

// Reshape gives a tree other units while it runs, in their start order. A unit of a name that it has goes on, with the Policy
// and the RestartDependencies of the new one; but those named in renew are stopped, and then started as the new one
// says. A unit of a new name is started. Those that are not among the new ones are stopped, all at once, and then
// removed; notify is told of that, and the cause of the end is ErrPaused. When it returns the contexts of those that are to
// stop have ended, so that what they worked with can be taken away; it does not wait for the rest. After the end of the tree it does
// nothing.
func (t *Tree) Reshape(ctx context.Context, units []Unit, renew ...string) error {
	s := &shape{units, renew, make(chan struct{})}
	if err := t.request(ctx, request{reshape: s}); err != nil {
		return err
	}
	<-s.obeyed // the tree has it by now
	return nil
}

// reshape obeys Reshape.
func (t *Tree) reshape(s *shape, now time.Time) {
	defer close(s.obeyed)
	var next []*node
	for _, u := range s.units {
		was := t.find(u.Name)
		switch {
		case was == nil:
			next = append(next, newNode(u))
		case slices.Contains(s.renew, u.Name):
			n := newNode(u)
			n.after = was
			if was.state == Down && was.after != nil && slices.Contains(t.units, was.after) { // it waits itself, and goes at once
				n.after = was.after
			}
			next = append(next, n)
		default:
			was.Policy, was.RestartDependencies = u.Policy, u.RestartDependencies
			next = append(next, was)
		}
	}
	var gone []*node
	for _, n := range t.units {
		if !slices.Contains(next, n) {
			gone = append(gone, n)
		}
	}
	t.mu.Lock()
	t.units = append(next, gone...)
	t.mu.Unlock()
	for _, n := range gone {
		if n.leaving {
			continue
		}
		n.leaving = true
		switch n.state {
		case Starting, Up:
			n.cancel(ErrPaused)
			n.grace = n.Grace()
			n.deadline = now.Add(n.grace)
			t.set(n, Event{State: Stopping}, now)
		case Stopping: // its end is awaited already
		default:
			t.remove(n, nil, now)
		}
	}
}

// remove takes a unit out that has ended.
func (t *Tree) remove(n *node, err error, now time.Time) {
	t.set(n, Event{State: Removed, Err: err, Outcome: OutcomeOf(err)}, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.units = slices.DeleteFunc(slices.Clone(t.units), func(o *node) bool { return o == n })
}

// checkLeaving gives up waiting for units that should have ended.
func (t *Tree) checkLeaving(now time.Time) {
	for _, n := range t.units {
		if n.leaving && n.state == Stopping && !n.deadline.IsZero() && !now.Before(n.deadline) {
			t.overdue(n)
		}
	}
}
