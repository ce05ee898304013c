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
	buffer int

	asking sync.Pool // of *Q, for direct

	mu   sync.RWMutex // guards life
	life *life[Q, A]  // nil while nobody serves
}

// life is one period in which a module serves the port. A restarted module gets a
// new one, so that no question of a dead one is answered late.
type life[Q, A any] struct {
	requests chan *Request[Q, A]
	done     chan struct{}
	direct   func(*Q) (A, bool) // nil: every question goes to the module's own goroutines

	mu     sync.Mutex              // guards posted
	posted map[*Request[Q, A]]bool // by Post, and not over; nil after the end
}

// Request is one question on its way, with the place for its answer.
type Request[Q, A any] struct {
	// Ctx ends when the asker no longer waits.
	Ctx context.Context
	Q   Q

	reply chan A         // of Await
	done  func(A, error) // of Post; nil for Await
	life  *life[Q, A]    // of Post
}

// Answer sends the answer. It never blocks, and must be called at most once.
func (r *Request[Q, A]) Answer(a A) {
	if r.done == nil {
		r.reply <- a
		return
	}
	r.end(a, nil)
}

// Withdraw ends a question of Post with an error, unless it is over. The module may go on with it:
// the asker ends its context, too.
func (r *Request[Q, A]) Withdraw(err error) {
	var none A
	r.end(none, err)
}

// end ends a question of Post, once.
func (r *Request[Q, A]) end(a A, err error) {
	r.life.mu.Lock()
	open := r.life.posted[r]
	delete(r.life.posted, r)
	r.life.mu.Unlock()
	if open {
		r.done(a, err)
	}
}

// NewPort makes a port. buffer questions may wait in it before Ask blocks.
func NewPort[Q, A any](buffer int) *Port[Q, A] {
	return &Port[Q, A]{buffer: buffer}
}

// Open begins to serve. The module reads requests until it calls stop, which
// makes every waiting and later Ask fail with ErrDown. The channel is never
// closed: read it together with the module's context.
func (p *Port[Q, A]) Open() (requests <-chan *Request[Q, A], stop func()) { return p.OpenDirect(nil) }

// OpenDirect is Open for a module that can answer many questions from memory: it saves them
// the way to another goroutine and back. direct answers one, or returns false for one that must
// take that way. Askers call it in their own goroutines, many at a time: it must not block, ask
// this port, or keep the question. stop waits for those calls that are in progress, and none
// begins after it.
func (p *Port[Q, A]) OpenDirect(direct func(*Q) (A, bool)) (requests <-chan *Request[Q, A], stop func()) {
	l := &life[Q, A]{requests: make(chan *Request[Q, A], p.buffer), done: make(chan struct{}), direct: direct, posted: map[*Request[Q, A]]bool{}}
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
			l.endPosted()
		})
	}
}

// endPosted fails the questions of Post that have no answer.
func (l *life[Q, A]) endPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	var none A
	for r := range posted {
		r.done(none, ErrDown)
	}
}

// Direct answers q if the module has the answer in memory, without waiting for anything.
func (p *Port[Q, A]) Direct(q Q) (a A, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.life == nil || p.life.direct == nil {
		return a, false
	}
	own, _ := p.asking.Get().(*Q)
	if own == nil {
		own = new(Q)
	}
	*own = q
	defer func() {
		if recover() != nil { // it is the module's fault, and shall be its own when Await sends the question
			ok = false
		}
		var none Q
		*own = none
		p.asking.Put(own)
	}()
	return p.life.direct(own)
}

// Ask is Direct, and Await if that has no answer.
func (p *Port[Q, A]) Ask(ctx context.Context, q Q) (A, error) {
	if a, ok := p.Direct(q); ok {
		return a, nil
	}
	return p.Await(ctx, q)
}

// Await sends q to the module and waits for the answer, for the end of ctx, or for the end of
// the module, whichever comes first.
func (p *Port[Q, A]) Await(ctx context.Context, q Q) (A, error) {
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

// Post sends q to the module and does not wait. done is called once, with the answer, with ErrDown
// at the end of the module, or with the error of Withdraw: in another goroutine, or within
// Withdraw. It must not block or use the port. ctx is what the module sees; its end alone does not end
// the question. Post returns nil, and does not call done, if the module does not run, or cannot
// take the question at once.
func (p *Port[Q, A]) Post(ctx context.Context, q *Q, done func(A, error)) *Request[Q, A] {
	p.mu.RLock()
	l := p.life
	p.mu.RUnlock()
	if l == nil {
		return nil
	}
	r := &Request[Q, A]{Ctx: ctx, Q: *q, done: done, life: l}
	l.mu.Lock() // the module cannot end it before it is counted
	defer l.mu.Unlock()
	if l.posted == nil {
		return nil // it has ended just now
	}
	select {
	case l.requests <- r:
		l.posted[r] = true
		return r
	default:
		return nil
	}
}

// Serving reports whether a module serves the port now.
func (p *Port[Q, A]) Serving() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.life != nil
}
