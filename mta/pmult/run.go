package pmult

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meta1/mta/account"
	"meta1/mta/listen"
	"meta1/mta/supervise"
	"meta1/pmilter"
	"meta1/server/milter"
)

// Options of Run.
type Options struct {
	Config  *Loaded
	Version string
	Log     *slog.Logger
	// Reload gives a configuration to go on with. What it has of sockets, accounts, the log and
	// numbers of threads and connections is of no effect before the next start.
	Reload <-chan *Loaded
	// Ready is called when all sockets are bound and the privileges dropped; nil for nothing.
	Ready func()
	// Listener takes the place of the socket of the configuration; nil for that.
	Listener net.Listener
	// TempDir is where large messages are kept; "" for the system's folder.
	TempDir string
}

// setup is what a session works with: it stays the same until the session's end.
type setup struct {
	cfg     Config
	filters []*milter.Filter
	symbols map[string]pmilter.Macro
}

// mux is the multiplexer.
type mux struct {
	o       Options
	log     *slog.Logger
	memory  *memory
	turns   chan struct{} // nil: no limit
	now     atomic.Pointer[setup]
	metrics metrics
}

// content makes an empty one.
func (m *mux) content() *content { return &content{memory: m.memory, dir: m.o.TempDir} }

// metrics are what Prometheus is told.
type metrics struct {
	sessions    prometheus.Counter
	verdicts    *prometheus.CounterVec
	connections *prometheus.CounterVec
	errors      *prometheus.CounterVec
	replies     *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
}

func (m *metrics) count(what string) { m.verdicts.WithLabelValues(what).Inc() }

func newMetrics(r prometheus.Registerer) metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "meta1", Subsystem: "pmult", Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	m := metrics{
		verdicts:    counter("verdicts_total", "What filters have decided in the end: refuse, discard, change.", "verdict"),
		connections: counter("client_connections_total", "Connections to filters.", "client"),
		errors:      counter("client_errors_total", "Failures of filters.", "client"),
		replies:     counter("client_verdicts_total", "Verdicts of filters.", "client", "verdict"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "meta1", Subsystem: "pmult", Name: "client_seconds", Help: "How long a filter was waited for, for each step of a session.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"client"}),
		sessions: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "meta1", Subsystem: "pmult", Name: "sessions_total", Help: "SMTP sessions."}),
	}
	r.MustRegister(m.seconds, m.sessions)
	return m
}

// of are the metrics of one filter.
func (m *metrics) of(client string) milter.Metrics {
	l := prometheus.Labels{"client": client}
	return milter.Metrics{
		Connections: m.connections.With(l), Errors: m.errors.With(l),
		Verdicts: m.replies.MustCurryWith(l), Seconds: m.seconds.With(l),
	}
}

// Error is a failure to start, by its kind.
type Error struct {
	Kind ErrorKind
	Err  error
}

// ErrorKind is why pmult does not start.
type ErrorKind uint8

// The kinds.
const (
	CannotListen ErrorKind = iota
	NoAccount
	NoFile
)

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Run serves until ctx ends. It returns when all that it started has ended. An *Error says
// why it could not begin.
func Run(ctx context.Context, o Options) error {
	m := &mux{o: o, log: o.Log, memory: &memory{}}
	registry := prometheus.NewRegistry()
	m.metrics = newMetrics(registry)
	cfg := &o.Config.Config
	if cfg.Threads > 0 {
		m.turns = make(chan struct{}, cfg.Threads)
	}
	m.use(o.Config)
	defer func() { m.now.Load().close() }()

	l, web, err := m.begin(cfg)
	if err != nil {
		return err
	}
	global, err := pmilter.New(m.callbacks())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	global.SetLog(m.log)
	global.SetDebug(cfg.PmilterDebug)
	group := supervise.NewGroup(ctx)
	group.Go(func(ctx context.Context) error {
		defer group.Stop()
		return global.Serve(ctx, &limited{Listener: l, room: make(chan struct{}, cfg.Servers), done: ctx.Done()})
	})
	group.Go(func(ctx context.Context) error { m.reload(ctx); return nil })
	if web != nil {
		m.serveMetrics(group, web, registry)
	}
	m.log.LogAttrs(ctx, slog.LevelInfo+2, "pmult started", slog.String("version", o.Version), slog.String("listen", l.Addr().String()), slog.Int("clients", len(cfg.Clients)))
	if o.Ready != nil {
		o.Ready()
	}
	err = group.Wait()
	if cfg.PidFile != "" {
		_ = os.Remove(cfg.PidFile) // an old one names a process that is gone
	}
	m.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo+2, "pmult stopped", slog.Any("error", err))
	return err
}

// begin binds the sockets, writes the pidfile and drops the privileges.
func (m *mux) begin(cfg *Config) (l, web net.Listener, err error) {
	var a *account.Account
	if cfg.User != "" {
		if a, err = account.Lookup(cfg.User, ""); err != nil {
			return nil, nil, &Error{NoAccount, err}
		}
		a.Groups = []int{a.GID} // and those of the configuration, as mailfromd does
		for _, name := range cfg.Groups {
			gid, err := account.Group(name)
			if err != nil {
				return nil, nil, &Error{NoAccount, err}
			}
			a.Groups = append(a.Groups, gid)
		}
	}
	if l = m.o.Listener; l == nil {
		if l, err = bind(cfg.Listen, "listen", a); err != nil {
			return nil, nil, &Error{CannotListen, err}
		}
	}
	if cfg.Metrics.Network != "" {
		if web, err = bind(cfg.Metrics, "metrics", a); err != nil {
			return nil, nil, &Error{CannotListen, errors.Join(err, l.Close())}
		}
	}
	if cfg.PidFile != "" {
		if err := writePid(cfg.PidFile, a); err != nil {
			return nil, nil, &Error{NoFile, errors.Join(err, l.Close())}
		}
	}
	switch {
	case a != nil && os.Geteuid() == 0:
		err = a.Become()
	case a != nil && a.UID != os.Geteuid():
		err = fmt.Errorf("only root can take the rights of user %s", a.Name)
	case os.Geteuid() == 0:
		m.log.Warn("pmult runs as root: the statement user names another account")
	}
	if err != nil {
		return nil, nil, &Error{NoAccount, errors.Join(err, l.Close())}
	}
	return l, web, nil
}

// bind binds a socket. One of Unix is for the account, and for its group.
func bind(addr Address, what string, a *account.Account) (l net.Listener, err error) {
	s := listen.Socket{Network: addr.Network, Host: addr.Host, Port: addr.Port, Path: addr.Path, Mode: 0o660, UID: -1, GID: -1, Section: Program, Where: what}
	if a != nil && os.Geteuid() != 0 {
		a = nil
	}
	err = a.Do(func() error {
		l, err = listen.Bind(s)
		return err
	})
	return l, err
}

// writePid writes the process id.
func writePid(path string, a *account.Account) error {
	if a != nil && os.Geteuid() != 0 {
		a = nil
	}
	err := a.Do(func() error { return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644) })
	if err != nil {
		return fmt.Errorf("writing the pidfile: %w", err)
	}
	return nil
}

// use makes filters of a configuration, for sessions that begin from now on.
func (m *mux) use(l *Loaded) {
	s := &setup{cfg: l.Config, symbols: l.symbols()}
	for i := range l.Clients {
		c := &l.Clients[i]
		network := cmp.Or(c.Address.Network, "unix")
		s.filters = append(s.filters, milter.New(
			milter.Config{Name: c.Name, Network: network, Address: c.Address.String(), Timeouts: c.Timeouts, Failure: c.Failure, Kept: c.Kept},
			milter.Deps{Log: slog.New(leveled{m.log.Handler(), c.Levels}), Metrics: m.metrics.of(c.Name)},
		))
	}
	if old := m.now.Swap(s); old != nil {
		old.close()
	}
}

// close gives up idle connections. Sessions that go on keep theirs.
func (s *setup) close() {
	for _, f := range s.filters {
		f.Close()
	}
}

// reload takes new configurations.
func (m *mux) reload(ctx context.Context) {
	for {
		select {
		case l, ok := <-m.o.Reload:
			if !ok {
				return
			}
			m.use(l)
			m.log.LogAttrs(ctx, slog.LevelInfo+2, "configuration was read again", slog.Int("clients", len(l.Clients)))
		case <-ctx.Done():
			return
		}
	}
}

// serveMetrics serves /metrics.
func (m *mux) serveMetrics(group *supervise.Group, l net.Listener, registry *prometheus.Registry) {
	handler := http.NewServeMux()
	handler.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	group.Go(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving metrics: %w", err)
		}
		return nil
	})
}

// limited is a listener that lets a number of connections be open.
type limited struct {
	net.Listener
	room chan struct{}
	done <-chan struct{}
}

// Accept waits until there is room.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, room: l.room}, nil
}

type limitedConn struct {
	net.Conn
	room   chan struct{}
	closed atomic.Bool
}

func (c *limitedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		<-c.room
	}
	return c.Conn.Close()
}
