package milter

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stage is an event about which filters are asked. The first seven are libmilter's stages of
// macros (SMFIM_*), by number.
type Stage uint8

// The stages.
const (
	StageConnect Stage = iota
	StageHelo
	StageMail
	StageRcpt
	StageData
	StageEOM
	StageEOH
	StageUnknown
	stages
)

// MacroStages is the number of stages that have macros of their own.
const MacroStages = int(StageEOH) + 1

func (s Stage) String() string {
	return [...]string{"connect", "helo", "mail", "rcpt", "data", "eom", "eoh", "unknown"}[s]
}

// Failure says what becomes of a client when a filter fails.
type Failure uint8

// The words of the option flags; Ignore is none of them.
const (
	// Ignore goes on without the filter for the rest of the session. After a connection that
	// failed the filter is left alone for a while.
	Ignore Failure = iota
	// Reconnect is Ignore, but the next session connects in any case.
	Reconnect
	AbortSession // 421
	Tempfail     // 451 for the command, and for each transaction as long as the filter fails
	Reject       // 550 in the same way
	Quarantine   // the message is accepted and held
)

// Timeouts bound the waits for a filter. All but End and Write are positive.
type Timeouts struct {
	Connect  time.Duration // until the filter has negotiated
	Command  time.Duration // the reply to a command, and to one header
	Content  time.Duration // the reply to a piece of the body and to its end
	End      time.Duration // the reply to the end of the message; 0: Content
	Write    time.Duration // sending; 0: as long as the reply to what is sent
	Progress time.Duration // the whole of the end of a message, however often the filter says that it goes on
}

// Config is one filter.
type Config struct {
	Name     string
	Network  string // "tcp" or "unix"
	Address  string
	Timeouts Timeouts
	Failure  Failure
	Version  uint32 // highest version that is offered; 0: 6
	Kept     int    // idle connections that are kept for the next session
	// Macros are sent to filters that do not say which they want; nil of a stage: the usual ones.
	Macros [MacroStages][]string
}

// Metrics are those of one filter. Nil fields are not counted.
type Metrics struct {
	Connections prometheus.Counter
	Errors      prometheus.Counter
	Verdicts    *prometheus.CounterVec // by verdict
	Seconds     prometheus.Observer    // of all that a filter was waited for, by session event
}

// Deps are what a Filter needs.
type Deps struct {
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network
	Log     *slog.Logger
	Metrics Metrics
}

// Filter is one filter program. Its methods may be called by any goroutine.
type Filter struct {
	cfg  Config
	deps Deps

	mu     sync.Mutex // guards the following
	idle   []*conn    // the last is the youngest
	closed bool       // no connection is kept
	sulks  time.Time  // until then Ignore does not connect

	pieces sync.Pool // *[]byte of bodyPiece bytes
}

const (
	// keptMax is how long an idle connection is kept: much less than libmilter's own timeout of
	// two hours, so that a filter that was replaced does not live on for the sake of it.
	keptMax = time.Minute
	// sulkTime is how long Ignore leaves a filter alone to which no connection could be made.
	sulkTime = 10 * time.Second
)

// New makes a filter. It connects to nothing.
func New(cfg Config, deps Deps) *Filter {
	if deps.Dial == nil {
		deps.Dial = (&net.Dialer{}).DialContext
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Filter{cfg: cfg, deps: deps}
}

// Name is the filter's name in the configuration.
func (f *Filter) Name() string { return f.cfg.Name }

// Config is what New was given. Nobody may change it.
func (f *Filter) Config() Config { return f.cfg }

// Close gives up the connections that are kept, and those that come back later.
func (f *Filter) Close() {
	f.mu.Lock()
	idle := f.idle
	f.idle, f.closed = nil, true
	f.mu.Unlock()
	for _, c := range idle {
		c.quit()
	}
}

var errSulk = errors.New("the filter could not be connected to a moment ago")

// get gives a connection that has negotiated: an idle one if fresh is not set, or a new one.
func (f *Filter) get(ctx context.Context, fresh bool) (*conn, error) {
	if !fresh {
		if c := f.takeIdle(time.Now()); c != nil && c.renew(ctx) {
			return c, nil
		}
	}
	f.mu.Lock()
	sulks := f.cfg.Failure == Ignore && time.Now().Before(f.sulks)
	f.mu.Unlock()
	if sulks {
		return nil, errSulk
	}
	c, err := f.connect(ctx)
	if err != nil {
		f.mu.Lock()
		f.sulks = time.Now().Add(sulkTime)
		f.mu.Unlock()
	}
	return c, err
}

// takeIdle gives the youngest idle connection, nil if there is none that is young enough.
func (f *Filter) takeIdle(now time.Time) *conn {
	f.mu.Lock()
	var old []*conn
	for len(f.idle) > 0 && now.Sub(f.idle[0].since) > keptMax {
		old, f.idle = append(old, f.idle[0]), f.idle[1:]
	}
	var c *conn
	if n := len(f.idle); n > 0 {
		c, f.idle = f.idle[n-1], f.idle[:n-1]
	}
	f.mu.Unlock()
	for _, c := range old {
		c.quit()
	}
	return c
}

// put takes a connection back whose SMTP session is over. It is kept if the filter knows how
// to begin another session on it.
func (f *Filter) put(c *conn) {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if closed || c.version < 6 || f.cfg.Kept == 0 || c.again() != nil {
		c.quit()
		return
	}
	c.since, c.used = time.Now(), true
	f.mu.Lock()
	var out *conn
	switch {
	case f.closed:
		out = c
	case len(f.idle) >= f.cfg.Kept:
		out, f.idle = f.idle[0], append(f.idle[1:], c)
	default:
		f.idle = append(f.idle, c)
	}
	f.mu.Unlock()
	if out != nil {
		out.quit()
	}
}

// connect makes a connection and negotiates.
func (f *Filter) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeouts.Connect)
	defer cancel()
	nc, err := f.deps.Dial(ctx, f.cfg.Network, f.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if f.deps.Metrics.Connections != nil {
		f.deps.Metrics.Connections.Inc()
	}
	c := &conn{filter: f, nc: nc, r: bufio.NewReaderSize(nc, pieceFirst)}
	if err := c.negotiate(ctx); err != nil {
		_ = nc.Close() // the first error counts
		return nil, fmt.Errorf("negotiating: %w", err)
	}
	return c, nil
}

// renewMax bounds the wait for a filter to begin again on a connection that was kept.
const renewMax = 2 * time.Second

// renew negotiates again on a connection that was kept. It reports false, and gives the
// connection up, if the filter is not there any more. One that does not answer does not know
// how to begin again, though it should (OpenDKIM with libmilter 8.17 does not): then no
// connection to this filter is kept any more.
func (c *conn) renew(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, renewMax)
	defer cancel()
	err := c.negotiate(ctx)
	if err == nil {
		return true
	}
	_ = c.nc.Close() // another one is made
	if f := c.filter; errors.Is(err, os.ErrDeadlineExceeded) {
		f.deps.Log.LogAttrs(ctx, slog.LevelWarn, "milter does not take another session on a connection: none is kept any more", slog.String("milter", f.cfg.Name))
		f.mu.Lock()
		f.closed = true
		f.mu.Unlock()
	}
	return false
}

// conn is one connection to a filter. One goroutine at a time uses it.
type conn struct {
	filter *Filter
	nc     net.Conn
	r      *bufio.Reader
	in     bytes.Buffer
	out    []byte // not written yet

	version, actions, protocol uint32
	macros                     [MacroStages][]string // that the filter wants; nil: it did not say

	since time.Time // when it became idle
	used  bool      // a session was held on it before
}

// symbolsMax bounds the macros that a filter asks for at one stage.
const symbolsMax = 256

// negotiate agrees on version and options (SMFIC_OPTNEG).
func (c *conn) negotiate(ctx context.Context) error {
	version, actions, protocol := cmp.Or(c.filter.cfg.Version, versionMax), uint32(actionsV6), uint32(protocolV6)
	if version < 6 {
		actions, protocol = actionsV2, protocolV2
	}
	data := binary.BigEndian.AppendUint32(nil, version)
	data = binary.BigEndian.AppendUint32(data, actions)
	data = binary.BigEndian.AppendUint32(data, protocol)
	c.out = appendPacket(c.out, cmdOptions, data)
	deadline, _ := ctx.Deadline()
	if err := c.flush(ctx, deadline); err != nil {
		return err
	}
	p, err := c.read(ctx, deadline)
	if err != nil {
		return err
	}
	if p.kind != cmdOptions {
		return fmt.Errorf("the filter answers %q", p.kind)
	}
	return c.agree(p.data, version, actions, protocol)
}

// agree reads what the filter wants. It may want only what was offered.
func (c *conn) agree(data []byte, version, actions, protocol uint32) (err error) {
	c.macros = [MacroStages][]string{}
	for _, v := range []*uint32{&c.version, &c.actions, &c.protocol} {
		if *v, data, err = cutNumber(data); err != nil {
			return err
		}
	}
	switch {
	case c.version < versionMin || c.version > version:
		return fmt.Errorf("the filter wants version %d; %d to %d are known", c.version, versionMin, version)
	case c.actions&^actions != 0:
		return fmt.Errorf("the filter wants actions 0x%x that were not offered", c.actions&^actions)
	case c.protocol&^protocol != 0:
		return fmt.Errorf("the filter wants protocol flags 0x%x that were not offered", c.protocol&^protocol)
	}
	for len(data) > 0 {
		var stage uint32
		var list string
		if stage, data, err = cutNumber(data); err == nil {
			list, data, err = cutString(data)
		}
		if err != nil {
			return err
		}
		if stage < uint32(MacroStages) {
			names := strings.Fields(list)
			c.macros[stage] = append([]string{}, names[:min(len(names), symbolsMax)]...)
		}
	}
	return nil
}

// arm sets the time limit of what follows.
func (c *conn) arm(ctx context.Context, deadline time.Time) error {
	if err := c.nc.SetDeadline(deadline); err != nil {
		return err
	}
	return context.Cause(ctx) // the end of ctx sets a deadline that has passed, perhaps before ours
}

// send writes what is collected, before a wait of d for the reply.
func (c *conn) send(ctx context.Context, d time.Duration) error {
	return c.flush(ctx, time.Now().Add(cmp.Or(c.filter.cfg.Timeouts.Write, d)))
}

// flush writes what is collected.
func (c *conn) flush(ctx context.Context, deadline time.Time) error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.arm(ctx, deadline); err != nil {
		return err
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > 2*dataMax {
		c.out = nil
	}
	return err
}

// read reads one message.
func (c *conn) read(ctx context.Context, deadline time.Time) (packet, error) {
	if err := c.arm(ctx, deadline); err != nil {
		return packet{}, err
	}
	return readPacket(c.r, &c.in)
}

// lastWords bounds how long a farewell may take.
const lastWords = time.Second

// say writes something that has no reply.
func (c *conn) say(kinds ...byte) error {
	for _, k := range kinds {
		c.out = appendPacket(c.out, k, nil)
	}
	return c.flush(context.Background(), time.Now().Add(lastWords))
}

// again tells the filter that another SMTP session follows.
func (c *conn) again() error {
	if c.r.Buffered() > 0 {
		return errors.New("the filter has said something unasked")
	}
	return c.say(cmdNextSMTP)
}

// quit ends the connection.
func (c *conn) quit() {
	_ = c.say(cmdQuit) // it ends either way
	_ = c.nc.Close()
}
