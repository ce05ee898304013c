//go:build unix

package wire

import (
	"io"
	"os"
	"syscall"
)

// idleRead reads from a connection into buffers that the session gets only when there is
// something to read. It costs no system call more than net.Conn.Read, which tries to read
// before it waits, too.
type idleRead struct {
	raw syscall.RawConn // nil: the connection is no socket, or what it carries is encrypted
	try func(fd uintptr) bool
	n   int
	err error
}

// init prepares the reading for a wire.
func (i *idleRead) init(c *Conn) {
	*i = idleRead{}
	sc, ok := c.conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	i.raw, i.try = raw, c.tryRead
}

// able reports whether read works for this connection.
func (i *idleRead) able() bool { return i.raw != nil }

// read waits until there is input, or the deadline of the connection has passed.
func (i *idleRead) read() (int, error) {
	i.n, i.err = 0, nil
	if err := i.raw.Read(i.try); err != nil {
		return 0, err
	}
	return i.n, i.err
}

// tryRead reads what is there. It reports false if that is nothing; then the session
// has no buffers.
func (c *Conn) tryRead(fd uintptr) bool {
	c.Acquire()
	for {
		n, err := syscall.Read(int(fd), c.buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.release()
			return false
		case err != nil:
			c.idle.err = os.NewSyscallError("read", err)
		case n == 0:
			c.idle.err = io.EOF
		}
		c.idle.n = max(n, 0)
		return true
	}
}
