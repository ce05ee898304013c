package pmilter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/supervise"
)

// Name is what logs, metrics and the trace call the policy milter.
const Name = "policy_milter"

// Failure says what becomes of a client when the policy milter fails.
type Failure uint8

// The words of the option flags; Ignore is none of them.
const (
	// Ignore goes on without it for the rest of the session. After a connection that failed it
	// is left alone for a while.
	Ignore Failure = iota
	// Reconnect is Ignore, but the next session connects in any case.
	Reconnect
	// AbortSession ends the session with 421.
	AbortSession
)

// Config is the policy milter.
type Config struct {
	Network string // "tcp" or "unix"
	Address string
	Timeout time.Duration // of each wait; 0: a minute
	Failure Failure
	Host    string // of this server
	Program string // and version
	PRDR    bool   // clients may ask for it
}

// Metrics count what the policy milter does. Nil fields are not counted.
type Metrics struct {
	Connections prometheus.Counter
	Errors      prometheus.Counter
	Verdicts    *prometheus.CounterVec // by verdict
	Seconds     prometheus.Observer    // of each wait
}

// Deps are what a Filter needs.
type Deps struct {
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network
	Log     *slog.Logger                                                         // nil: none
	Metrics Metrics
}

// Filter is the policy milter. Its methods may be called by any goroutine.
type Filter struct {
	cfg    Config
	deps   Deps
	keeper *supervise.Group // of dialing and reading

	mu      sync.Mutex // guards the following
	conn    *conn      // nil: none
	dialing *attempt   // nil: nobody dials
	sulks   time.Time  // until then Ignore does not connect
	closed  bool
}

// attempt is a connection that is being made. The sessions that need it wait for the same one.
type attempt struct {
	done chan struct{} // closed when conn or err are set
	conn *conn
	err  error
}

// sulkTime is how long Ignore leaves a program alone to which no connection could be made.
const sulkTime = 10 * time.Second

// New makes a Filter. It connects to nothing. Close must be called.
func New(cfg Config, deps Deps) *Filter {
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	if deps.Dial == nil {
		deps.Dial = (&net.Dialer{}).DialContext
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Filter{cfg: cfg, deps: deps, keeper: supervise.NewGroup(context.Background())}
}

var (
	errSulk   = errors.New("it could not be connected to a moment ago")
	errClosed = errors.New("the server stops")
)

// Close gives up the connection and waits until nothing of the Filter runs.
func (f *Filter) Close() {
	f.mu.Lock()
	c := f.conn
	f.closed = true
	f.mu.Unlock()
	f.keeper.Stop()
	if c != nil {
		c.fail(errClosed)
	}
	_ = f.keeper.Wait() // connections report their own errors
}

// get gives the connection, and makes it if there is none.
func (f *Filter) get(ctx context.Context) (*conn, error) {
	f.mu.Lock()
	switch {
	case f.closed:
		f.mu.Unlock()
		return nil, errClosed
	case f.conn != nil:
		defer f.mu.Unlock()
		return f.conn, nil
	case f.dialing == nil && f.cfg.Failure == Ignore && time.Now().Before(f.sulks):
		f.mu.Unlock()
		return nil, errSulk
	case f.dialing == nil:
		a := &attempt{done: make(chan struct{})}
		f.dialing = a
		f.keeper.Go(func(ctx context.Context) error {
			f.dial(ctx, a)
			return nil
		})
	}
	a := f.dialing
	f.mu.Unlock()
	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// dial makes a connection and negotiates.
func (f *Filter) dial(ctx context.Context, a *attempt) {
	began := time.Now()
	a.err = supervise.Call(ctx, func(ctx context.Context) (err error) {
		a.conn, err = f.connect(ctx)
		return err
	})
	f.observe(began)
	f.mu.Lock()
	f.dialing, f.conn = nil, a.conn
	if a.err != nil {
		f.sulks = time.Now().Add(sulkTime)
	}
	closed := f.closed
	f.mu.Unlock()
	if a.conn != nil {
		f.keeper.Go(a.conn.run)
		if closed {
			a.conn.fail(errClosed)
		}
	}
	close(a.done)
}

// connect makes a connection and negotiates within the timeout.
func (f *Filter) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	nc, err := f.deps.Dial(ctx, f.cfg.Network, f.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if f.deps.Metrics.Connections != nil {
		f.deps.Metrics.Connections.Inc()
	}
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	c, err := newConn(f, nc)
	if err != nil {
		_ = nc.Close() // the first error counts
		return nil, fmt.Errorf("negotiating: %w", err)
	}
	return c, nil
}

// lost forgets a connection that has failed.
func (f *Filter) lost(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == c {
		f.conn = nil
	}
}

func (f *Filter) observe(began time.Time) {
	if f.deps.Metrics.Seconds != nil {
		f.deps.Metrics.Seconds.Observe(time.Since(began).Seconds())
	}
}

func (f *Filter) count(word string) {
	if f.deps.Metrics.Verdicts != nil {
		f.deps.Metrics.Verdicts.WithLabelValues(word).Inc()
	}
}
