package access

import (
	"net"

	"golang.org/x/sys/unix"
)

const knowsPeers = true

// peerOf asks the kernel for the account that has connected (SO_PEERCRED of unix(7)).
func peerOf(c *net.UnixConn) (p peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return p, err
	}
	return peer{uid: int(cred.Uid), gid: int(cred.Gid)}, nil
}
