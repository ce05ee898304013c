package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"

	"meta1/client/auth"
	"meta1/client/tlspolicy"
	"meta1/mta/msg"
)

// lineOf tells over which connections a request may go.
func (c *Client) lineOf(q *msg.DeliverQ, cl *class, tls tlspolicy.Policy, login auth.Login) line {
	hop := q.Hop
	hop.DANE, hop.STS = false, msg.STSNone // what they led to is in tls
	l := line{hop: hop, source: sourceFor(q), most: c.deps.TransactionsPerSession, class: cl, tls: tls, login: login, provider: shared{q.Provider, q.ConnectionsMax}}
	if q.TransactionsMax > 0 {
		l.most = q.TransactionsMax
	}
	return l
}

// sourceFor chooses the local address: one of the hop's family, or the zero Addr if
// there is none. Several share the transactions; one transaction has the same at
// each host.
func sourceFor(q *msg.DeliverQ) netip.Addr {
	if len(q.Source) == 0 || q.Hop.Socket != "" {
		return netip.Addr{}
	}
	fits := make([]netip.Addr, 0, len(q.Source))
	for _, ip := range q.Source {
		if ip = ip.Unmap(); ip.Is4() == q.Hop.Addr.Addr().Unmap().Is4() {
			fits = append(fits, ip)
		}
	}
	if len(fits) == 0 {
		return netip.Addr{}
	}
	// Sessions take numbers, too: without the product, transactions could have every
	// second one, and two addresses would not be taken in turn.
	mixed := q.TA.Counter * 0x9E3779B97F4A7C15 >> 32
	return fits[mixed%uint64(len(fits))]
}

// dial opens a connection. If the local address cannot be bound to, it says so in the
// log and goes on without (README 3.8, item 16i).
func (c *Client) dial(ctx context.Context, to line, id string) (net.Conn, error) {
	if to.hop.Socket != "" {
		return c.deps.Dial(ctx, "unix", to.hop.Socket)
	}
	addr := to.hop.Addr.String()
	if c.cfg.ProxyPresent && to.hop.Protocol == msg.ProtoSMTP {
		return c.cfg.Proxy.Dial(ctx, c.deps.Dial, addr)
	}
	if !to.source.IsValid() {
		return c.deps.Dial(ctx, "tcp", addr)
	}
	nc, err := c.deps.DialFrom(ctx, to.source, addr)
	if !isBindError(err) {
		return nc, err
	}
	c.log.LogAttrs(ctx, slog.LevelWarn, "cannot bind to the source address: connecting without",
		append(hopAttrs(to.hop), slog.String("da_se", id), slog.String("source", to.source.String()), slog.Any("error", err))...)
	return c.deps.Dial(ctx, "tcp", addr)
}

// isBindError reports that bind(2) failed, not connect(2).
func isBindError(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call) && call.Syscall == "bind"
}

// dialFrom is the usual Deps.DialFrom.
func dialFrom(ctx context.Context, source netip.Addr, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: source.AsSlice(), Zone: source.Zone()}}
	return d.DialContext(ctx, "tcp", addr)
}
