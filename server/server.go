package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// Deps are what a Server needs from mta.
type Deps struct {
	// Ports: the server asks Admit, Commit and Check, and serves the status port
	// "smtps NAME" if there is one, else "smtps".
	Ports *msg.Ports
	// Content takes messages that are too large for memory.
	Content msg.ContentStore
	// Listeners are bound already. Run closes them when its context ends.
	Listeners []net.Listener
	// Log is nil for none.
	Log *slog.Logger
	// Metrics is nil for none.
	Metrics prometheus.Registerer
	// Hostname is the name in the greeting and in Received:, a domain name.
	Hostname string
	// Version of meta1, such as "1.0".
	Version string
	// Name of the smtps section, or "".
	Name string
}

// Server is one SMTP server: one smtps section.
type Server struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics

	rules         msg.CheckRules
	verbs         map[string]*verb
	greeting      smtp.Reply
	ehloReply     smtp.Reply
	heloReply     smtp.Reply
	replyStopping smtp.Reply
	pools         pools
	halt          halt

	mu       sync.Mutex            // guards the following
	sessions map[*session]struct{} // open ones
	idle     chan struct{}         // closed when the server stops and none is open
	stopping bool
}

// New makes the server of one smtps section. It starts nothing. The error names all
// that is wrong with the arguments. A Server runs once.
func New(cfg Config, deps Deps) (*Server, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg.withDefaults(), deps: deps, log: deps.Log,
		sessions: map[*session]struct{}{}, idle: make(chan struct{}),
		heloReply:     smtp.NewReply(250, "", deps.Hostname),
		replyStopping: smtp.NewReply(421, "4.3.2", deps.Hostname+" is going down"),
	}
	var errs []error
	if err := smtp.CheckDomain(deps.Hostname); err != nil {
		errs = append(errs, fmt.Errorf("host name %q: %w", deps.Hostname, err))
	}
	var err error
	if s.greeting, err = parseGreeting(s.cfg.Greeting, deps.Hostname, deps.Version); err != nil {
		errs = append(errs, fmt.Errorf("option greeting %w", err))
	}
	if s.metrics, err = newMetrics(deps.Metrics, deps.Name); err != nil {
		errs = append(errs, fmt.Errorf("registering metrics: %w", err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.rules = s.cfg.checkRules()
	s.ehloReply = s.extensions()
	s.indexVerbs()
	return s, nil
}

// Run accepts and serves connections until ctx ends. Then it closes the listeners,
// sends idle sessions away with 421, and lets sessions in DATA go on for
// stop_timeout. It returns when all sessions have ended: nil, or why it could not
// go on.
func (s *Server) Run(ctx context.Context) error {
	// Sessions outlive ctx for a while, hence a group of its own.
	g := supervise.NewGroup(context.WithoutCancel(ctx))
	g.Go(s.serveStatus)
	for _, l := range s.deps.Listeners {
		g.Go(func(context.Context) error { return s.accept(ctx, l, g) })
	}
	select {
	case <-ctx.Done():
	case <-g.Context().Done():
	}
	for _, l := range s.deps.Listeners {
		_ = l.Close() // it is closed either way
	}
	s.stopSessions()
	g.Stop()
	return g.Wait()
}

// accept takes connections from one listener.
func (s *Server) accept(ctx context.Context, l net.Listener, g *supervise.Group) error {
	const backoffMin, backoffMax = 5 * time.Millisecond, time.Second
	backoff := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			backoff = 0
			s.start(conn, g)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting on %s: %w", l.Addr(), err)
		}
		// Out of file descriptors, or the client has gone already.
		backoff = min(max(2*backoff, backoffMin), backoffMax)
		s.log.LogAttrs(ctx, slog.LevelWarn, "accept failed", slog.Any("error", err), slog.Duration("wait", backoff))
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
	}
}

// start begins a session, if there may be one more.
func (s *Server) start(conn net.Conn, g *supervise.Group) {
	s.metrics.total.Inc()
	c := s.newSession(conn)
	if r := s.add(c); !r.IsZero() {
		s.metrics.refused.WithLabelValues(refusedThreads).Inc()
		s.log.LogAttrs(g.Context(), slog.LevelInfo, "session refused",
			c.clientIP(), slog.String("reply", r.String()))
		_ = conn.SetWriteDeadline(time.Now().Add(lastWords))
		_, _ = conn.Write(r.AppendWire(nil)) // a courtesy; the connection ends anyway
		_ = conn.Close()
		return
	}
	g.Go(func(ctx context.Context) error {
		defer s.remove(c)
		if err := supervise.Call(ctx, c.run); err != nil {
			s.panicked(c, err)
		}
		return nil
	})
}

// panicked reports a session that ended by a failure of the program. Its deferred
// calls have closed the connection and removed what it had stored.
func (s *Server) panicked(c *session, err error) {
	s.metrics.panics.Inc()
	attrs := []slog.Attr{slog.Any("error", err), c.clientIP()}
	if p := (*supervise.PanicError)(nil); errors.As(err, &p) {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	c.emit(slog.LevelError, "session failed", attrs...)
}

// add notes a session. The reply is zero if it may go on.
func (s *Server) add(c *session) smtp.Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return s.replyStopping
	case s.cfg.ThreadsMax > 0 && len(s.sessions) >= s.cfg.ThreadsMax:
		return smtp.NewReply(421, "4.3.2", s.deps.Hostname+" has too many connections, try again later")
	}
	s.sessions[c] = struct{}{}
	s.metrics.sessions.Inc()
	return smtp.Reply{}
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
	s.metrics.sessions.Dec()
	if s.stopping && len(s.sessions) == 0 {
		close(s.idle)
	}
}

// stopSessions sends idle sessions away, waits for those in DATA as long as
// stop_timeout says, and closes the connections of what is left.
func (s *Server) stopSessions() {
	s.halt.set(time.Now().Add(s.cfg.StopTimeout))
	s.mu.Lock()
	s.stopping = true
	if len(s.sessions) == 0 {
		close(s.idle)
	}
	for c := range s.sessions {
		c.wire.poke()
	}
	s.mu.Unlock()

	grace := time.NewTimer(s.cfg.StopTimeout + lastWords)
	defer grace.Stop()
	select {
	case <-s.idle:
		return
	case <-grace.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		_ = c.wire.conn.Close() // wakes it up
	}
}

// serveStatus answers the status port until ctx ends.
func (s *Server) serveStatus(ctx context.Context) error {
	port := s.deps.Ports.Status["smtps "+s.deps.Name]
	if port == nil {
		port = s.deps.Ports.Status["smtps"]
	}
	requests, stop := port.Open()
	defer stop()
	for {
		select {
		case r := <-requests:
			r.Answer(s.status())
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) status() msg.StatusA {
	s.mu.Lock()
	open, stopping := len(s.sessions), s.stopping
	s.mu.Unlock()
	a := msg.StatusA{Module: "smtps"}
	add := func(name, value string) { a.Values = append(a.Values, msg.StatusValue{Name: name, Value: value}) }
	if s.deps.Name != "" {
		add("name", s.deps.Name)
	}
	for _, l := range s.deps.Listeners {
		add("listen", l.Addr().String())
	}
	add("sessions", strconv.Itoa(open))
	add("sessions_max", strconv.Itoa(s.cfg.ThreadsMax))
	add("stopping", strconv.FormatBool(stopping))
	for _, v := range s.metrics.values() {
		add(v.Name, v.Value)
	}
	return a
}
