package wire

import "net"

// recordHeader is the length of the header of a TLS record: type, version, length.
const recordHeader = 5

// recordAhead is how much is read at once where a record begins: all of the records that carry
// most groups of commands.
const recordAhead = 1 << 10

// Records is the connection as it was accepted, for crypto/tls to read its records from.
func (c *Conn) Records() net.Conn { return &recordConn{Conn: c.raw} }

// recordConn is a connection that carries TLS records. It is read so that behind a large
// record nothing of the next one comes with it: crypto/tls would double the buffer that it keeps
// for each connection as long as that lasts, from 18 KB to 40 KB, also while the client is idle.
type recordConn struct {
	net.Conn
	header [recordHeader]byte
	have   int // bytes of header
	left   int // bytes of the record behind its header that have not come yet
}

// Read reads to the end of a record at most, or a little ahead.
func (c *recordConn) Read(p []byte) (int, error) {
	most := recordAhead
	if c.left > 0 {
		most = c.left
	}
	n, err := c.Conn.Read(p[:min(len(p), most)])
	c.pass(p[:n])
	return n, err
}

// pass follows the records in what was read.
func (c *recordConn) pass(b []byte) {
	for len(b) > 0 {
		if c.left > 0 {
			n := min(c.left, len(b))
			c.left, b = c.left-n, b[n:]
			continue
		}
		n := copy(c.header[c.have:], b)
		c.have, b = c.have+n, b[n:]
		if c.have == recordHeader {
			c.have, c.left = 0, int(c.header[3])<<8|int(c.header[4])
		}
	}
}
