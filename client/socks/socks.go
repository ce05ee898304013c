// Package socks is the section proxy of smtpc: which SOCKS5 proxy there is (RFC 1928, with user and
// password by RFC 1929), and connections through it. It tells a host that the proxy cannot reach
// ([HostError]) from a proxy that fails ([Error]), which says nothing of the host.
package socks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/proxy"

	"meta1/client/wire"
	"meta1/confparse"
)

// Config is the section proxy (README 3.11, item 7; 4.6): a SOCKS5 proxy (RFC 1928) with user
// and password (RFC 1929) if a key is set. Two that are the same can be compared.
type Config struct {
	Type    string     // of the proxy's socket: "inet", "inet6" or "unix"
	Port    int        // of inet and inet6
	Address netip.Addr // of inet and inet6
	Path    string     // of unix
	User    string
	Key     string // "": we do not say who we are
}

// RFC 1929 counts user and password in one octet each.
const wordMax = 255

// Options is the table of section proxy, bound to p.
func (p *Config) Options() *confparse.Table {
	return &confparse.Table{Check: p.check, Options: []confparse.Option{
		{
			Name: "type", Type: confparse.Enum, Words: []string{"inet", "inet6", "unix"}, Default: "inet",
			Readme: "3.11", Into: &p.Type,
			Doc: "Type of the proxy's socket.",
		},
		{
			Name: "port", Type: confparse.Int, Default: "1080", Min: "1", Max: "65535", Readme: "3.11", Into: &p.Port,
			Doc: "Port of the proxy (inet and inet6); the default is that of SOCKS (RFC 1928).",
		},
		{
			Name: "address", Type: confparse.IP, Readme: "3.11", Into: &p.Address,
			Doc: "IP address of the proxy (inet and inet6).",
		},
		{
			Name: "path", Type: confparse.Path, Readme: "3.11", Into: &p.Path,
			Doc: "Path of the proxy's Unix socket (unix).",
		},
		{
			Name: "user", Type: confparse.String, Default: "meta1", Readme: "own", Into: &p.User,
			Doc: "User name for the proxy, if there is a proxy_key: 1 to 255 octets.",
		},
		{
			Name: "proxy_key", Type: confparse.String, Readme: "3.11", Into: &p.Key, Secret: true,
			Doc: "Key shared with the proxy: the password of RFC 1929, at most 255 octets. SOCKS sends it in the clear.",
		},
	}}
}

// check refuses a section that names no proxy.
func (p *Config) check(r *confparse.Report) {
	switch {
	case p.Type == "unix" && p.Path == "":
		r.Errorf("type", "a proxy of type unix needs a path")
	case p.Type != "unix" && !p.Address.IsValid():
		r.Errorf("type", "a proxy of type %s needs an address", p.Type)
	case p.Type == "inet" && !p.Address.Unmap().Is4(), p.Type == "inet6" && p.Address.Unmap().Is4():
		r.Errorf("address", "%s is no address of type %s", p.Address, p.Type)
	}
	if len(p.Key) > wordMax {
		r.Errorf("proxy_key", "has %d octets, and SOCKS allows %d", len(p.Key), wordMax)
	}
	if p.User == "" || len(p.User) > wordMax {
		r.Errorf("user", "has %d octets, and SOCKS allows 1 to %d", len(p.User), wordMax)
	}
}

// Error is a failure of the proxy itself. It says nothing of the host.
type Error struct{ err error }

func (e *Error) Error() string { return "the proxy failed: " + e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// HostError is what a proxy says of a host that it cannot reach.
type HostError struct {
	says    string
	Refused bool // the host is there, and refused the connection
}

func (e *HostError) Error() string { return "the proxy says: " + e.says }

// Dial opens a connection to addr, an IP address and a port, through the proxy, to which dial
// connects. It obeys ctx if dial does. The error is a *HostError if the proxy
// answered that it cannot reach the host, or nothing in time, else a *Error.
func (p *Config) Dial(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string) (net.Conn, error) {
	network, at := "tcp", net.JoinHostPort(p.Address.String(), strconv.Itoa(p.Port))
	if p.Type == "unix" {
		network, at = "unix", p.Path
	}
	var auth *proxy.Auth
	if p.Key != "" {
		auth = &proxy.Auth{User: p.User, Password: p.Key}
	}
	to := &toProxy{dial: dial}
	d, err := proxy.SOCKS5(network, at, auth, to)
	if err != nil {
		return nil, &Error{err}
	}
	if _, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr); err != nil {
		return nil, to.failure(err)
	}
	// The proxy's own connection, which behaves as one without a proxy, and not the library's
	// cover for it.
	return to.conn, nil
}

// toProxy connects to the proxy and keeps the connection.
type toProxy struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	conn net.Conn
}

// Dial is not called: the library prefers DialContext.
func (t *toProxy) Dial(network, addr string) (net.Conn, error) {
	return t.DialContext(context.Background(), network, addr)
}

func (t *toProxy) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := t.dial(ctx, network, addr)
	if err == nil {
		t.conn = conn
	}
	return conn, err
}

// failure tells a host that the proxy cannot reach from a proxy that fails. The library gives
// the replies of RFC 1928 section 6 in words only. A proxy that does not answer in time is
// most likely waiting for the host.
func (t *toProxy) failure(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // without the addresses, which the reply has
	}
	if t.conn != nil && (wire.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded)) {
		return &HostError{says: "nothing in time"}
	}
	says, answered := strings.CutPrefix(err.Error(), "unknown error ")
	if t.conn == nil || !answered {
		return &Error{err}
	}
	switch says {
	case "connection refused":
		return &HostError{says: says, Refused: true}
	case "host unreachable", "network unreachable", "TTL expired":
		return &HostError{says: says}
	}
	return &Error{errors.New(says)}
}
