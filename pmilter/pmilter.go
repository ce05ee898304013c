package pmilter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"meta1/mta/supervise"
)

// Pmilter describes a policy milter: its callbacks (pmilter_P, struct pmilter_S). A callback
// that is nil is not asked for. Those of one session run one after the other, those of
// different sessions at the same time. A callback that panics refuses with 451 what it was
// asked about, and is asked no more in that session.
type Pmilter struct {
	Name string // for logs, those of the server included
	// Negotiate is pmfi_negotiate: it is told what a new server offers, and returns what the
	// milter wants of it. An error refuses the server. nil: NegotiateAll. This is the place for
	// SetMacros.
	Negotiate func(ss *Server, offer Offer) (Options, error)
	// Connect is pmfi_connect: a client has come. Session.Client has it.
	Connect func(s *Session) Code
	// Helo is pmfi_helo.
	Helo func(s *Session, name string, ehlo bool) Code
	// Mail is pmfi_mail. The address has its brackets; args are the parameters.
	Mail func(s *Session, from string, args []string) Code
	// Rcpt is pmfi_rcpt. With CapRcptStatus it is told of refused recipients, too: look at
	// Session.Status. What it returns for one of those has no effect.
	Rcpt func(s *Session, to string, args []string) Code
	// Data is pmfi_data: DATA, or the first BDAT.
	Data func(s *Session) Code
	// Unknown is pmfi_unknown: a command that the server does not know.
	Unknown func(s *Session, line string) Code
	// Msg is pmfi_msg: the next chunk of the message, its header included, without the fields
	// that the server has added. The chunk is the callback's only until it returns. What it
	// returns counts with CapMsgCode alone.
	Msg func(s *Session, chunk []byte) Code
	// EOM is pmfi_eom: the final dot. Here the message may be changed.
	EOM func(s *Session) Code
	// MsgReplace is pmfi_msg_rplc: behind Replace of EOM it gives the next chunk of the new
	// message, less than ChunkSize bytes, and Continue if there are more, OK if it is the last.
	// Another code replaces nothing and is the verdict on the message.
	MsgReplace func(s *Session) ([]byte, Code)
	// MsgReplaced is pmfi_msg_rplc_stat: whether the message was replaced.
	MsgReplaced func(s *Session, done bool)
	// Abort is pmfi_abort: the transaction is over before its end.
	Abort func(s *Session)
	// Close is pmfi_close: the session is over. It is the last call, and comes once.
	Close func(s *Session)
	// Signal is pmfi_signal: the process has got USR1 or USR2. It needs Start, and a system
	// with these signals.
	Signal func(g *Global, sig os.Signal)
}

// caps are those of the callbacks that there are.
func (p *Pmilter) caps() Cap {
	var c Cap
	for _, b := range []struct {
		set bool
		cap Cap
	}{
		{p.Connect != nil, CapConnect},
		{p.Helo != nil, CapHelo},
		{p.Mail != nil, CapMail},
		{p.Rcpt != nil, CapRcpt | CapRcptStatus},
		{p.Data != nil, CapData},
		{p.Unknown != nil, CapUnknown},
		{p.Msg != nil, CapMsg | CapMsgCode},
		{p.EOM != nil, CapEOM},
	} {
		if b.set {
			c |= b.cap
		}
	}
	return c
}

// NegotiateAll is what Negotiate does if it is nil: it takes all steps that have a callback and all functions,
// but neither CapRcptStatus nor CapMsgCode, which change what callbacks must do.
func NegotiateAll(_ *Server, offer Offer) (Options, error) {
	o := offer.Options
	o.Cap &^= CapRcptStatus | CapMsgCode
	return o, nil
}

// Global is the context of a program (pmg_ctx): one policy milter. Its Set functions are for
// the time before Start and Serve; the others may be called by any goroutine.
type Global struct {
	p       Pmilter
	log     *slog.Logger
	debug   int
	network string
	address string
	backlog int
	timeout time.Duration
	context any

	mu      sync.Mutex // guards the following
	stopped bool
	stops   map[*context.CancelFunc]struct{} // of Serve
	servers int
}

const (
	// serversMax bounds the servers that are connected.
	serversMax = 256
	// timeoutDefault is for SetTimeout.
	timeoutDefault = time.Minute
)

// New makes a policy milter (sm_pmfi_init and the description that sm_pmfi_start is given).
func New(p Pmilter) (*Global, error) {
	if p.Name == "" {
		return nil, errors.New("a policy milter needs a name")
	}
	return &Global{p: p, log: slog.New(slog.DiscardHandler), timeout: timeoutDefault, stops: map[*context.CancelFunc]struct{}{}}, nil
}

// SetConn says where Start listens (sm_pmfi_setconn): the path of a Unix domain socket, or a
// URL as pmult has it, unix:///path or inet://127.0.0.1:3333.
func (g *Global) SetConn(where string) error {
	u, err := url.Parse(where)
	switch {
	case where != "" && (err != nil || u.Scheme == ""):
		g.network, g.address = "unix", where
	case err == nil && u.Scheme == "unix" && u.Path != "":
		g.network, g.address = "unix", u.Path
	case err == nil && (u.Scheme == "inet" || u.Scheme == "inet6") && u.Port() != "":
		g.network, g.address = "tcp", u.Host
	default:
		return fmt.Errorf("%q is neither a path nor unix:///path nor inet://address:port", where)
	}
	return nil
}

// SetBacklog sets the argument of listen(2) (sm_pmfi_setbacklog), if the system lets it; 0 is
// the system's own.
func (g *Global) SetBacklog(n int) error {
	if n < 0 {
		return fmt.Errorf("a backlog of %d", n)
	}
	g.backlog = n
	return nil
}

// SetDebug sets the debug level (sm_pmfi_setdbg): from 1 on sessions are logged, from 2 on
// their commands and answers.
func (g *Global) SetDebug(level int) { g.debug = level }

// SetLog sets the logger; without it nothing is logged.
func (g *Global) SetLog(log *slog.Logger) { g.log = log }

// SetTimeout sets the communication timeout (sm_pmfi_settimeout): how long a server may take
// to negotiate, and to read what is written to it. The default is a minute. Between
// commands there is none.
func (g *Global) SetTimeout(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("a timeout of %v", d)
	}
	g.timeout = d
	return nil
}

// SetContext sets a value for the program (sm_pmfi_set_ctx_g).
func (g *Global) SetContext(v any) { g.context = v }

// Context is what SetContext has set (sm_pmfi_get_ctx_g).
func (g *Global) Context() any { return g.context }

// Version is the version of this library (sm_pmfi_version).
func (g *Global) Version() (major, minor, patch uint32) { return Major, Minor, Patch }

// Start listens where SetConn says and serves until ctx ends or Stop is called
// (sm_pmfi_start). A socket that nobody listens on is removed first.
func (g *Global) Start(ctx context.Context) error {
	if g.network == "" {
		return errors.New("SetConn was not called")
	}
	if g.network == "unix" {
		removeDead(ctx, g.address)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, g.network, g.address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	if g.backlog > 0 {
		if err := setBacklog(l, g.backlog); err != nil {
			_ = l.Close() // the first error counts
			return fmt.Errorf("backlog: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keeper := supervise.NewGroup(ctx)
	if g.p.Signal != nil {
		keeper.Go(g.signals)
	}
	err = g.Serve(ctx, l)
	keeper.Stop()
	return errors.Join(err, keeper.Wait())
}

// removeDead removes a Unix socket on which nobody listens.
func removeDead(ctx context.Context, path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // somebody is there, and listening will fail
		return
	}
	_ = os.Remove(path) // if not, listening says so
}

// Stop ends Start and Serve (sm_pmfi_stop). It does not wait for them.
func (g *Global) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	for stop := range g.stops {
		(*stop)()
	}
}

// begin notes that Serve runs. ok is false behind Stop.
func (g *Global) begin(ctx context.Context) (_ context.Context, end func(), ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops[&cancel] = struct{}{}
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.stops, &cancel)
		cancel()
	}, !g.stopped
}

// Serve serves the servers that connect to l, which it closes, until ctx ends or Stop is
// called; then it returns nil when all callbacks have returned.
func (g *Global) Serve(ctx context.Context, l net.Listener) error {
	ctx, end, ok := g.begin(ctx)
	defer end()
	defer func() { _ = l.Close() }() // it is closed either way
	if !ok {
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	group := supervise.NewGroup(ctx)
	defer func() {
		group.Stop()
		_ = group.Wait() // connections report their own errors
	}()
	for backoff := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case err == nil:
			backoff = 0
			g.serve(group, conn)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting: %w", err)
		}
		backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
		g.log.LogAttrs(ctx, slog.LevelWarn, "accept failed", slog.Any("error", err))
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
	}
}

// serve serves one connection, if there may be one more.
func (g *Global) serve(group *supervise.Group, conn net.Conn) {
	g.mu.Lock()
	full := g.servers >= serversMax
	if !full {
		g.servers++
	}
	g.mu.Unlock()
	if full {
		g.log.LogAttrs(group.Context(), slog.LevelWarn, "too many servers are connected", slog.Int("servers", serversMax))
		_ = conn.Close() // there is nothing to be said
		return
	}
	group.Go(func(ctx context.Context) error {
		defer func() {
			g.mu.Lock()
			g.servers--
			g.mu.Unlock()
		}()
		ss := &Server{g: g, nc: conn, sessions: map[uint32]*Session{}}
		if err := supervise.Call(ctx, ss.run); err != nil {
			g.log.LogAttrs(ctx, slog.LevelWarn, "connection to a server failed", slog.String("server", ss.offer.Host), slog.Any("error", err))
		}
		return nil
	})
}
