package server

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"meta1/confparse"
	"meta1/mta/smtp"
	"meta1/server/crowd"
	"meta1/server/proxy"
	"meta1/server/wire"
)

// Connections that a proxy hands on with a PROXY header (README 3.10 item 20, 4.6).

// Proxy holds subsection proxy: the proxy that may connect.
type Proxy struct {
	Socket
	Networks      []string // more of them
	HeaderTimeout time.Duration
	Others        string // what becomes of connections from elsewhere

	nets []netip.Prefix // Address and Networks
}

// The words of the option others.
const (
	othersRefuse = "refuse"
	othersAccept = "accept"
)

// The replies to connections that do not come as they should. No client of a proxy that works
// sees them.
var (
	replyElsewhere = smtp.NewReply(554, "5.7.1", "Only a proxy may connect here")
	replyNoHeader  = smtp.NewReply(421, "4.7.0", "The PROXY header is missing or wrong")
)

// errNoKey says that a header has not the key of client_key.
var errNoKey = errors.New("the PROXY header does not have the key of the option client_key")

func (p *Proxy) table() *confparse.Table {
	t := p.Socket.table("The proxy that may connect to this server.", true)
	t.Check = p.check
	for i := range t.Options {
		switch o := &t.Options[i]; o.Name {
		case "type":
			o.Default = "inet"
		case "port":
			o.Doc = "The port from which the proxy connects, for inet and inet6; without it, or 0, any."
		case "path":
			o.Doc = "For unix: the listen_socket of this section, by its path, to which the proxy connects. Without it, each of type unix."
		case "client_key":
			o.Doc = "The key that the proxy shares with us: the value of the extension (TLV) 0xE0 of its PROXY header of version 2. A connection without it is refused. HAProxy 2.9 and later sends it: set-proxy-v2-tlv-fmt(0xE0)."
		}
	}
	t.Options = append(
		t.Options,
		confparse.Option{
			Name: "networks", Type: confparse.List, Readme: "own", Into: &p.Networks,
			Doc: "Addresses and networks (192.0.2.0/24) of more proxies, for inet and inet6.",
		},
		confparse.Option{
			Name: "header_timeout", Type: confparse.Time, Unit: "s", Default: "5", Min: "1", Max: "1m", Readme: "own", Into: &p.HeaderTimeout,
			Doc: "How long the proxy may take for its PROXY header. Default as Postfix's smtpd_upstream_proxy_timeout.",
		},
		confparse.Option{
			Name: "others", Type: confparse.Enum, Words: []string{othersRefuse, othersAccept}, Default: othersRefuse, Readme: "own", Into: &p.Others,
			Doc: "What becomes of connections from elsewhere: refuse sends 554, accept takes them as they are, without a PROXY header.",
		},
	)
	return t
}

func (p *Proxy) check(r *confparse.Report) {
	nets, err := parseNetworks(p.Networks)
	switch {
	case err != nil:
		r.Errorf("networks", "networks: %v", err)
	case p.Type == "unix" && (p.Address.IsValid() || len(nets) > 0):
		r.Errorf("type", "a proxy of type unix has no address and no networks")
	case p.Type != "unix" && p.Path != "":
		r.Errorf("path", "path is for a proxy of type unix")
	case p.Type != "unix" && !p.Address.IsValid() && len(nets) == 0:
		r.Errorf("", "section proxy needs the address of the proxy, or networks, or the type unix")
	}
}

// parseNetworks reads a list of addresses and networks.
func parseNetworks(list []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an IP address nor a network such as 192.0.2.0/24", text)
		}
		if p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return nil, fmt.Errorf("%q: write an IPv4 address as such, and no zone", text)
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

// in reports whether an address is in one of the networks.
func in(nets []netip.Prefix, addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// prepare finds the networks of the section. What is wrong with them check has told.
func (p *Proxy) prepare() error {
	nets, err := parseNetworks(p.Networks)
	if p.Address.IsValid() {
		a := p.Address.WithZone("").Unmap()
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
	}
	p.nets = nets
	if p.HeaderTimeout <= 0 {
		p.HeaderTimeout = 5 * time.Second
	}
	return err
}

// sent reports whether a connection comes from the proxy.
func (p *Proxy) sent(conn net.Conn) bool {
	if p.Type == "unix" {
		own, ok := conn.LocalAddr().(*net.UnixAddr)
		return ok && (p.Path == "" || own.Name == p.Path || strings.HasSuffix(own.Name, "/"+p.Path))
	}
	remote, ok := addrPort(conn.RemoteAddr())
	return ok && in(p.nets, remote.Addr()) && (p.Port == 0 || p.Port == int(remote.Port()))
}

// origin is where a session comes from, beside the address of its connection.
type origin struct {
	peer    netip.Addr    // the address of the connection, or that of the PROXY header
	via     *proxy.Header // of a connection that comes by the proxy; empty before it was read
	forward *forward      // of XFORWARD; nil: none
	local   bool          // the client is this host
}

// introduced reads the PROXY header, if there has to be one. From then on the client is the one
// that it names. It reports whether the session may go on.
func (c *session) introduced() bool {
	if c.from.via == nil {
		return true
	}
	h, err := c.readHeader()
	switch {
	case errors.Is(err, wire.ErrRoom), errors.Is(err, wire.ErrHalted):
		c.lost(err)
		return false
	case err != nil:
		c.refuse(refusedHeader, replyNoHeader, slog.Any("error", err))
		return false
	}
	*c.from.via = h
	if !h.Local {
		c.client.IP, c.client.Port = h.Source.Addr(), h.Source.Port()
	}
	c.from.peer = c.client.IP
	if r, reason := c.srv.identify(c, c.client.IP); !r.IsZero() {
		c.refuse(reason, r)
		return false
	}
	return true
}

// readHeader reads the PROXY header and checks what can be wrong with it.
func (c *session) readHeader() (proxy.Header, error) {
	w, p := c.wire, &c.srv.cfg.Proxy
	var h proxy.Header
	err := w.Until(time.Now().Add(p.HeaderTimeout), func() (err error) {
		if !w.Guest.Wait(crowd.Waiting) {
			return wire.ErrRoom
		}
		if h, err = proxy.Read(w.Raw()); !w.Guest.Resume() {
			err = wire.ErrRoom
		}
		return err
	})
	switch {
	case err != nil:
		return h, err
	case p.ClientKey != "" && subtle.ConstantTimeCompare(h.Key, []byte(p.ClientKey)) != 1:
		return h, errNoKey
	case h.Source.Addr().IsLoopback() && c.client.IP.IsValid() && !c.client.IP.IsLoopback():
		// The other host's own clients must not be taken for those of this one.
		return h, fmt.Errorf("%w: a loopback address of another host", proxy.ErrNoAddress)
	}
	h.Key = nil // nobody needs it any more
	return h, nil
}

// appendVia adds what a PROXY header said to the log's line of the session.
func (c *session) appendVia(attrs []slog.Attr) []slog.Attr {
	h := c.from.via
	if h == nil {
		return attrs
	}
	by := "local"
	if remote, ok := addrPort(c.wire.Raw().RemoteAddr()); ok {
		by = remote.Addr().String()
	}
	attrs = append(attrs, slog.String("proxy", by))
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	if h.Destination.IsValid() {
		add("proxy_dest", h.Destination.String())
	}
	add("proxy_sni", h.Authority)
	add("proxy_id", h.UniqueID)
	if t := h.TLS; t != nil {
		add("proxy_tls", t.Version)
		add("proxy_cipher", t.Cipher)
		add("proxy_cert_name", t.CertName)
		if t.CertName != "" || t.Verified {
			add("proxy_verify", map[bool]string{true: "ok", false: "no"}[t.Verified])
		}
	}
	return attrs
}
