//go:build !unix

package server

import "net"

// pendingInput cannot be found out here; greet_pause can.
func pendingInput(net.Conn) bool { return false }
