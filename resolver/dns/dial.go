package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// dialer opens connections to name servers. With connect unset UDP sockets stay
// unconnected (README 8.4, use_connect), and replies from elsewhere are dropped here.
func dialer(connect bool) Dial {
	var d net.Dialer
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "udp" || connect {
			return d.DialContext(ctx, network, address)
		}
		peer, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("address of the name server: %w", err)
		}
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, fmt.Errorf("opening a UDP socket: %w", err)
		}
		return &unconnected{UDPConn: c, peer: peer}, nil
	}
}

// unconnected is a UDP socket that talks to one peer without connect(2).
type unconnected struct {
	*net.UDPConn
	peer netip.AddrPort
}

func (u *unconnected) Write(b []byte) (int, error) { return u.WriteToUDPAddrPort(b, u.peer) }

func (u *unconnected) Read(b []byte) (int, error) {
	for {
		n, from, err := u.ReadFromUDPAddrPort(b)
		if err != nil || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == u.peer {
			return n, err
		}
	}
}
