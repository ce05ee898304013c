// Package supervise keeps goroutines: none runs without a keeper that waits for
// it, turns its panic into an error, and stops it in order. A Group keeps goroutines
// that work together; a Tree keeps modules and services: it starts them in order,
// starts what ends again by its policy (README 4.1), and stops them in reverse.
package supervise

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group runs goroutines that share one context. The first error, or a panic,
// cancels the context; Wait returns that error when all have ended. The zero
// Group is not usable; call NewGroup.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error // set before cancel, read after Wait
}

// NewGroup makes a group whose context ends with ctx, with Stop, or with the
// first error.
func NewGroup(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context is the context of all goroutines of the group.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs f in a goroutine of the group. f returns nil to end quietly.
// It may be called from any goroutine until Wait has returned.
func (g *Group) Go(f func(context.Context) error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		if err := Call(g.ctx, f); err != nil {
			g.fail(err)
		}
	}()
}

// Stop cancels the group's context without an error.
func (g *Group) Stop() { g.cancel(context.Canceled) }

// Wait returns the first error when all goroutines have ended. It does not stop
// them: cancel the parent context or call Stop.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(context.Canceled)
	return g.err
}

func (g *Group) fail(err error) {
	g.once.Do(func() {
		g.err = err
		g.cancel(err)
	})
}

// PanicError is a panic of a kept goroutine with its stack.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Call runs f and turns a panic into a *PanicError.
func Call(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f(ctx)
}
