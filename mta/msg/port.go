package msg

import (
	"context"
	"errors"
	"sync"
)

// ErrDown says that the module behind a port does not run now, or died before it
// answered. Whether the question took effect is then unknown.
var ErrDown = errors.New("module is down")

// Port carries questions of type Q to one module and its answers of type A back.
// Any goroutine may ask. Only the module that serves the port calls Open.
type Port[Q, A any] struct {
	name   string
	buffer int

	mu   sync.RWMutex // guards life
	life *life[Q, A]  // nil while nobody serves
}

// life is one period in which a module serves the port. A restarted module gets a
// new one, so that no question of a dead one is answered late.
type life[Q, A any] struct {
	requests chan *Request[Q, A]
	done     chan struct{}
}

// Request is one question on its way, with the place for its answer.
type Request[Q, A any] struct {
	// Ctx ends when the asker no longer waits.
	Ctx context.Context
	Q   Q

	reply chan A
}

// Answer sends the answer. It never blocks, and must be called at most once.
func (r *Request[Q, A]) Answer(a A) { r.reply <- a }

// NewPort makes a port. buffer questions may wait in it before Ask blocks.
func NewPort[Q, A any](name string, buffer int) *Port[Q, A] {
	return &Port[Q, A]{name: name, buffer: buffer}
}

// Name is the port's name for logs and metrics.
func (p *Port[Q, A]) Name() string { return p.name }

// Open begins to serve. The module reads requests until it calls stop, which
// makes every waiting and later Ask fail with ErrDown. The channel is never
// closed: read it together with the module's context.
func (p *Port[Q, A]) Open() (requests <-chan *Request[Q, A], stop func()) {
	l := &life[Q, A]{requests: make(chan *Request[Q, A], p.buffer), done: make(chan struct{})}
	p.mu.Lock()
	p.life = l
	p.mu.Unlock()
	var once sync.Once
	return l.requests, func() {
		once.Do(func() {
			p.mu.Lock()
			if p.life == l {
				p.life = nil
			}
			p.mu.Unlock()
			close(l.done)
		})
	}
}

// Ask sends q and waits for the answer, for the end of ctx, or for the end of the
// module, whichever comes first.
func (p *Port[Q, A]) Ask(ctx context.Context, q Q) (A, error) {
	var none A
	p.mu.RLock()
	l := p.life
	p.mu.RUnlock()
	if l == nil {
		return none, ErrDown
	}
	r := &Request[Q, A]{Ctx: ctx, Q: q, reply: make(chan A, 1)}
	select {
	case l.requests <- r:
	case <-l.done:
		return none, ErrDown
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	select {
	case a := <-r.reply:
		return a, nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-l.done:
		select { // an answer given just before the end still counts
		case a := <-r.reply:
			return a, nil
		default:
			return none, ErrDown
		}
	}
}
