//go:build !linux

package logfmt

import (
	"net"
	"syscall"
)

// writeLarge fails: only systemd's journal takes what is too large for a datagram.
func writeLarge(*net.UnixConn, []byte) error { return syscall.EMSGSIZE }
