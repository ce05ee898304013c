//go:build !linux && !darwin && !freebsd

package access

import "net"

const knowsPeers = false

// peerOf has no way to ask on this system.
func peerOf(*net.UnixConn) (peer, error) { return peer{}, errNoPeers }
