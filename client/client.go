package client

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/client/auth"
	"meta1/client/metrics"
	"meta1/client/tlspolicy"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/mta/tracing"
)

// Deps is what SMTPC is joined to. Ports, Hostname and TLS are required.
type Deps struct {
	Ports   *msg.Ports
	Log     *slog.Logger          // nil: nothing is logged
	Metrics prometheus.Registerer // nil: counted, but not shown
	// Hostname is our name in EHLO, HELO and LHLO.
	Hostname string
	// Dial opens a connection: network is "tcp" or "unix". It must obey ctx. Nil is
	// net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialFrom opens a TCP connection from a local address (README 3.8, item 16i). An
	// error of bind(2) must be in it as net has it. It must obey ctx. Nil is net.Dialer.
	DialFrom func(ctx context.Context, source netip.Addr, addr string) (net.Conn, error)
	// TLS is what section tls gives, TLSClasses what the sections session_features do of
	// which section tls differs from it, by their names.
	TLS        *tlsconf.Provider
	TLSClasses map[string]*tlsconf.Provider
	// Roots are the authorities that are trusted for hosts under an MTA-STS policy; nil: those
	// of the system.
	Roots *x509.CertPool
	// ReadFile reads the file with a token that a section auth names, with root's help where
	// only root may. Nil reads with the rights of this process.
	ReadFile func(path string) ([]byte, error)
	// TLSReports counts sessions for reports about TLS (RFC 8460); nil: nobody does.
	TLSReports msg.TLSCounter
	// Tracer is told of attempts to deliver; nil: nothing is traced.
	Tracer *tracing.Tracer
	// ReuseConnections keeps a connection open for a while for the next transaction
	// (QMGR's flag reuse_connection, README 3.8).
	ReuseConnections bool
	// TransactionsPerSession bounds the transactions of one connection (QMGR's option
	// transactions_per_session_max); 0 is no bound.
	TransactionsPerSession int
	// Process is the number of the process in identifiers (README 10.3).
	Process uint8
}

// Client is SMTPC, as one configuration has it. It does nothing before Run. A reload makes another
// Client that has the same hall; deliveries keep the Client with which they began.
type Client struct {
	*hall
	cfg      Config
	deps     Deps
	limits   timeouts
	eight    eightBit
	classes  map[string]*class
	leaving  map[string]leaving // classes that a reload has taken out; of them no delivery is planned any more
	failures *tlspolicy.Failures
}

// hall is what SMTPC has whatever its configuration says: its workers and connections.
type hall struct {
	now      atomic.Pointer[Client] // for the deliveries that begin now
	ports    *msg.Ports
	log      *slog.Logger
	metrics  *metrics.Metrics
	hostname string
	process  uint8
	pool     *pool
	refusals auth.Refusals
	// converting is of all deliveries together.
	converting budget

	counter atomic.Uint32 // of identifiers
	threads atomic.Int32  // workers
	waiting atomic.Int32  // workers that wait for a request
	thread  atomic.Uint32 // number of the last worker
	fewer   signal        // there may be too many workers

	requests <-chan *request
	group    *supervise.Group // workers, dials; set by Run
	stopping <-chan struct{}  // closed when no new delivery may begin

	mu      sync.Mutex // guards running
	running bool       // Run has begun, and group takes goroutines
}

type request = msg.Request[msg.DeliverQ, msg.DeliverA]

// New makes the client. It starts nothing. A Client runs once.
func New(cfg Config, deps Deps) *Client {
	if deps.Dial == nil {
		// Our own deadlines end dead connections; the probes of TCP cost four more
		// system calls for each connection.
		deps.Dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	if deps.DialFrom == nil {
		deps.DialFrom = dialFrom
	}
	if deps.ReadFile == nil {
		deps.ReadFile = readAccountsFile
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	cfg = cfg.withDefaults()
	h := &hall{
		ports:    deps.Ports,
		log:      deps.Log,
		metrics:  metrics.New(deps.Metrics),
		hostname: strings.TrimSuffix(deps.Hostname, "."),
		process:  deps.Process,
		pool:     newPool(cfg),
	}
	h.fewer.renew()
	c := h.furnish(cfg, deps)
	c.failures = tlspolicy.NewFailures()
	h.now.Store(c)
	return c
}

// furnish makes the Client of a configuration. Nobody sees it yet.
func (h *hall) furnish(cfg Config, deps Deps) *Client {
	return &Client{
		hall: h, cfg: cfg, deps: deps,
		limits:  newTimeouts(cfg.ConnectTimeout, cfg.IOTimeout),
		eight:   eightBit{cfg.Without8BITMIME, &h.converting},
		classes: cfg.classes(&deps),
	}
}

// Run serves the ports Deliver and Status["smtpc"] until ctx ends or something breaks
// that must not. At the end running deliveries may finish within stop_timeout; then
// their connections are closed. It returns when all goroutines have ended.
func (h *hall) Run(ctx context.Context) error {
	requests, stopDeliver := h.ports.Deliver.Open()
	defer stopDeliver()
	status, stopStatus := h.ports.Status["smtpc"].Open()
	defer stopStatus()

	h.requests = requests
	h.stopping = ctx.Done()
	h.group = supervise.NewGroup(context.WithoutCancel(ctx))
	h.pool.life = h.group.Context()
	h.setRunning(true)
	h.group.Go(func(life context.Context) error { return h.stop(ctx, life) })
	h.group.Go(func(life context.Context) error { return h.sweep(ctx, life, status) })
	h.startWorker()
	return h.group.Wait()
}

// setRunning notes whether a reload concerns workers and connections.
func (h *hall) setRunning(running bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = running
}

// stop waits for the end of ctx, or of the group, and sees to it that all else ends.
func (h *hall) stop(ctx, life context.Context) error {
	select {
	case <-ctx.Done():
	case <-life.Done(): // something broke: no grace
	}
	h.setRunning(false)
	h.hangUpAll(h.pool.stop())
	h.await(life, h.now.Load().cfg.StopTimeout)
	h.group.Stop()
	h.pool.abortAll()
	return nil
}

// hangUpAll says QUIT on connections, each in a goroutine of its own.
func (h *hall) hangUpAll(list []*conn) {
	for _, cn := range list {
		h.group.Go(func(context.Context) error {
			h.hangUp(cn, cn.class.readQuit)
			return nil
		})
	}
}

// await waits until no connection works any more, but not longer than limit.
func (h *hall) await(life context.Context, limit time.Duration) {
	end := time.NewTimer(limit)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for h.busy() {
		select {
		case <-life.Done():
			return
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

// busy reports that a delivery or a dial runs.
func (h *hall) busy() bool {
	_, busy, hops := h.pool.counts()
	return busy > 0 || hops > 0 || h.threads.Load() > h.waiting.Load()
}

// sweep closes connections that were idle for too long, aborts those whose request
// has ended, and answers questions for the status.
func (h *hall) sweep(ctx, life context.Context, status <-chan *msg.Request[msg.StatusQ, msg.StatusA]) error {
	tick := time.NewTicker(min(sweepEvery, h.now.Load().cfg.IdleTimeout)) // an option gives no less than sweepEvery
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-life.Done():
			return nil
		case r := <-status:
			a := h.status()
			if r.Q.Close != "" {
				a.Closed = h.closeConnection(r.Q.Close)
			}
			a.Connections = h.pool.connections(r.Q.Connections)
			r.Answer(a)
		case now := <-tick.C:
			h.hangUpAll(h.pool.sweep(now))
			idle, busy, _ := h.pool.counts()
			h.metrics.Connections(idle, busy, int(h.threads.Load()))
		}
	}
}

// hangUp says QUIT and closes a connection, which is busy until then. With wait it
// waits for the reply, after which the host counts one connection less.
func (h *hall) hangUp(cn *conn, wait bool) {
	cn.Quit(h.now.Load().limits.quit, wait)
	h.pool.forget(cn)
}

// status is the snapshot for meta1 ctl status.
func (h *hall) status() msg.StatusA {
	idle, busy, _ := h.pool.counts()
	threads, waiting := h.threads.Load(), h.waiting.Load()
	return msg.StatusA{Module: "smtpc", Values: []msg.StatusValue{
		{Name: "deliveries_running", Number: int64(max(threads-waiting, 0))},
		{Name: "threads", Number: int64(threads)},
		{Name: "threads_max", Number: int64(h.now.Load().cfg.ThreadsMax)},
		{Name: "connections_busy", Number: int64(busy)},
		{Name: "connections_busy_peak", Number: int64(h.pool.peak())},
		{Name: "connections_idle", Number: int64(idle)},
		{Name: "connections_opened", Number: h.metrics.Opened.N()},
		{Name: "transactions", Number: h.metrics.Transactions.N()},
		{Name: "recipients_delivered", Number: h.metrics.Delivered.N()},
		{Name: "recipients_deferred", Number: h.metrics.Deferred.N()},
		{Name: "recipients_failed", Number: h.metrics.Failed.N()},
	}}
}
