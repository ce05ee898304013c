package client

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// Deps is what SMTPC is joined to. Ports and Hostname are required.
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
	pool     *pool
	classes  map[string]*class

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
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	cfg = cfg.withDefaults()
	return &Client{
		cfg:      cfg,
		deps:     deps,
		log:      deps.Log,
		metrics:  newMetrics(deps.Metrics),
		hostname: strings.TrimSuffix(deps.Hostname, "."),
		limits:   newTimeouts(cfg.ConnectTimeout, cfg.IOTimeout),
		pool:     newPool(cfg),
		classes:  cfg.classes(),
	}
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
			cn.quit(c.limits.quit, cn.class.readQuit)
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
			r.Answer(c.status())
		case now := <-tick.C:
			for _, cn := range c.pool.sweep(now) {
				c.group.Go(func(context.Context) error {
					cn.quit(c.limits.quit, cn.class.readQuit)
					return nil
				})
			}
			idle, busy, _ := c.pool.counts()
			c.metrics.connections(idle, busy, int(c.threads.Load()))
		}
	}
}

// status is the snapshot for meta1 ctl status.
func (c *Client) status() msg.StatusA {
	idle, busy, _ := c.pool.counts()
	threads, waiting := c.threads.Load(), c.waiting.Load()
	return msg.StatusA{Module: "smtpc", Values: []msg.StatusValue{
		{Name: "deliveries_running", Value: strconv.Itoa(int(max(threads-waiting, 0)))},
		{Name: "threads", Value: strconv.Itoa(int(threads))},
		{Name: "threads_max", Value: strconv.Itoa(c.cfg.ThreadsMax)},
		{Name: "connections_busy", Value: strconv.Itoa(busy)},
		{Name: "connections_idle", Value: strconv.Itoa(idle)},
		{Name: "connections_opened", Value: c.metrics.opened.String()},
		{Name: "transactions", Value: c.metrics.transactions.String()},
		{Name: "recipients_delivered", Value: c.metrics.delivered.String()},
		{Name: "recipients_deferred", Value: c.metrics.deferred.String()},
		{Name: "recipients_failed", Value: c.metrics.failed.String()},
	}}
}
