package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"meta1/server/crowd"
)

const (
	// smallBuffer is the input buffer of a session. A command line fits in, and so
	// does a group of commands or a short message.
	smallBuffer = 4 << 10
	// bigBuffer is borrowed while a message comes in that fills the small one.
	bigBuffer = 64 << 10
	// lineMax bounds a command line with CR LF, whatever the verb.
	lineMax = 2 << 10
	// skipMax bounds what is read and thrown away of a line that is too long.
	skipMax = 64 << 10
	// outStart has room for the replies to most groups of commands.
	outStart = 512
	// outMax is how many bytes of replies are collected before they are written.
	outMax = 4 << 10
	// lastWords bounds the writing of the last reply of a session that is cut short.
	lastWords = 2 * time.Second
)

// The ends of a dialogue other than QUIT.
var (
	errHalted   = errors.New("server is stopping")
	errBareLine = errors.New("bare CR or LF")
	errFlood    = errors.New("endless line")
	errLongLine = errors.New("line too long") // the session goes on
	errSlow     = errors.New("message comes in too slowly")
	// errTLSRecord: TLS begins where a command should.
	errTLSRecord = errors.New("record of TLS in place of a command")
	errRoom      = errors.New("sessions are scarce")
)

// halt tells all sessions that the server stops. The zero value says it does not.
type halt struct {
	by atomic.Int64
	// transactions: those that have begun may go on, too, and not only those in DATA. Set before by.
	transactions atomic.Bool
}

// set begins the stop; sessions in DATA may go on until by.
func (h *halt) set(by time.Time) { h.by.Store(by.UnixNano()) }

// get reports whether the server stops, and until when sessions in DATA may go on.
func (h *halt) get() (by time.Time, stopping bool) {
	n := h.by.Load()
	return time.Unix(0, n), n != 0
}

// wire is the connection of a session with its input buffer and the replies that
// wait to be written. It is used by the session's goroutine alone, but for poke.
type wire struct {
	raw     net.Conn // as accepted
	conn    net.Conn // raw, or what TLS makes of it
	timeout time.Duration
	halt    *halt

	buf  []byte // unread input is buf[r:w]
	r, w int
	home []byte        // the small buffer while buf is a borrowed one
	lend func() []byte // a larger buffer for a long line, or nil if there is none to be had

	out []byte

	pool  *pools
	small *buffers // what buf and out begin with; nil while the client is idle
	idle  idleRead // waits for input without a buffer
	first [1]byte  // of a command that comes by TLS, before there is a buffer

	deadline time.Time // of the connection, as last set
	patient  bool      // in DATA: goes on for a while after halt

	guest  crowd.Guest
	awaits crowd.State // what the session waits for when it reads or writes
}

// buffers are those of a session that is not idle.
type buffers struct {
	in  [smallBuffer]byte
	out [outStart]byte
}

// newWire makes the wire of a connection. It has no buffers until acquire.
func newWire(conn net.Conn, timeout time.Duration, h *halt, p *pools) *wire {
	c := &wire{raw: conn, conn: conn, timeout: timeout, halt: h, pool: p, awaits: crowd.Waiting}
	c.idle.init(c)
	return c
}

// acquire gives the session buffers, if it has none.
func (c *wire) acquire() {
	if c.small == nil {
		c.small = c.pool.buffers()
		c.buf, c.out = c.small.in[:], c.small.out[:0]
		c.r, c.w = 0, 0
	}
}

// release gives the buffers back, if nothing is in them.
func (c *wire) release() {
	if c.small == nil || c.home != nil || c.r < c.w || len(c.out) > 0 {
		return
	}
	c.pool.returnBuffers(c.small)
	c.small, c.buf, c.out, c.r, c.w = nil, nil, nil, 0, 0
}

// close closes the connection and gives the buffers back. It returns the borrowed buffer,
// or nil if there is none.
func (c *wire) close() (big []byte) {
	_ = c.conn.Close() // nothing depends on it: all replies were sent or given up
	if c.home != nil {
		big = c.buf
		c.buf, c.home = c.home, nil
	}
	c.r, c.w, c.out = 0, 0, nil
	c.release()
	return big
}

// poke wakes the session out of a read after halt was set. Any goroutine may call it.
func (c *wire) poke() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

// abort closes the connection at once, without the farewell of TLS, which may wait for the
// client. Any goroutine may call it.
func (c *wire) abort() { _ = c.raw.Close() }

// secure goes on with TLS. Nothing read before may be unread.
func (c *wire) secure(conn *tls.Conn) {
	c.conn = conn
	c.idle.init(c)
	c.deadline = time.Time{} // that of the handshake
}

// dismiss wakes the session out of a read or write after its guest was told to go. Any
// goroutine may call it.
func (c *wire) dismiss() { _ = c.raw.SetDeadline(time.Unix(1, 0)) }

// unread is the input that was read from the connection and not yet consumed.
func (c *wire) unread() []byte { return c.buf[c.r:c.w] }

// consume drops the first n bytes of unread.
func (c *wire) consume(n int) {
	if c.r += n; c.r == c.w {
		c.r, c.w = 0, 0
	}
}

// readLine returns the next command line without its CR LF. It is valid until the
// next read. errLongLine says that a line was skipped; after any other error the
// input cannot be used any more. The line, with CR LF, may have limit bytes, and must come
// within the timeout as a whole.
func (c *wire) readLine(limit int) ([]byte, error) {
	fresh := true
	for scanned := 0; ; {
		if isTLSRecord(c.unread()) {
			return nil, errTLSRecord
		}
		if i := bytes.IndexByte(c.buf[c.r+scanned:c.w], '\n'); i >= 0 {
			line := c.buf[c.r : c.r+scanned+i+1]
			c.r += len(line)
			return trimLine(line, limit)
		}
		if scanned = c.w - c.r; scanned >= limit || scanned > 0 && scanned == len(c.buf) && !c.grow() {
			return nil, c.skipLine()
		}
		if err := c.fill(fresh); err != nil {
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
		return nil, errBareLine
	}
	if n+2 > limit {
		return nil, errLongLine
	}
	return line[:n], nil
}

// skipLine drops a line that is too long.
func (c *wire) skipLine() error {
	last := byte(0)
	for dropped := 0; dropped < skipMax; {
		b := c.unread()
		i := bytes.IndexByte(b, '\n')
		if i > 0 {
			last = b[i-1]
		}
		if i >= 0 {
			c.consume(i + 1)
			if last != '\r' {
				return errBareLine
			}
			return errLongLine
		}
		if len(b) > 0 {
			last = b[len(b)-1]
		}
		dropped += len(b)
		c.consume(len(b))
		if err := c.fill(false); err != nil {
			return err
		}
	}
	return errFlood
}

// fill writes what waits to be written and reads more input. fresh gives the client
// the whole timeout again.
func (c *wire) fill(fresh bool) error {
	if err := c.flush(); err != nil {
		return err
	}
	c.makeRoom()
	for range 100 { // empty reads that a net.Conn should not give
		if err := c.extend(fresh); err != nil {
			return err
		}
		// The guest may be dismissed only after the deadline was set: dismiss sets it, too.
		if !c.guest.Wait(c.awaits) {
			return errRoom
		}
		n, err := c.read()
		if !c.guest.Resume() {
			return errRoom
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
func (c *wire) read() (int, error) {
	empty := c.home == nil && c.r == c.w && len(c.out) == 0
	switch {
	case empty && c.idle.able():
		c.release()
		n, err := c.idle.read()
		c.acquire()
		return n, err
	case empty && c.conn != c.raw && !c.patient:
		// One byte needs no buffer. TLS has the rest of its record, which the next read gets.
		c.release()
		n, err := c.conn.Read(c.first[:])
		c.acquire()
		copy(c.buf, c.first[:n])
		return n, err
	}
	c.acquire()
	return c.conn.Read(c.buf[c.w:])
}

// makeRoom moves the unread input so that the buffer has room at its end.
func (c *wire) makeRoom() {
	if c.w == len(c.buf) {
		copy(c.buf, c.unread())
		c.r, c.w = 0, c.w-c.r
	}
}

// extend sets the connection's deadline. It is set an eighth too late, so that it
// need not be set again for each group of commands. The deadline is set before halt
// is looked at: if halt is set after that, poke ends the read.
func (c *wire) extend(fresh bool) error {
	now := time.Now()
	if fresh && c.deadline.Sub(now) < c.timeout {
		c.setDeadline(now.Add(c.timeout + c.timeout/8))
	}
	by, stopping := c.halt.get()
	if !stopping {
		return nil
	}
	patient := c.patient || c.awaits == crowd.InTransaction && c.halt.transactions.Load()
	if !patient || !now.Before(by) {
		return errHalted
	}
	if end := now.Add(c.timeout); end.Before(by) {
		by = end
	}
	c.setDeadline(by)
	return nil
}

func (c *wire) setDeadline(t time.Time) {
	c.deadline = t
	_ = c.conn.SetDeadline(t) // a connection that takes none fails at the next read
}

// flush writes the collected replies.
func (c *wire) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if now := time.Now(); c.deadline.Sub(now) < c.timeout {
		c.setDeadline(now.Add(c.timeout + c.timeout/8))
		if _, stopping := c.halt.get(); stopping {
			c.poke()
		}
	}
	if !c.guest.Wait(c.awaits) {
		return errRoom // farewell writes the replies
	}
	_, err := c.conn.Write(c.out)
	if !c.guest.Resume() {
		err = errRoom
	}
	c.out = c.out[:0]
	return err
}

// speaksFirst reports whether the client sends something before it was greeted. It
// waits for that as long as pause says.
func (c *wire) speaksFirst(pause time.Duration) bool {
	if pause <= 0 {
		if pending := c.pendingInput(); pending || c.conn == c.raw {
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

// farewell writes the collected replies of a session that was cut short, without
// waiting long for a client that does not read. If the client may have sent more
// than was read, closing would reset the connection and could destroy the reply
// on its way, so that the rest is read for a moment. A client that has to make room is idle,
// and has sent nothing.
func (c *wire) farewell() {
	c.setDeadline(time.Now().Add(lastWords))
	if len(c.out) > 0 {
		if _, err := c.conn.Write(c.out); err != nil {
			return
		}
		c.out = c.out[:0]
	}
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !c.guest.Resume() || !ok || half.CloseWrite() != nil {
		return
	}
	c.acquire()
	for dropped := 0; dropped < skipMax; {
		n, err := c.conn.Read(c.buf)
		if dropped += n; err != nil {
			return
		}
	}
}

// pendingInput reports whether input has arrived that was not read, without waiting. It is
// false for connections that are no sockets.
func (c *wire) pendingInput() bool { return peekInput(c.raw, make([]byte, 1)) > 0 }

// beginsTLS reports that the input, read or not, is the beginning of a handshake of TLS.
func (c *wire) beginsTLS() bool {
	b := make([]byte, 2)
	return isTLSRecord(c.unread()) || isTLSRecord(b[:peekInput(c.raw, b)])
}

// full reports that the last read filled the buffer.
func (c *wire) full() bool { return c.w == len(c.buf) }

// grow borrows a larger buffer, if there is one to be had.
func (c *wire) grow() bool {
	if c.home != nil || c.lend == nil {
		return false
	}
	big := c.lend()
	if big != nil {
		c.borrow(big)
	}
	return big != nil
}

// borrow gives the session a larger buffer until giveBack.
func (c *wire) borrow(big []byte) {
	c.home = c.buf
	c.w = copy(big, c.unread())
	c.r, c.buf = 0, big
}

// giveBack returns to the small buffer and returns the borrowed one, or nil if none
// was borrowed or more input waits in it than the small one can hold.
func (c *wire) giveBack() []byte {
	if c.home == nil || c.w-c.r > len(c.home) {
		return nil
	}
	big := c.buf
	c.w = copy(c.home, c.unread())
	c.r, c.buf, c.home = 0, c.home, nil
	return big
}
