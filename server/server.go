package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/tracing"
	"meta1/server/auth"
	"meta1/server/authn/dmarcrpt"
	"meta1/server/authn/verify"
	"meta1/server/condition"
	"meta1/server/content"
	"meta1/server/crowd"
	"meta1/server/dkim"
	"meta1/server/pmilter"
	"meta1/server/wire"
)

// Deps are what a Server needs from mta.
type Deps struct {
	// Ports: the server asks Admit, Commit and Check.
	Ports *msg.Ports
	// Status is the port on which it tells of itself; nil: the status port "smtps" of Ports.
	Status *msg.Port[msg.StatusQ, msg.StatusA]
	// Content takes messages that are too large for memory.
	Content msg.ContentStore
	// Memory is the budget for content and for the buffers of messages, shared with QMGR;
	// nil: none.
	Memory *msg.Memory
	// Listeners are bound already. Run closes them when its context ends.
	Listeners []net.Listener
	// Log is nil for none.
	Log *slog.Logger
	// Metrics is nil for none.
	Metrics prometheus.Registerer
	// Hostname is the name in the greeting and in Received:, a domain name.
	Hostname string
	// DoubleBounce is the address of which bounces are discarded (qmgr's
	// double_bounce_address); zero stands for doublebounce at Hostname.
	DoubleBounce smtp.Path
	// Version of meta1, such as "1.0".
	Version string
	// Dial connects to the programs that check passwords; nil: the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Random is for the challenges of AUTH; nil: the system's.
	Random io.Reader
	// Name of the smtps section, or "".
	Name string
	// TLS has the certificates; nil: no TLS.
	TLS TLSSource
	// DKIM signs; nil: nothing is signed.
	DKIM *dkim.Signer
	// Tracer is told how messages were received; nil: nothing is traced.
	Tracer *tracing.Tracer
	// DMARCReports counts mail for reports about DMARC; nil: nobody does.
	DMARCReports *dmarcrpt.Reports
}

// TLSSource is what a server needs of its section tls. Its methods may be called by any
// goroutine.
type TLSSource interface {
	// ServerConfig is the configuration for the next handshake.
	ServerConfig() *tls.Config
	// Describe says what a handshake gave.
	Describe(*tls.ConnectionState) *msg.TLS
	// Unmet names the first requirement that is not met, "" if all are. t is nil without TLS.
	Unmet(need *msg.TLSRequirements, t *msg.TLS) string
}

// Server is one SMTP server: one smtps section, as one configuration has it. A reload makes
// another Server that has the same hall; sessions keep the Server with which they began.
type Server struct {
	*hall
	cfg  Config
	deps Deps

	rules        msg.CheckRules
	verbs        map[string]*verb
	checks       map[condition.Stage][]checkSection
	classes      map[string]*class
	greeting     smtp.Reply
	extensions   [extCount]extensionRow
	heloReply    smtp.Reply
	turns        *turns
	auth         *auth.Authenticator // nil: no AUTH
	policyMilter *pmilter.Filter     // nil: none
	verifier     *verify.Verifier    // of section authentication; nil: there is none

	policyConfig pmilter.Config // of policyMilter
	set          atomic.Pointer[filterSet]

	// Guarded by hall.mu:
	users    int  // who has called enter
	retired  bool // another one has taken its place
	employed bool // what it has in hall.staff counts
}

// hall is what a server has whatever its configuration says: its sessions and its listeners.
type hall struct {
	log      *slog.Logger
	metrics  *metrics
	pools    wire.Pools
	contents content.Pools // of the content of messages
	halt     wire.Halt
	stopped  chan struct{} // closed when the server stops: nobody waits for a turn any more
	made     time.Time
	stress   chan struct{}   // says that there is stress
	ending   context.Context // ends when the server begins to stop
	end      context.CancelFunc
	filters  filterSets

	mu        sync.Mutex                // guards the following
	now       *Server                   // for the sessions that begin now
	sessions  map[*crowd.Guest]*session // open ones
	crowd     *crowd.Crowd              // decides which they are
	peak      int                       // most of them at one time (README 9.4)
	idle      chan struct{}             // closed when the server stops and none is open
	stopping  bool
	group     *supervise.Group // of Run; nil before
	accepting context.Context  // of Run: ends when it is to end
	listeners []net.Listener
	staff     map[any]*staff // what runs for one Server or more
}

// New makes the server of one smtps section. It starts nothing. The error names all
// that is wrong with the arguments. A Server runs once.
func New(cfg Config, deps Deps) (*Server, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Memory == nil {
		deps.Memory = msg.NewMemory(math.MaxInt64)
	}
	h := &hall{
		log: deps.Log, sessions: map[*crowd.Guest]*session{}, idle: make(chan struct{}), stopped: make(chan struct{}),
		made: time.Now(), stress: make(chan struct{}, 1), listeners: deps.Listeners,
	}
	var err error
	if h.metrics, err = newMetrics(deps.Metrics, deps.Name); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	h.ending, h.end = context.WithCancel(context.Background())
	f := Filtering{cfg.Milters, cfg.PolicyServices}
	s, err := h.furnish(cfg, deps, f, nil)
	if err != nil {
		return nil, err
	}
	h.crowd = crowd.New(s.cfg.crowdLimits())
	h.now = s
	s.Refilter(f)
	return s, nil
}

// furnish makes the Server of a configuration, whose filters will be f. What former (nil: none) has of it already is
// taken from there. Nobody sees the new one yet.
func (h *hall) furnish(cfg Config, deps Deps, f Filtering, former *Server) (*Server, error) {
	s := &Server{hall: h, cfg: cfg.withDefaults(), deps: deps, heloReply: smtp.NewReply(250, "", deps.Hostname)}
	if s.deps.DoubleBounce.IsNull() {
		s.deps.DoubleBounce = smtp.Path{Local: "doublebounce", Domain: deps.Hostname}
	}
	var errs []error
	if err := smtp.CheckDomain(deps.Hostname); err != nil {
		errs = append(errs, fmt.Errorf("host name %q: %w", deps.Hostname, err))
	}
	var err error
	if s.greeting, err = parseGreeting(s.cfg.Greeting, deps.Hostname, deps.Version); err != nil {
		errs = append(errs, fmt.Errorf("option greeting %w", err))
	}
	if s.cfg.Flags.SMTPS && deps.TLS == nil {
		errs = append(errs, errors.New("flag smtps needs section tls"))
	}
	if err := s.cfg.Proxy.prepare(); err != nil {
		errs = append(errs, fmt.Errorf("section proxy: %w", err))
	}
	if err := s.cfg.Relays.prepare(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := s.makeAuth(former); err != nil {
		return nil, fmt.Errorf("section auth: %w", err)
	}
	s.rules = s.cfg.checkRules()
	s.extensions = extensionTable()
	s.classes = s.cfg.classes()
	h.metrics.sections.use(s, s.cfg.labels(f))
	if err := s.indexChecks(); err != nil {
		h.metrics.sections.release(s)
		return nil, err
	}
	s.indexVerbs()
	s.makePolicyMilter(former)
	s.makeVerifier()
	if former != nil && former.cfg.Handshakes.places() == s.cfg.Handshakes.places() {
		s.turns = former.turns
	} else {
		s.turns = newTurns(s.cfg.Handshakes.places(), h.stopped)
	}
	return s, nil
}

// Run accepts and serves connections until ctx ends. Then it closes the listeners,
// sends idle sessions away with 421, and lets sessions in DATA go on for
// stop_timeout; all that have begun a transaction if the cause of the end is supervise.ErrPaused. It returns when all sessions have ended: nil, or why it could not
// go on.
func (s *Server) Run(ctx context.Context) error {
	// Sessions outlive ctx for a while, hence a group of its own.
	g := supervise.NewGroup(context.WithoutCancel(ctx))
	g.Go(s.serveStatus)
	g.Go(s.watchStress)
	s.open(ctx, g)
	select {
	case <-ctx.Done():
	case <-g.Context().Done():
	}
	s.closeListeners()
	s.stopSessions(errors.Is(context.Cause(ctx), supervise.ErrPaused))
	g.Stop()
	err := g.Wait()
	s.filters.close()
	s.mu.Lock()
	s.group = nil // a later Commit starts nothing
	s.mu.Unlock()
	s.current().dispose()
	return err
}

// accept takes connections from one listener.
func (h *hall) accept(ctx context.Context, l net.Listener, g *supervise.Group) error {
	const backoffMin, backoffMax = 5 * time.Millisecond, time.Second
	backoff := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			backoff = 0
			h.enter().start(conn, g)
			continue
		case ctx.Err() != nil, !h.listensOn(l): // a reload has taken it away
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting on %s: %w", l.Addr(), err)
		}
		// Out of file descriptors, or the client has gone already.
		backoff = min(max(2*backoff, backoffMin), backoffMax)
		h.log.LogAttrs(ctx, slog.LevelWarn, "accept failed", slog.Any("error", err), slog.Duration("wait", backoff))
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
	}
}

// start begins a session, if there may be one more. If not, the connection costs one write:
// nobody is asked, and it has neither a goroutine nor buffers.
func (s *Server) start(conn net.Conn, g *supervise.Group) {
	begun := false
	defer func() {
		if !begun {
			s.exit()
		}
	}()
	s.metrics.total.Inc()
	c := s.newSession(conn)
	addr := c.client.IP
	switch {
	case c.from.via != nil:
		addr = netip.Addr{} // it is known when the header was read
	case s.cfg.ProxyPresent && s.cfg.Proxy.Others != othersAccept:
		s.turnAway(c, replyElsewhere, refusedElsewhere)
		return
	}
	if r, reason := s.add(c, addr); !r.IsZero() {
		s.turnAway(c, r, reason)
		return
	}
	begun = true
	g.Go(func(ctx context.Context) error {
		defer s.exit()
		defer s.remove(c)
		_ = c.run(ctx) // it has been reported
		return nil
	})
}

// turnAway ends a connection that gets no session.
func (s *Server) turnAway(c *session, r smtp.Reply, reason string) {
	s.metrics.refused.WithLabelValues(reason).Inc()
	c.note.where = "connect"
	c.logRefusal(s.verb(verbOther), r)
	words := alertRefused
	if !s.cfg.Flags.SMTPS {
		words = r.AppendWire(nil)
	}
	_ = c.wire.Raw().SetWriteDeadline(time.Now().Add(wire.LastWords))
	_, _ = c.wire.Raw().Write(words) // a courtesy; the connection ends anyway
	_ = c.wire.Raw().Close()
}

// panicked reports a session that ends by a failure of the program, and tells the client to
// try again: its message was not accepted, unless it was told so before. Deferred calls have
// removed what the session had stored.
func (c *session) panicked(err error) {
	c.srv.metrics.panics.Inc()
	attrs := []slog.Attr{slog.Any("error", err), c.clientIP()}
	if p := (*supervise.PanicError)(nil); errors.As(err, &p) {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	c.emit(slog.LevelError, "session failed", attrs...)
	if c.phase != phaseTLS { // then the client expects TLS
		c.wire.Out = replyDownSession.AppendWire(c.wire.Out)
	}
	c.wire.Farewell()
}

// stopSessions sends idle sessions away, waits for those in DATA as long as
// stop_timeout says, and closes the connections of what is left.
func (s *Server) stopSessions(transactions bool) {
	grace := s.current().cfg.StopTimeout
	s.halt.Set(time.Now().Add(grace), transactions)
	close(s.stopped)
	s.end()
	s.mu.Lock()
	s.stopping = true
	if len(s.sessions) == 0 {
		close(s.idle)
	}
	for _, c := range s.sessions {
		c.wire.Poke()
	}
	s.mu.Unlock()

	over := time.NewTimer(grace + wire.LastWords)
	defer over.Stop()
	select {
	case <-s.idle:
		return
	case <-over.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		c.wire.Abort() // wakes it up
	}
}

// serveStatus answers the status port until ctx ends.
func (s *Server) serveStatus(ctx context.Context) error {
	port := s.deps.Status
	if port == nil {
		port = s.deps.Ports.Status["smtps"]
	}
	requests, stop := port.Open()
	defer stop()
	for {
		select {
		case r := <-requests:
			a := s.current().status()
			if r.Q.Close != "" {
				a.Closed = s.closeSession(r.Q.Close)
			}
			a.Connections = s.connections(r.Q.Connections)
			r.Answer(a)
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) status() msg.StatusA {
	s.mu.Lock()
	open, peak, stopping, listeners := len(s.sessions), s.peak, s.stopping, slices.Clone(s.listeners)
	stressed, idle := s.crowd.Stressed(), s.crowd.IdleTime()
	s.mu.Unlock()
	a := msg.StatusA{Module: "smtps"}
	add := func(v ...msg.StatusValue) { a.Values = append(a.Values, v...) }
	if s.deps.Name != "" {
		add(msg.StatusValue{Name: "name", Text: s.deps.Name})
	}
	for _, l := range listeners {
		add(msg.StatusValue{Name: "listen", Text: l.Addr().String()})
	}
	add(
		msg.StatusValue{Name: "sessions", Number: int64(open)},
		msg.StatusValue{Name: "sessions_peak", Number: int64(peak)},
		msg.StatusValue{Name: "sessions_max", Number: int64(s.cfg.ThreadsMax)},
		msg.StatusValue{Name: "stress", Text: strconv.FormatBool(stressed)},
		msg.StatusValue{Name: "idle_max", Text: idle.Round(time.Second).String()},
		msg.StatusValue{Name: "stopping", Text: strconv.FormatBool(stopping)},
	)
	add(s.metrics.values()...)
	return a
}
