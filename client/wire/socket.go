package wire

import (
	"net"
	"os"
	"syscall"
	"time"
)

// socket is the connection below TLS. It can be read without waiting, which crypto/tls alone
// does not offer.
type socket struct {
	net.Conn
	raw     syscall.RawConn // nil if it is no socket of the system
	noWait  bool            // Read does not wait; only the user of the connection sets it
	scratch [1]byte
}

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // without it Heard knows less
	}
	return s
}

// Read reads. With noWait it fails with os.ErrDeadlineExceeded if nothing is there, which
// crypto/tls takes as a reason to try again later.
func (s *socket) Read(p []byte) (int, error) {
	if !s.noWait {
		return s.Conn.Read(p)
	}
	if s.raw == nil {
		return 0, os.ErrDeadlineExceeded
	}
	var n int
	var readErr error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, readErr = syscall.Recvfrom(int(fd), p, 0)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case readErr == syscall.EAGAIN, readErr == syscall.EINTR:
		return 0, os.ErrDeadlineExceeded
	case readErr != nil:
		return 0, os.NewSyscallError("recvfrom", readErr)
	case n == 0:
		return s.Conn.Read(p) // it is over, and this says so
	}
	return n, nil
}

// readable reports that there is something to be read, or the end. It does not wait, and
// takes nothing.
func (s *socket) readable() bool {
	if s.raw == nil || s.SetReadDeadline(time.Time{}) != nil {
		return false // the next write or read will tell
	}
	there := false
	err := s.raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), s.scratch[:], syscall.MSG_PEEK) // the socket does not block
		there = err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return err == nil && there
}

// readNow reads what is there through nc, the TLS over this socket, without waiting. over
// reports the end.
func (s *socket) readNow(nc net.Conn, p []byte) (n int, over bool) {
	if s.SetReadDeadline(time.Time{}) != nil {
		return 0, true
	}
	s.noWait = true
	n, err := nc.Read(p)
	s.noWait = false
	return n, err != nil && !IsTimeout(err)
}
