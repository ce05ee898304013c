package settings

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"meta1/mta/listen"
)

// DaemonSocket reads one entry of daemon_address (README 8.5): host:port, where host is
// an IP address or empty for all of IPv4.
func DaemonSocket(text string) (listen.Socket, error) {
	s := listen.Socket{Network: "tcp4", UID: -1, GID: -1}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q is not host:port", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q has no port number", text)
	}
	s.Port = uint16(n)
	if host == "" || host == "*" {
		return s, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return s, fmt.Errorf("daemon_address %q has no IP address", text)
	}
	s.Network, s.Host = Network(addr), host
	return s, nil
}

// Network is the network of Go for TCP at an address: "tcp4" or "tcp6".
func Network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}
