//go:build !unix

package wire

import "net"

// peekInput cannot be done here; greet_pause finds early talkers.
func peekInput(net.Conn, []byte) int { return 0 }
