package server

import (
	"context"
	"errors"
	"time"

	"meta1/mta/msg"
)

// errModuleSlow says that a module did not answer in time.
var errModuleSlow = errors.New("no answer in time")

// patience gives a session's questions to other modules a time limit. It keeps one
// context and one timer for the session, since a context with a deadline for each
// question would cost more than the question.
type patience struct {
	parent context.Context
	ctx    context.Context // nil before the first question and after one timed out
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// begin returns a context that ends after d unless end is called before.
func (p *patience) begin(d time.Duration) context.Context {
	if p.ctx != nil {
		p.timer.Reset(d)
		return p.ctx
	}
	ctx, cancel := context.WithCancelCause(p.parent)
	p.ctx, p.cancel = ctx, cancel
	p.timer = time.AfterFunc(d, func() { cancel(errModuleSlow) })
	return ctx
}

// end stops the time limit.
func (p *patience) end() {
	if !p.timer.Stop() {
		p.close()
	}
}

// close frees the context.
func (p *patience) close() {
	if p.ctx != nil {
		p.timer.Stop()
		p.cancel(context.Canceled)
		p.ctx = nil
	}
}

// ask asks a module and waits at most d.
func ask[Q, A any](p *patience, port *msg.Port[Q, A], d time.Duration, q Q) (A, error) {
	if a, ok := port.Direct(q); ok {
		return a, nil // a time limit would cost as much again
	}
	a, err := port.Await(p.begin(d), q)
	p.end()
	return a, err
}
