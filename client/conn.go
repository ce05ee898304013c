package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"meta1/client/ehlo"
)

// conn is one connection to a hop. One worker at a time uses it; only abort may be
// called by another goroutine.
type conn struct {
	nc   net.Conn // socket, or the TLS over it
	sock *socket
	tls  secured
	seen seen
	line
	id  string // da_se
	ext ehlo.Extensions
	// mechanism is the one by which we authenticated; "" for none.
	mechanism string

	in         []byte // what was read; in[r:w] is not yet used
	r, w       int
	rep        reply
	mailSaid   said // the replies to MAIL and RCPT, for the log
	rcptSaid   said
	out        []byte // what is to be written
	group      []int  // commands that were written together
	parts      [][]byte
	partsSlice net.Buffers // view of parts that a write consumes

	opened       time.Time
	tlsTime      [2]time.Time // when the TLS handshake began and ended; zero without one
	transactions int          // begun on this connection
	shown        atomic.Int64 // transactions, for who asks
	needReset    bool         // the peer is inside a transaction that failed
	broken       bool         // no longer in step with the peer: close without QUIT
	closing      bool         // 421 was received or QUIT sent: close
	served       bool         // a recipient was accepted in this session
	spent        bool         // the session refuses what a new one may take: say QUIT and close
	aborted      atomic.Bool

	steps steps // t_connect and t_ehlo, for the first transaction

	// The pool's: its lock guards them.
	reqCtx     context.Context // of the request that is being served, nil if idle
	prev, next *conn
	idleSince  time.Time
	busySince  time.Time
}

// newConn makes a conn of an open connection.
func newConn(nc net.Conn, to line, id string, now time.Time) *conn {
	sock := newSocket(nc)
	return &conn{nc: sock, sock: sock, line: to, id: id, in: make([]byte, replyLineMax), opened: now}
}

// abort ends what the connection is doing, from another goroutine.
func (c *conn) abort() {
	c.aborted.Store(true)
	c.sock.Close() // without the last words of TLS, which take time
}

// readReply reads the next reply into c.rep. It waits at most timeout for all of it,
// however slowly it drips.
func (c *conn) readReply(timeout time.Duration) error {
	c.rep.reset()
	var deadline time.Time
	for {
		line, err := c.readLine(timeout, &deadline)
		if err == nil {
			var last bool
			if last, err = c.rep.add(line); last && err == nil {
				return nil
			}
		}
		if err != nil {
			c.broken = true
			return err
		}
	}
}

// readLine returns the next line without its end; a bare LF ends one too. It is
// valid until the next call. The deadline is set when the first read is needed, so
// replies that came together cost no more than one.
func (c *conn) readLine(timeout time.Duration, deadline *time.Time) ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(c.in[c.r+seen:c.w], '\n'); i >= 0 {
			line := c.in[c.r : c.r+seen+i]
			c.r += seen + i + 1
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		seen = c.w - c.r
		if c.r > 0 {
			copy(c.in, c.in[c.r:c.w])
			c.r, c.w = 0, seen
		}
		if c.w == len(c.in) {
			return nil, errLineLong
		}
		if deadline.IsZero() {
			*deadline = time.Now().Add(timeout)
			if err := c.nc.SetReadDeadline(*deadline); err != nil {
				return nil, err
			}
		}
		n, err := c.nc.Read(c.in[c.w:])
		c.w += n
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// pending reports that the peer has said something that nobody asked for.
func (c *conn) pending() bool { return c.r != c.w }

// heard reports that something of the peer is there to be read, or its end, which is a
// word, too. It does not wait, and knows only what was read already of a connection that
// is no socket. What is TLS's own, such as a ticket for a session, is no word of the peer.
func (c *conn) heard() bool {
	switch {
	case c.pending():
		return true
	case !c.tls.on():
		return c.sock.readable()
	}
	n, over := c.sock.readNow(c.nc, c.in)
	c.r, c.w = 0, n
	return n > 0 || over
}

// write sends c.out and empties it. A peer that has answered already what was not yet
// asked is out of step, so nothing is sent to it.
func (c *conn) write(timeout time.Duration) (err error) {
	if c.pending() {
		err = errEarly
	} else if err = c.nc.SetWriteDeadline(time.Now().Add(timeout)); err == nil {
		_, err = c.nc.Write(c.out)
	}
	c.out = c.out[:0]
	if cap(c.out) > keepBuffer {
		c.out = nil
	}
	return err
}

// writeParts sends c.parts from where they lie and empties it.
func (c *conn) writeParts(timeout time.Duration) error {
	err := c.nc.SetWriteDeadline(time.Now().Add(timeout))
	if c.pending() {
		err = errEarly
	}
	switch {
	case err != nil:
	case c.tls.on():
		err = c.writeRecords()
	default:
		c.partsSlice = c.parts
		_, err = c.partsSlice.WriteTo(c.sock.Conn)
	}
	clear(c.parts)
	c.parts = c.parts[:0]
	return err
}

// recordMax is what one record of TLS holds (RFC 8446 section 5.1).
const recordMax = 16 << 10

// writeRecords sends c.parts over TLS, in as few records as they fit into: each one costs
// a call of the system.
func (c *conn) writeRecords() error {
	record := c.out[:0]
	for _, p := range c.parts {
		for len(p) > 0 {
			n := min(len(p), recordMax-len(record))
			record, p = append(record, p[:n]...), p[n:]
			if len(record) < recordMax {
				continue
			}
			if _, err := c.nc.Write(record); err != nil {
				return err
			}
			record = record[:0]
		}
	}
	c.out = record[:0]
	if len(record) == 0 {
		return nil
	}
	_, err := c.nc.Write(record)
	return err
}

// command sends one line and reads its reply.
func (c *conn) command(line string, timeout time.Duration) error {
	c.out = append(append(c.out, line...), crlf...)
	return c.replyAfter(c.write(timeout), timeout)
}

// replyAfter reads the reply to a command. werr is the error of the write that sent
// it: the peer may have told us why before it closed the connection, and that is
// better than our error. A success cannot be one then.
func (c *conn) replyAfter(werr error, timeout time.Duration) error {
	if werr == nil {
		return c.readReply(timeout)
	}
	c.broken = true
	if isTimeout(werr) || errors.Is(werr, errEarly) {
		return werr
	}
	if err := c.readReply(min(timeout, lastWords)); err != nil || !c.rep.failed() {
		return werr
	}
	return nil
}

// quit ends the session politely, if that is still possible, and closes. It waits for
// the reply only if wait is set.
func (c *conn) quit(timeout time.Duration, wait bool) {
	if !c.broken && !c.closing {
		c.out = append(c.out[:0], "QUIT\r\n"...)
		c.closing = true
		if c.write(timeout) != nil {
			c.broken = true
		}
	}
	if wait && !c.broken {
		_ = c.readReply(timeout) // 221, or nothing: the session is over either way
	}
	c.close()
}

// close closes the connection. Nothing that was promised depends on it. A peer with whom we
// are in step is told so by TLS, too.
func (c *conn) close() {
	if c.broken {
		_ = c.sock.Close()
	} else {
		_ = c.nc.Close()
	}
}

// isTimeout reports that a deadline has passed.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
