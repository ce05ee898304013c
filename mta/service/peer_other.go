//go:build unix && !linux

package service

import (
	"net"
	"os"
	"syscall"
)

// peerOf is the owner of the socket that a connection leads to: these systems have no
// common way to ask who serves it.
func peerOf(c *net.UnixConn) (uid int, err error) {
	info, err := os.Stat(c.RemoteAddr().String())
	if err != nil {
		return 0, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), nil
	}
	return 0, syscall.ENOTSUP
}
