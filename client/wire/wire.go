// Package wire is one connection of a client to a mail host, at the level of lines: commands go
// out under deadlines, and replies come in within limits (RFC 5321 section 4.2). It knows nothing
// of what the commands mean.
//
// # What a host cannot do
//
//   - Hold us up: each write and each reply as a whole has its time, however slowly it drips.
//   - Fill our memory: a line, a reply and what is kept of it are bounded, see [ReplyTextMax].
//   - Have a reply be taken for one to another command: before something is sent nothing may be
//     there to be read ([ErrEarly]), and a line end that was damaged does not make one reply of
//     two ([ErrNotAReply]).
//   - Get control characters into a log: see [Reply.SMTP] and [CleanText].
package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// What a peer may make us read and keep. A peer that goes beyond is treated like
// one that lost the connection.
const (
	// replyLineMax bounds one line of a reply with its line end. RFC 5321 section
	// 4.5.3.1.5 asks for 512; some hosts send more.
	replyLineMax = 4096
	// replyBytesMax bounds all lines of one reply.
	replyBytesMax = 64 << 10
	// ReplyTextMax is how much text of one reply is kept, in bytes; the rest is read and dropped.
	ReplyTextMax = 8 << 10
	// replyLinesMax is how many lines of one reply are kept.
	replyLinesMax = 100
	// keepBuffer is the largest write buffer that a connection keeps.
	keepBuffer = 64 << 10
	// LastWords is how long a reply is waited for when the peer has closed its side
	// while we were sending.
	LastWords = time.Second
)

// Conn is a connection. One goroutine at a time uses it; only [Conn.Abort] and [Conn.Aborted] may be
// called by another one. [New] makes one.
type Conn struct {
	// Reply is the last reply that was read, until the next one is.
	Reply Reply
	// Out is what [Conn.Flush] sends; who uses the connection adds to it.
	Out []byte
	// Parts is what [Conn.FlushParts] sends.
	Parts [][]byte
	// Broken says that we are no longer in step with the peer: the connection is closed without QUIT.
	// A reply that cannot be read sets it.
	Broken bool
	// Closing says that 421 was received or QUIT sent: nothing but the end follows.
	Closing bool

	nc         net.Conn // socket, or the TLS over it
	sock       *socket
	secured    bool   // nc is TLS
	in         []byte // what was read; in[r:w] is not yet used
	r, w       int
	partsSlice net.Buffers // view of Parts that a write consumes
	aborted    atomic.Bool
}

// New makes a Conn of an open connection, which is the Conn's from then on.
func New(nc net.Conn) *Conn {
	sock := newSocket(nc)
	return &Conn{nc: sock, sock: sock, in: make([]byte, replyLineMax)}
}

// LocalAddr is the address of our side.
func (c *Conn) LocalAddr() net.Addr { return c.sock.LocalAddr() }

// Abort ends what the connection is doing, from another goroutine.
func (c *Conn) Abort() {
	c.aborted.Store(true)
	c.sock.Close() // without the last words of TLS, which take time
}

// Aborted reports whether Abort has ended the connection.
func (c *Conn) Aborted() bool { return c.aborted.Load() }

// Drop closes the connection at once, without the last words of TLS. Nothing that was promised
// depends on it.
func (c *Conn) Drop() { _ = c.sock.Close() }

// Close closes the connection. Nothing that was promised depends on it. A peer with whom we
// are in step is told so by TLS, too.
func (c *Conn) Close() {
	if c.Broken {
		c.Drop()
	} else {
		_ = c.nc.Close()
	}
}

// StartTLS puts TLS over the connection, within timeout. What was read before is forgotten, and so
// must be what was learnt from it (RFC 3207 section 4.2). After an error the connection is broken.
func (c *Conn) StartTLS(cfg *tls.Config, timeout time.Duration) (tls.ConnectionState, error) {
	tc := tls.Client(c.sock, cfg)
	err := c.sock.SetDeadline(time.Now().Add(timeout))
	if err == nil {
		err = tc.Handshake()
	}
	if err == nil {
		err = c.sock.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Broken = true
		return tls.ConnectionState{}, err
	}
	c.nc, c.secured = tc, true
	c.r, c.w = 0, 0
	return tc.ConnectionState(), nil
}

// ReadReply reads the next reply into c.Reply. It waits at most timeout for all of it,
// however slowly it drips. After an error the connection is broken.
func (c *Conn) ReadReply(timeout time.Duration) error {
	c.Reply.reset()
	var deadline time.Time
	for {
		line, err := c.readLine(timeout, &deadline)
		if err == nil {
			var last bool
			if last, err = c.Reply.add(line); last && err == nil {
				return nil
			}
		}
		if err != nil {
			c.Broken = true
			return err
		}
	}
}

// readLine returns the next line without its end; a bare LF ends one too. It is
// valid until the next call. The deadline is set when the first read is needed, so
// replies that came together cost no more than one.
func (c *Conn) readLine(timeout time.Duration, deadline *time.Time) ([]byte, error) {
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

// Pending reports that the peer has said something that nobody asked for, of what was read already.
func (c *Conn) Pending() bool { return c.r != c.w }

// Heard reports that something of the peer is there to be read, or its end, which is a
// word, too. It does not wait, and knows only what was read already of a connection that
// is no socket. What is TLS's own, such as a ticket for a session, is no word of the peer.
func (c *Conn) Heard() bool {
	switch {
	case c.Pending():
		return true
	case !c.secured:
		return c.sock.readable()
	}
	n, over := c.sock.readNow(c.nc, c.in)
	c.r, c.w = 0, n
	return n > 0 || over
}

// Flush sends c.Out, within timeout, and empties it. A peer that has answered already what was not
// yet asked is out of step, so nothing is sent to it: [ErrEarly].
func (c *Conn) Flush(timeout time.Duration) (err error) {
	if c.Pending() {
		err = ErrEarly
	} else if err = c.nc.SetWriteDeadline(time.Now().Add(timeout)); err == nil {
		_, err = c.nc.Write(c.Out)
	}
	c.Out = c.Out[:0]
	if cap(c.Out) > keepBuffer {
		c.Out = nil
	}
	return err
}

// FlushParts sends c.Parts from where they lie, within timeout, and empties it. What Flush says of
// ErrEarly holds. Over TLS it uses the memory of c.Out, which must be empty.
func (c *Conn) FlushParts(timeout time.Duration) error {
	err := c.nc.SetWriteDeadline(time.Now().Add(timeout))
	if c.Pending() {
		err = ErrEarly
	}
	switch {
	case err != nil:
	case c.secured:
		err = c.writeRecords()
	default:
		c.partsSlice = c.Parts
		_, err = c.partsSlice.WriteTo(c.sock.Conn)
	}
	clear(c.Parts)
	c.Parts = c.Parts[:0]
	return err
}

// recordMax is what one record of TLS holds (RFC 8446 section 5.1).
const recordMax = 16 << 10

// writeRecords sends c.Parts over TLS, in as few records as they fit into: each one costs
// a call of the system.
func (c *Conn) writeRecords() error {
	record := c.Out[:0]
	for _, p := range c.Parts {
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
	c.Out = record[:0]
	if len(record) == 0 {
		return nil
	}
	_, err := c.nc.Write(record)
	return err
}

// Command sends one line, to which it adds the line end, and reads its reply, within timeout each.
func (c *Conn) Command(line string, timeout time.Duration) error {
	c.Out = append(append(c.Out, line...), '\r', '\n')
	return c.ReplyAfter(c.Flush(timeout), timeout)
}

// ReplyAfter reads the reply to a command. werr is the error of the write that sent
// it: the peer may have told us why before it closed the connection, and that is
// better than our error. A success cannot be one then.
func (c *Conn) ReplyAfter(werr error, timeout time.Duration) error {
	if werr == nil {
		return c.ReadReply(timeout)
	}
	c.Broken = true
	if IsTimeout(werr) || errors.Is(werr, ErrEarly) {
		return werr
	}
	if err := c.ReadReply(min(timeout, LastWords)); err != nil || !c.Reply.Failed() {
		return werr
	}
	return nil
}

// Quit ends the session politely, if that is still possible, and closes. It waits for
// the reply only if wait is set.
func (c *Conn) Quit(timeout time.Duration, wait bool) {
	if !c.Broken && !c.Closing {
		c.Out = append(c.Out[:0], "QUIT\r\n"...)
		c.Closing = true
		if c.Flush(timeout) != nil {
			c.Broken = true
		}
	}
	if wait && !c.Broken {
		_ = c.ReadReply(timeout) // 221, or nothing: the session is over either way
	}
	c.Close()
}
