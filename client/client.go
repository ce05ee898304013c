package client

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/client/auth"
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

// Client is SMTPC. It does nothing before Run.
type Client struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	metrics  *metrics
	hostname string
	limits   timeouts
	eight    eightBit
	pool     *pool
	classes  map[string]*class
	failures *tlspolicy.Failures
	refusals auth.Refusals

	counter atomic.Uint32 // of identifiers
	threads atomic.Int32  // workers
	waiting atomic.Int32  // workers that wait for a request
	thread  atomic.Uint32 // number of the last worker

	requests <-chan *request
	group    *supervise.Group // workers, dials; set by Run
	stopping <-chan struct{}  // closed when no new delivery may begin
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
	c := &Client{
		cfg:      cfg,
		deps:     deps,
		log:      deps.Log,
		metrics:  newMetrics(deps.Metrics),
		hostname: strings.TrimSuffix(deps.Hostname, "."),
		limits:   newTimeouts(cfg.ConnectTimeout, cfg.IOTimeout),
		pool:     newPool(cfg),
		classes:  cfg.classes(&deps),
		failures: tlspolicy.NewFailures(),
	}
	c.eight.mode = cfg.Without8BITMIME
	return c
}

// Run serves the ports Deliver and Status["smtpc"] until ctx ends or something breaks
// that must not. At the end running deliveries may finish within stop_timeout; then
// their connections are closed. It returns when all goroutines have ended.
func (c *Client) Run(ctx context.Context) error {
	requests, stopDeliver := c.deps.Ports.Deliver.Open()
	defer stopDeliver()
	status, stopStatus := c.deps.Ports.Status["smtpc"].Open()
	defer stopStatus()

	c.requests = requests
	c.stopping = ctx.Done()
	c.group = supervise.NewGroup(context.WithoutCancel(ctx))
	c.pool.life = c.group.Context()
	c.group.Go(func(life context.Context) error { return c.stop(ctx, life) })
	c.group.Go(func(life context.Context) error { return c.sweep(ctx, life, status) })
	c.startWorker()
	return c.group.Wait()
}

// stop waits for the end of ctx, or of the group, and sees to it that all else ends.
func (c *Client) stop(ctx, life context.Context) error {
	select {
	case <-ctx.Done():
	case <-life.Done(): // something broke: no grace
	}
	for _, cn := range c.pool.stop() {
		c.group.Go(func(context.Context) error {
			c.hangUp(cn, cn.class.readQuit)
			return nil
		})
	}
	c.await(life, c.cfg.StopTimeout)
	c.group.Stop()
	c.pool.abortAll()
	return nil
}

// await waits until no connection works any more, but not longer than limit.
func (c *Client) await(life context.Context, limit time.Duration) {
	end := time.NewTimer(limit)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for c.busy() {
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
func (c *Client) busy() bool {
	_, busy, hops := c.pool.counts()
	return busy > 0 || hops > 0 || c.threads.Load() > c.waiting.Load()
}

// sweep closes connections that were idle for too long, aborts those whose request
// has ended, and answers questions for the status.
func (c *Client) sweep(ctx, life context.Context, status <-chan *msg.Request[msg.StatusQ, msg.StatusA]) error {
	tick := time.NewTicker(min(sweepEvery, c.cfg.IdleTimeout))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-life.Done():
			return nil
		case r := <-status:
			a := c.status()
			if r.Q.Close != "" {
				a.Closed = c.closeConnection(r.Q.Close)
			}
			a.Connections = c.pool.connections(r.Q.Connections)
			r.Answer(a)
		case now := <-tick.C:
			for _, cn := range c.pool.sweep(now) {
				c.group.Go(func(context.Context) error {
					c.hangUp(cn, cn.class.readQuit)
					return nil
				})
			}
			idle, busy, _ := c.pool.counts()
			c.metrics.connections(idle, busy, int(c.threads.Load()))
		}
	}
}

// hangUp says QUIT and closes a connection, which is busy until then. With wait it
// waits for the reply, after which the host counts one connection less.
func (c *Client) hangUp(cn *conn, wait bool) {
	cn.quit(c.limits.quit, wait)
	c.pool.forget(cn)
}

// status is the snapshot for meta1 ctl status.
func (c *Client) status() msg.StatusA {
	idle, busy, _ := c.pool.counts()
	threads, waiting := c.threads.Load(), c.waiting.Load()
	return msg.StatusA{Module: "smtpc", Values: []msg.StatusValue{
		{Name: "deliveries_running", Number: int64(max(threads-waiting, 0))},
		{Name: "threads", Number: int64(threads)},
		{Name: "threads_max", Number: int64(c.cfg.ThreadsMax)},
		{Name: "connections_busy", Number: int64(busy)},
		{Name: "connections_busy_peak", Number: int64(c.pool.peak())},
		{Name: "connections_idle", Number: int64(idle)},
		{Name: "connections_opened", Number: c.metrics.opened.n.Load()},
		{Name: "transactions", Number: c.metrics.transactions.n.Load()},
		{Name: "recipients_delivered", Number: c.metrics.delivered.n.Load()},
		{Name: "recipients_deferred", Number: c.metrics.deferred.n.Load()},
		{Name: "recipients_failed", Number: c.metrics.failed.n.Load()},
	}}
}
