package pmilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	wire "meta1/pmilter"

	"meta1/mta/supervise"
)

const (
	// heldMax bounds the changes of all messages whose answer has not come yet, in bytes.
	heldMax = 64 << 20
	// lastWords bounds how long a farewell may take.
	lastWords = time.Second
)

var (
	errSilent = errors.New("it does not answer")
	errSlow   = errors.New("it does not answer in time, though it answers other sessions")
	errFull   = errors.New("there are too many sessions on its connection")
	errNumber = errors.New("the numbers of sessions are used up")
	errHeld   = errors.New("it wants too many changes at a time")
	errAsked  = errors.New("it says something unasked")
	errLeft   = errors.New("it has closed the connection")
)

// conn is the connection, for all sessions that are on it.
type conn struct {
	f      *Filter
	nc     net.Conn
	r      *bufio.Reader
	agreed wire.Agreement
	turn   chan struct{} // held by who writes
	done   chan struct{} // closed when it has failed

	mu    sync.Mutex // guards the following
	boxes map[uint32]*mailbox
	next  uint32
	heard uint64 // frames that have come
	held  int    // bytes of changes in all boxes
	err   error  // why it has failed
}

// mailbox is where the answers of one session go.
type mailbox struct {
	id   uint32
	in   chan turn      // has room for the one that is due
	due  wire.FrameType // the command that has no answer yet; 0: none
	part turn           // of the answer that is due
	size int            // of part, in bytes
}

// turn is an answer with the changes before it.
type turn struct {
	wire.Answer
	changes []wire.Change
}

// newConn negotiates. Its caller bounds the time.
func newConn(f *Filter, nc net.Conn) (*conn, error) {
	c := &conn{
		f: f, nc: nc, r: bufio.NewReaderSize(nc, 16<<10), boxes: map[uint32]*mailbox{},
		turn: make(chan struct{}, 1), done: make(chan struct{}),
	}
	offer := wire.Offer{
		Min: wire.VersionMin, Max: wire.VersionMax, Options: wire.Options{Cap: wire.CapAll, Fct: wire.FctAll},
		Timeout: f.cfg.Timeout, Host: f.cfg.Host, Program: f.cfg.Program,
	}
	if f.cfg.PRDR {
		offer.Feat = wire.FeatPRDR
	}
	if _, err := nc.Write(wire.AppendFrame(nil, wire.Frame{Type: wire.FrameOffer, Data: offer.Append(nil)})); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	fr, err := wire.ReadFrame(c.r, &buf)
	switch {
	case err != nil:
		return nil, err
	case fr.Type == wire.FrameRefuse:
		return nil, fmt.Errorf("it refuses: %s", printable(string(fr.Data[min(2, len(fr.Data)):])))
	case fr.Type != wire.FrameAgree:
		return nil, fmt.Errorf("%w: type 0x%x", wire.ErrWire, uint8(fr.Type))
	}
	c.agreed, err = wire.ParseAgreement(fr.Data, &offer)
	return c, err
}

// run reads answers until the connection fails.
func (c *conn) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { c.fail(errClosed) })()
	c.fail(supervise.Call(ctx, func(context.Context) error {
		var buf bytes.Buffer
		for {
			fr, err := wire.ReadFrame(c.r, &buf)
			if errors.Is(err, io.EOF) {
				err = errLeft
			}
			if err == nil {
				err = c.take(fr)
			}
			if err != nil {
				return err
			}
		}
	}))
	return nil
}

// fail gives the connection up. The first error counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		close(c.done)
	}
	n := len(c.boxes)
	c.mu.Unlock()
	if !first {
		return
	}
	_ = c.nc.Close() // there is nothing to be said
	c.f.lost(c)
	level := slog.LevelWarn
	if errors.Is(err, errClosed) {
		level = slog.LevelDebug
	}
	c.f.deps.Log.LogAttrs(context.Background(), level, "connection to policy milter lost", slog.String("program", printable(c.agreed.Program)),
		slog.Int("sessions", n), slog.Any("error", err))
}

// take gives a frame to its session.
func (c *conn) take(fr wire.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard++
	b := c.boxes[fr.Session]
	switch {
	case b == nil && fr.Session != 0 && fr.Session < c.next:
		return nil // it has ended before the answer came
	case b == nil, b.due == 0:
		return fmt.Errorf("%w: type 0x%x", errAsked, uint8(fr.Type))
	case fr.Type != wire.FrameAnswer:
		return c.addChange(b, fr)
	}
	var err error
	if b.part.Answer, err = wire.ParseAnswer(fr.Data, b.due); err != nil {
		return err
	}
	if b.due == wire.FrameNext {
		switch code := b.part.Code; {
		case code == wire.Continue || code == wire.OK:
		case code.Refuses() || code.Plain() == wire.Discard:
		default:
			return fmt.Errorf("%w: code %s where a chunk is due", wire.ErrWire, code)
		}
	}
	b.in <- b.part // has room: one is due
	c.held -= b.size
	b.due, b.part, b.size = 0, turn{}, 0
	return nil
}

// addChange adds a change to the answer that is due.
func (c *conn) addChange(b *mailbox, fr wire.Frame) error {
	ch, err := wire.ParseChange(fr)
	chunk := fr.Type == wire.FrameChunk
	switch {
	case err != nil:
		return err
	case chunk && (b.due != wire.FrameNext || len(b.part.changes) > 0), !chunk && b.due != wire.FrameEOM:
		return fmt.Errorf("%w: a change of type 0x%x", errAsked, uint8(fr.Type))
	case c.agreed.Fct&fr.Type.Needs() == 0:
		return fmt.Errorf("%w: a change of type 0x%x, which was not agreed on", errAsked, uint8(fr.Type))
	}
	ch.Chunk = slices.Clone(ch.Chunk)
	n := len(fr.Data)
	b.size, c.held = b.size+n, c.held+n
	if b.size > wire.ChangeBytesMax || len(b.part.changes) >= wire.ChangesMax || c.held > heldMax {
		return errHeld
	}
	b.part.changes = append(b.part.changes, ch)
	return nil
}

// open begins a session.
func (c *conn) open() (*mailbox, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, c.err
	case len(c.boxes) >= wire.SessionsMax:
		return nil, errFull
	case c.next == math.MaxUint32:
		return nil, errNumber
	}
	c.next = max(c.next, 1)
	b := &mailbox{id: c.next, in: make(chan turn, 1)}
	c.boxes[b.id] = b
	c.next++
	return b, nil
}

// leave ends a session.
func (c *conn) leave(b *mailbox) {
	c.mu.Lock()
	delete(c.boxes, b.id)
	c.held -= b.size
	idle := c.next == math.MaxUint32 && len(c.boxes) == 0
	c.mu.Unlock()
	c.tell(b, wire.Command{Type: wire.FrameClose})
	if idle {
		c.fail(errNumber)
	}
}

// tell sends what has no answer.
func (c *conn) tell(b *mailbox, k wire.Command) {
	_ = c.write(context.Background(), b, &k, lastWords) // the connection has failed then, and says so
}

// write sends a command. A connection that takes none in time has failed.
func (c *conn) write(ctx context.Context, b *mailbox, k *wire.Command, limit time.Duration) error {
	fr := wire.AppendFrame(nil, wire.Frame{Type: k.Type, Session: b.id, Data: k.Append(nil)})
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case c.turn <- struct{}{}:
	case <-c.done:
		return c.why()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		c.fail(errSilent)
		return errSilent
	}
	defer func() { <-c.turn }()
	err := c.nc.SetWriteDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = c.nc.Write(fr)
	}
	if err != nil {
		c.fail(err) // a frame may have been cut
		return c.why()
	}
	return nil
}

func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ask sends a command and waits for its answer.
func (c *conn) ask(ctx context.Context, b *mailbox, k *wire.Command) (turn, error) {
	began, limit := time.Now(), c.f.cfg.Timeout
	defer c.f.observe(began)
	c.mu.Lock()
	b.due = k.Type
	before := c.heard
	c.mu.Unlock()
	if err := c.write(ctx, b, k, limit); err != nil {
		return turn{}, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case t := <-b.in:
		return t, nil
	case <-ctx.Done():
		return turn{}, context.Cause(ctx)
	case <-c.done:
		return turn{}, c.why()
	case <-timer.C:
	}
	c.mu.Lock()
	silent := c.heard == before
	c.mu.Unlock()
	if silent {
		c.fail(errSilent)
		return turn{}, errSilent
	}
	return turn{}, errSlow
}
