//go:build unix

package wire

import (
	"net"
	"syscall"
)

// peekInput copies what has arrived on conn to b as far as there is room, without waiting
// and without reading it. It is none for connections that are no sockets.
func peekInput(conn net.Conn, b []byte) (n int) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Read(func(fd uintptr) bool {
		n, _, _ = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}
