// Package wire is one connection of a client to the server, at the level of lines: commands come in
// within limits, replies go out many at a time (RFC 2920), both under deadlines. It knows nothing of
// what the commands mean.
//
// # What a client cannot do
//
//   - Hold us up: a line has its time as a whole, and so have each piece of a message and each write.
//   - Fill our memory: a line is bounded ([Conn.ReadLine]), and buffers other than the small one are
//     taken from the budget for messages ([Conn.Borrow]).
//   - Have us read a line that another host reads otherwise: only CR LF ends one ([ErrBareLine]).
//   - Cost much while it says nothing: an idle connection has no buffers.
//
// A session that has to make room for others (package crowd), and those of a server that stops
// ([Halt]), are woken up where they wait.
package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"meta1/mta/msg"
	"meta1/server/crowd"
)

const (
	// smallBuffer is the input buffer of a session. A command line fits in, and so
	// does a group of commands or a short message.
	smallBuffer = 4 << 10
	// bigBuffer is borrowed while a message comes in that fills the small one.
	bigBuffer = 64 << 10
	// LineMax bounds a command line with CR LF, whatever the verb.
	LineMax = 2 << 10
	// skipMax bounds what is read and thrown away of a line that is too long.
	skipMax = 64 << 10
	// outStart has room for the replies to most groups of commands.
	outStart = 512
	// OutMax is how many bytes of replies a session collects before it writes them.
	OutMax = 4 << 10
	// LastWords bounds the writing of the last reply of a session that is cut short.
	LastWords = 2 * time.Second
)

// The ends of a dialogue other than QUIT; only after ErrLongLine the session goes on.
var (
	// ErrHalted: the server stops, and the session may not go on (Halt).
	ErrHalted = errors.New("server is stopping")
	// ErrBareLine: something else than CR LF ends a line, or is in it.
	ErrBareLine = errors.New("bare CR or LF")
	// ErrFlood: a line was too long to be skipped.
	ErrFlood    = errors.New("endless line")
	ErrLongLine = errors.New("line too long")
	// ErrTLSRecord: TLS begins where a command should.
	ErrTLSRecord = errors.New("record of TLS in place of a command")
	// ErrRoom: the guest was told to go (crowd.Guest.Dismissed has the reason).
	ErrRoom = errors.New("sessions are scarce")
)

// Halt tells all sessions that the server stops. The zero value says it does not. Any goroutine may use it.
type Halt struct {
	by atomic.Int64
	// transactions: those that have begun may go on, too, and not only those in DATA. Set before by.
	transactions atomic.Bool
}

// Set begins the stop; sessions in DATA may go on until by, and those in a transaction too if
// transactions says so. Poke wakes each session that waits.
func (h *Halt) Set(by time.Time, transactions bool) {
	h.transactions.Store(transactions)
	h.by.Store(by.UnixNano())
}

// get reports whether the server stops, and until when sessions in DATA may go on.
func (h *Halt) get() (by time.Time, stopping bool) {
	n := h.by.Load()
	return time.Unix(0, n), n != 0
}

// Conn is the connection of a session with its input buffer and the replies that
// wait to be written. It is used by the session's goroutine alone, except where a method says
// otherwise. New makes one.
type Conn struct {
	// Out are the replies that wait to be written; the session adds to them. Flush and each
	// reading of more input write them.
	Out []byte
	// Patient: a message comes in. The session goes on for a while after Halt, and keeps its
	// buffers while it waits.
	Patient bool
	// Awaits is what the session waits for when it reads or writes.
	Awaits crowd.State
	// Guest is the session in the crowd of all. While the session waits it may be told to go.
	Guest crowd.Guest

	raw     net.Conn // as accepted
	conn    net.Conn // raw, or what TLS makes of it
	timeout time.Duration
	halt    *Halt

	buf  []byte // unread input is buf[r:w]
	r, w int
	home []byte // the small buffer while buf is a borrowed one

	pools  *Pools
	memory *msg.Memory
	small  *buffers // what buf and Out begin with; nil while the client is idle
	idle   idleRead // waits for input without a buffer
	first  [1]byte  // of a command that comes by TLS, before there is a buffer

	deadline time.Time // of the connection, as last set
}

// buffers are those of a session that is not idle.
type buffers struct {
	in  [smallBuffer]byte
	out [outStart]byte
}

// New makes a connection of one that was accepted. It has no buffers until Acquire. timeout is the time for
// each line, each piece of a message and each write; it may be an eighth longer. What is borrowed is
// taken from the budget memory.
func New(conn net.Conn, timeout time.Duration, h *Halt, p *Pools, memory *msg.Memory) *Conn {
	c := &Conn{raw: conn, conn: conn, timeout: timeout, halt: h, pools: p, memory: memory, Awaits: crowd.Waiting}
	c.idle.init(c)
	return c
}

// Raw is the connection as it was accepted, below TLS.
func (c *Conn) Raw() net.Conn { return c.raw }

// TLS is what Secure got; nil: there is no TLS.
func (c *Conn) TLS() *tls.Conn {
	t, _ := c.conn.(*tls.Conn)
	return t
}

// Acquire gives the session buffers, if it has none.
func (c *Conn) Acquire() {
	if c.small == nil {
		c.small = c.pools.buffers()
		c.buf, c.Out = c.small.in[:], c.small.out[:0]
		c.r, c.w = 0, 0
	}
}

// release gives the buffers back, if nothing is in them.
func (c *Conn) release() {
	if c.small == nil || c.home != nil || c.r < c.w || len(c.Out) > 0 {
		return
	}
	c.pools.returnBuffers(c.small)
	c.small, c.buf, c.Out, c.r, c.w = nil, nil, nil, 0, 0
}

// Close closes the connection and gives the buffers back.
func (c *Conn) Close() {
	_ = c.conn.Close() // nothing depends on it: all replies were sent or given up
	c.r, c.w, c.Out = 0, 0, nil
	c.GiveBack()
	c.release()
}

// Poke wakes the session out of a read after halt was set. Any goroutine may call it.
func (c *Conn) Poke() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

// Abort closes the connection at once, without the farewell of TLS, which may wait for the
// client. Any goroutine may call it.
func (c *Conn) Abort() { _ = c.raw.Close() }

// Secure goes on with TLS. Nothing read before may be unread.
func (c *Conn) Secure(conn *tls.Conn) {
	c.conn = conn
	c.idle.init(c)
}

// Dismiss wakes the session out of a read or write after its guest was told to go. Any
// goroutine may call it.
func (c *Conn) Dismiss() { _ = c.raw.SetDeadline(time.Unix(1, 0)) }

// Unread is the input that was read from the connection and not yet consumed.
func (c *Conn) Unread() []byte { return c.buf[c.r:c.w] }

// Consume drops the first n bytes of unread.
func (c *Conn) Consume(n int) {
	if c.r += n; c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// ReadLine returns the next command line without its CR LF. It is valid until the
// next read. ErrLongLine says that a line was skipped; after any other error the
// input cannot be used any more. The line, with CR LF, may have limit bytes, and must come
// within the timeout as a whole.
func (c *Conn) ReadLine(limit int) ([]byte, error) {
	fresh := true
	for scanned := 0; ; {
		if isTLSRecord(c.Unread()) {
			return nil, ErrTLSRecord
		}
		if i := bytes.IndexByte(c.buf[c.r+scanned:c.w], '\n'); i >= 0 {
			line := c.buf[c.r : c.r+scanned+i+1]
			c.r += len(line)
			return trimLine(line, limit)
		}
		if scanned = c.w - c.r; scanned >= limit || scanned > 0 && scanned == len(c.buf) && !c.Borrow() {
			return nil, c.skipLine()
		}
		if err := c.Fill(fresh); err != nil {
			return nil, err
		}
		fresh = false
	}
}

// isTLSRecord reports that input is the beginning of a handshake of TLS: its record type
// and the first byte of its version.
func isTLSRecord(b []byte) bool { return len(b) >= 2 && b[0] == 0x16 && b[1] == 0x03 }

// trimLine checks that CR LF ends the line and that no other CR is in it (README
// 6.3.1).
func trimLine(line []byte, limit int) ([]byte, error) {
	n := len(line) - 2
	if n < 0 || bytes.IndexByte(line, '\r') != n {
		return nil, ErrBareLine
	}
	if n+2 > limit {
		return nil, ErrLongLine
	}
	return line[:n], nil
}

// skipLine drops a line that is too long.
func (c *Conn) skipLine() error {
	last := byte(0)
	for dropped := 0; dropped < skipMax; {
		b := c.Unread()
		i := bytes.IndexByte(b, '\n')
		if i > 0 {
			last = b[i-1]
		}
		if i >= 0 {
			c.Consume(i + 1)
			if last != '\r' {
				return ErrBareLine
			}
			return ErrLongLine
		}
		if len(b) > 0 {
			last = b[len(b)-1]
		}
		dropped += len(b)
		c.Consume(len(b))
		if err := c.Fill(false); err != nil {
			return err
		}
	}
	return ErrFlood
}

// Fill writes what waits to be written and reads more input. fresh gives the client
// the whole timeout again.
func (c *Conn) Fill(fresh bool) error {
	if err := c.Flush(); err != nil {
		return err
	}
	c.makeRoom()
	for range 100 { // empty reads that a net.Conn should not give
		if err := c.extend(fresh); err != nil {
			return err
		}
		// The guest may be dismissed only after the deadline was set: dismiss sets it, too.
		if !c.Guest.Wait(c.Awaits) {
			return ErrRoom
		}
		n, err := c.read()
		if !c.Guest.Resume() {
			return ErrRoom
		}
		if c.w += n; n > 0 {
			return nil
		}
		if _, stopping := c.halt.get(); stopping && errors.Is(err, os.ErrDeadlineExceeded) {
			fresh = true // poked: find out in extend what that means
			continue
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// read reads from the connection. While it waits the session has no buffers, if it needs
// none.
func (c *Conn) read() (int, error) {
	empty := c.home == nil && c.r == c.w && len(c.Out) == 0
	switch {
	case empty && c.idle.able():
		c.release()
		n, err := c.idle.read()
		c.Acquire()
		return n, err
	case empty && c.conn != c.raw && !c.Patient:
		// One byte needs no buffer. TLS has the rest of its record, which the next read gets.
		c.release()
		n, err := c.conn.Read(c.first[:])
		c.Acquire()
		copy(c.buf, c.first[:n])
		return n, err
	}
	c.Acquire()
	return c.conn.Read(c.buf[c.w:])
}

// makeRoom moves the unread input so that the buffer has room at its end.
func (c *Conn) makeRoom() {
	if c.w == len(c.buf) {
		copy(c.buf, c.Unread())
		c.r, c.w = 0, c.w-c.r
	}
}

// extend sets the connection's deadline. It is set an eighth too late, so that it
// need not be set again for each group of commands. The deadline is set before halt
// is looked at: if halt is set after that, poke ends the read.
func (c *Conn) extend(fresh bool) error {
	now := time.Now()
	if fresh && c.deadline.Sub(now) < c.timeout {
		c.setDeadline(now.Add(c.timeout + c.timeout/8))
	}
	by, stopping := c.halt.get()
	if !stopping {
		return nil
	}
	patient := c.Patient || c.Awaits == crowd.InTransaction && c.halt.transactions.Load()
	if !patient || !now.Before(by) {
		return ErrHalted
	}
	if end := now.Add(c.timeout); end.Before(by) {
		by = end
	}
	c.setDeadline(by)
	return nil
}

// Until runs do, which reads and writes Raw itself, such as a handshake, and must be over by then. Poke ends it.
// The error is that of do, or ErrHalted if the server stops.
func (c *Conn) Until(by time.Time, do func() error) error {
	c.setDeadline(by)
	if _, stopping := c.halt.get(); stopping { // set after the deadline, it ends the read
		return ErrHalted
	}
	err := do()
	c.deadline = time.Time{}
	if _, stopping := c.halt.get(); stopping && errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrHalted
	}
	return err
}

func (c *Conn) setDeadline(t time.Time) {
	c.deadline = t
	_ = c.conn.SetDeadline(t) // a connection that takes none fails at the next read
}

// Flush writes the collected replies.
func (c *Conn) Flush() error {
	if len(c.Out) == 0 {
		return nil
	}
	if now := time.Now(); c.deadline.Sub(now) < c.timeout {
		c.setDeadline(now.Add(c.timeout + c.timeout/8))
		if _, stopping := c.halt.get(); stopping {
			c.Poke()
		}
	}
	if !c.Guest.Wait(c.Awaits) {
		return ErrRoom // farewell writes the replies
	}
	_, err := c.conn.Write(c.Out)
	if !c.Guest.Resume() {
		err = ErrRoom
	}
	c.Out = c.Out[:0]
	return err
}

// SpeaksFirst reports whether the client sends something before it was greeted. It
// waits for that as long as pause says.
func (c *Conn) SpeaksFirst(pause time.Duration) bool {
	if pause <= 0 {
		if pending := c.PendingInput(); pending || c.conn == c.raw {
			return pending
		}
		// What came with the end of the handshake has been read by TLS.
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(pause))
	c.deadline = time.Time{}
	n, _ := c.conn.Read(c.buf[c.w:]) // an error comes again at the next read
	c.w += n
	return n > 0
}

// Farewell writes the collected replies of a session that was cut short, without
// waiting long for a client that does not read. If the client may have sent more
// than was read, closing would reset the connection and could destroy the reply
// on its way, so that the rest is read for a moment. A client that has to make room is idle,
// and has sent nothing.
func (c *Conn) Farewell() {
	c.setDeadline(time.Now().Add(LastWords))
	if len(c.Out) > 0 {
		if _, err := c.conn.Write(c.Out); err != nil {
			return
		}
		c.Out = c.Out[:0]
	}
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !c.Guest.Resume() || !ok || half.CloseWrite() != nil {
		return
	}
	c.Acquire()
	for dropped := 0; dropped < skipMax; {
		n, err := c.conn.Read(c.buf)
		if dropped += n; err != nil {
			return
		}
	}
}

// PendingInput reports whether input has arrived that was not read, without waiting. It is
// false for connections that are no sockets.
func (c *Conn) PendingInput() bool { return peekInput(c.raw, make([]byte, 1)) > 0 }

// BeginsTLS reports that the input, read or not, is the beginning of a handshake of TLS.
func (c *Conn) BeginsTLS() bool {
	b := make([]byte, 2)
	return isTLSRecord(c.Unread()) || isTLSRecord(b[:peekInput(c.raw, b)])
}

// Full reports that the last read filled the buffer, so that a larger one is of use (Borrow).
func (c *Conn) Full() bool { return c.w == len(c.buf) }

// Borrow gives the session a larger buffer until GiveBack. It reports false if the session has one
// already, or the budget has none left.
func (c *Conn) Borrow() bool {
	if c.home != nil || !c.memory.Take(bigBuffer) {
		return false
	}
	big := c.pools.input()
	c.home = c.buf
	c.w = copy(big, c.Unread())
	c.r, c.buf = 0, big
	return true
}

// GiveBack returns to the small buffer, unless more input waits in a borrowed one than the
// small one can hold.
func (c *Conn) GiveBack() {
	if c.home == nil || c.w-c.r > len(c.home) {
		return
	}
	big := c.buf
	c.w = copy(c.home, c.Unread())
	c.r, c.buf, c.home = 0, c.home, nil
	c.pools.returnInput(big)
	c.memory.Give(bigBuffer)
}
