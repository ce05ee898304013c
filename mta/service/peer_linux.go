package service

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf is the user who serves the other end of a connection.
func peerOf(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) { cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = sockErr
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
