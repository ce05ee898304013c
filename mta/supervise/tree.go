package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Unit is one thing that a Tree keeps running.
type Unit struct {
	Name string
	// New makes a new instance and returns what runs it until its context ends. It is
	// called for each start, in a goroutine of the tree, and never while an
	// instance runs. Its error is an end like one of run.
	New func() (run func(context.Context) error, err error)
	// Ready returns nil as soon as the instance serves; units behind this one start
	// only then. Without it the unit is up as soon as New has returned, and its
	// instance runs only when that was told to notify.
	Ready  func(context.Context) error
	Policy Policy
	// RestartDependencies are the units that are stopped and started again, too, when
	// this one is (README 3.7, item 6).
	RestartDependencies []string
	// Optional: the others go on when this unit is given up. Otherwise the tree ends.
	Optional bool
	// Grace is how long an instance that is to stop now may take; nil stands for 10 seconds.
	Grace func() time.Duration
}

const defaultGrace = 10 * time.Second

// State is what a unit does.
type State string

// The states of a unit.
const (
	Down     State = "down"     // not started yet, or waiting for its restart
	Starting State = "starting" // runs, but does not serve yet
	Up       State = "up"
	Stopping State = "stopping"
	Removed  State = "removed" // by Reshape, and ended
	Failed   State = "failed"  // given up
)

// Event tells of a unit that changed its state.
type Event struct {
	Unit  string
	State State
	// Err is why the unit ended, for Down and Failed.
	Err error
	// Outcome of the end, for Down and Failed.
	Outcome Outcome
	// Pause before the restart, for Down.
	Pause time.Duration
}

// Status is a snapshot of a unit.
type Status struct {
	Name     string
	State    State
	Since    time.Time
	Restarts int
	LastErr  error
}

// Tree keeps units running: it starts them in order, each when those before it
// are up; starts those that end again as new instances, by their policy; and
// stops them in the reverse order.
type Tree struct {
	notify func(Event)

	mu    sync.Mutex // guards units, and the field status of each: Run changes them, and Status reads them
	units []*node

	// The fields below belong to the goroutine of Run, as the rest of each node does.
	group    *Group
	events   chan nodeEvent
	requests chan request
	done     chan struct{} // closed when Run ends: nobody reads events or requests any more
	paused   *request      // nil: the units run
	stopping bool
	served   bool // all units were up once
	err      error
}

// node is a unit with its instance.
type node struct {
	Unit
	status   Status
	state    State
	leaving  bool  // Reshape has removed it
	after    *node // which it replaces and has to wait for; nil: none
	wantStop bool  // for a restart together with another unit
	due      time.Time
	grace    time.Duration
	deadline time.Time // of stopping, grace after its begin
	cancel   context.CancelCauseFunc
	history  History
	starts   int // also tells an instance's events from those of the one before
}

// nodeEvent is what happened to an instance.
type nodeEvent struct {
	node  *node
	start int             // which start of the node
	ready bool            // else it ended
	done  chan<- struct{} // closed when the event was handled; nil for none
	made  bool            // New had succeeded
	err   error
}

// NewTree makes a tree of the units in their start order. notify, if not nil, is
// called for each change from the goroutine of Run and must not block.
func NewTree(units []Unit, notify func(Event)) (*Tree, error) {
	t := &Tree{notify: notify, events: make(chan nodeEvent), requests: make(chan request), done: make(chan struct{})}
	for _, u := range units {
		t.units = append(t.units, newNode(u))
	}
	for _, n := range t.units {
		for _, name := range n.RestartDependencies {
			if t.find(name) == nil {
				return nil, fmt.Errorf("restart dependency %q of %s does not exist", name, n.Name)
			}
		}
	}
	return t, nil
}

func newNode(u Unit) *node {
	if u.Grace == nil {
		u.Grace = func() time.Duration { return defaultGrace }
	}
	return &node{Unit: u, state: Down, status: Status{Name: u.Name, State: Down}}
}

// find is the unit of a name that has not been removed.
func (t *Tree) find(name string) *node {
	for _, n := range t.units {
		if n.Name == name && !n.leaving {
			return n
		}
	}
	return nil
}

// Status is a snapshot of all units in their start order.
func (t *Tree) Status() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Status, 0, len(t.units))
	for _, n := range t.units {
		all = append(all, n.status)
	}
	return all
}

// Run starts the units and keeps them running until ctx ends or a unit that is not
// optional is given up; then it stops all and returns why. Its error names
// instances that did not stop in their grace; those still run.
func (t *Tree) Run(ctx context.Context) error {
	t.group = NewGroup(context.WithoutCancel(ctx))
	defer close(t.done)
	ended := ctx.Done()
	for {
		t.advance(time.Now())
		if t.stopping && t.allStopped() {
			return t.finish()
		}
		t.tellPaused()
		wait, stop := t.timer(time.Now())
		select {
		case e := <-t.events:
			t.handle(e, time.Now())
		case r := <-t.requests:
			if r.reshape != nil {
				t.reshape(r.reshape, time.Now())
			} else {
				t.pause(r)
			}
		case <-wait:
		case <-ended:
			ended = nil
			t.stopping = true
		}
		stop()
	}
}

// finish waits for the goroutines, unless an instance was left running.
func (t *Tree) finish() error {
	for _, n := range t.units {
		if n.state == Stopping {
			return t.err
		}
	}
	t.group.Stop()
	return errors.Join(t.err, t.group.Wait())
}

// advance starts and stops whatever can be started or stopped now.
func (t *Tree) advance(now time.Time) {
	t.checkLeaving(now)
	if t.stopping || t.paused != nil || t.anyWantsStop() {
		t.stopLast(now)
		return
	}
	for _, n := range t.units {
		if n.leaving || n.after != nil && slices.Contains(t.units, n.after) {
			continue
		}
		if n.state == Down && !now.Before(n.due) {
			t.start(n, now)
		}
		if n.state != Up && !n.Optional {
			return
		}
	}
	t.served = true
}

// stopLast stops the last unit that is to stop. Those before it wait until it ended.
func (t *Tree) stopLast(now time.Time) {
	for _, n := range t.stopOrder() {
		switch {
		case !t.stopping && !t.pauses(n) && !n.wantStop:
		case n.state == Starting || n.state == Up:
			n.cancel(t.stopCause())
			n.grace = n.Grace()
			n.deadline = now.Add(n.grace)
			t.set(n, Event{State: Stopping}, now)
			return
		case n.state == Stopping && now.Before(n.deadline):
			return
		case n.state == Stopping:
			t.overdue(n)
		}
	}
}

// overdue gives up waiting for an instance: it cannot be replaced, so all ends.
func (t *Tree) overdue(n *node) {
	if !n.deadline.IsZero() {
		t.err = errors.Join(t.err, fmt.Errorf("%s did not stop within %v", n.Name, n.grace))
		n.deadline = time.Time{}
	}
	t.stopping = true
}

func (t *Tree) anyWantsStop() bool {
	return slices.ContainsFunc(t.units, func(n *node) bool { return n.wantStop })
}

func (t *Tree) allStopped() bool {
	return !slices.ContainsFunc(t.units, func(n *node) bool {
		return n.state == Starting || n.state == Up || n.state == Stopping && !n.deadline.IsZero()
	})
}

// timer is a channel that speaks when the next pause or grace ends.
func (t *Tree) timer(now time.Time) (c <-chan time.Time, stop func()) {
	var next time.Time
	for _, n := range t.units {
		at := n.due
		if n.state == Stopping {
			at = n.deadline
		} else if n.state != Down {
			continue
		}
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(next.Sub(now))
	return timer.C, func() { timer.Stop() }
}

func (t *Tree) start(n *node, now time.Time) {
	ctx, cancel := context.WithCancelCause(t.group.Context())
	n.cancel = cancel
	n.starts++
	start := n.starts
	t.set(n, Event{State: Starting}, now)
	t.group.Go(func(context.Context) error {
		defer cancel(nil)
		made := false
		err := Call(ctx, func(ctx context.Context) error {
			run, err := n.New()
			if err != nil {
				return err
			}
			made = true
			t.awaitReady(ctx, n, start)
			return run(ctx)
		})
		t.send(nodeEvent{node: n, start: start, made: made, err: err})
		return nil
	})
}

// awaitReady sends the event that the new instance of n serves as soon as it does.
func (t *Tree) awaitReady(ctx context.Context, n *node, start int) {
	ready := nodeEvent{node: n, start: start, ready: true}
	if n.Ready == nil {
		done := make(chan struct{})
		ready.done = done
		t.send(ready)
		select {
		case <-done:
		case <-t.done:
		}
		return
	}
	t.group.Go(func(context.Context) error {
		if Call(ctx, n.Ready) == nil && ctx.Err() == nil {
			t.send(ready)
		}
		return nil
	})
}

// send hands an event to Run.
func (t *Tree) send(e nodeEvent) {
	select {
	case t.events <- e:
	case <-t.done:
	}
}

func (t *Tree) handle(e nodeEvent, now time.Time) {
	n := e.node
	if e.done != nil {
		defer close(e.done)
	}
	switch {
	case e.ready:
		if n.state == Starting && e.start == n.starts {
			t.set(n, Event{State: Up}, now)
		}
	case n.state == Stopping:
		n.wantStop, n.due, n.deadline = false, now, time.Time{}
		if n.leaving {
			t.remove(n, e.err, now)
			return
		}
		t.set(n, Event{State: Down, Err: e.err, Outcome: OutcomeOf(e.err)}, now)
	default:
		t.ended(n, e, now)
	}
}

// ended decides what follows an end that nobody asked for.
func (t *Tree) ended(n *node, e nodeEvent, now time.Time) {
	n.wantStop = false
	outcome := OutcomeOf(e.err)
	pause, restart := n.history.Next(n.Policy, outcome, now)
	if !e.made && !t.served && !n.Optional {
		restart = false // at the first start somebody looks on and can act
	}
	if !restart {
		t.set(n, Event{State: Failed, Err: e.err, Outcome: outcome}, now)
		if !n.Optional {
			t.giveUp(n, e.err)
		}
		return
	}
	n.due = now.Add(pause)
	t.set(n, Event{State: Down, Err: e.err, Outcome: outcome, Pause: pause}, now)
	t.stopDependencies(n)
}

func (t *Tree) giveUp(n *node, err error) {
	if err == nil {
		err = errors.New("it ended too often")
	}
	t.err = errors.Join(t.err, fmt.Errorf("%s: %w", n.Name, err))
	t.stopping = true
}

// stopDependencies marks all that has to restart with n, and with those in turn.
func (t *Tree) stopDependencies(n *node) {
	for _, name := range n.RestartDependencies {
		d := t.find(name)
		if d != nil && d != n && !d.wantStop && (d.state == Starting || d.state == Up) {
			d.wantStop = true
			t.stopDependencies(d)
		}
	}
}

// set changes a unit's state and tells of it.
func (t *Tree) set(n *node, e Event, now time.Time) {
	n.state, e.Unit = e.State, n.Name
	t.mu.Lock()
	s := &n.status
	s.State, s.Since, s.Restarts = e.State, now, max(0, n.starts-1)
	if e.Err != nil {
		s.LastErr = e.Err
	}
	t.mu.Unlock()
	if t.notify != nil {
		t.notify(e)
	}
}
