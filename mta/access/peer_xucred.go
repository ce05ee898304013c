//go:build darwin || freebsd

package access

import (
	"net"

	"golang.org/x/sys/unix"
)

const knowsPeers = true

// solLocal is SOL_LOCAL of sys/un.h, which x/sys does not have everywhere.
const solLocal = 0

// peerOf asks the kernel for the account that has connected (LOCAL_PEERCRED of unix(4)).
func peerOf(c *net.UnixConn) (p peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Xucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return p, err
	}
	p = peer{uid: int(cred.Uid), gid: -1}
	for i := 0; i < int(cred.Ngroups) && i < len(cred.Groups); i++ {
		p.groups = append(p.groups, int(cred.Groups[i]))
	}
	return p, nil
}
