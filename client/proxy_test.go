package client

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/client/socks"
	"meta1/mta/msg"
)

// socksServer is a SOCKS5 proxy: it expects and says each part of a script in turn ("<" and
// ">" in front), and then is the server.
func socksServer(t *testing.T, server func(net.Conn), script ...string) func(net.Conn) {
	return func(nc net.Conn) {
		for _, part := range script {
			if part[0] == '>' {
				if _, err := io.WriteString(nc, part[1:]); err != nil {
					return
				}
				continue
			}
			got := make([]byte, len(part)-1)
			if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, []byte(part[1:])) {
				t.Errorf("the proxy got %q %v, want %q", got, err, part[1:])
				return
			}
		}
		if server != nil {
			server(nc)
		}
	}
}

// The request for 192.0.2.1 port 25 and replies to it (RFC 1928 sections 4 and 6).
const (
	socksRequest = "<\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"
	socksBound   = "\x00\x01\x00\x00\x00\x00\x00\x00"
)

func socksReply(code string) string { return ">\x05" + code + socksBound }

// TestProxy: what a proxy says of a host counts for the host, and what it says of itself does not.
func TestProxy(t *testing.T) {
	for name, c := range map[string]struct {
		script     []string // nil: the proxy cannot be reached
		code       int
		text       string
		hostFailed bool
	}{
		"open":        {script: []string{"<\x05\x01\x00", ">\x05\x00", socksRequest, socksReply("\x00")}, code: 250},
		"down":        {code: 451, text: "the proxy failed: connection refused"},
		"failure":     {script: []string{"<\x05\x01\x00", ">\x05\x00", socksRequest, socksReply("\x01")}, code: 451, text: "the proxy failed: general SOCKS server failure"},
		"unreachable": {script: []string{"<\x05\x01\x00", ">\x05\x00", socksRequest, socksReply("\x04")}, code: 451, text: "the proxy says: host unreachable", hostFailed: true},
		"refused":     {script: []string{"<\x05\x01\x00", ">\x05\x00", socksRequest, socksReply("\x05")}, code: 451, text: "the proxy says: connection refused", hostFailed: true},
	} {
		t.Run(name, func(t *testing.T) {
			var serve func(net.Conn)
			if c.script != nil {
				var server func(net.Conn)
				if c.code == 250 {
					server = acceptAll(func() {})
				}
				serve = socksServer(t, server, c.script...)
			}
			cfg := Config{ProxyPresent: true, Proxy: socks.Config{Type: "inet", Address: netip.MustParseAddr("192.0.2.80"), Port: 1080, User: "meta1"}}
			a := start(t, cfg, Deps{}, newNetwork(serve)).deliver(t, question())
			if r := a.Rcpts[0]; r.Code != c.code || !strings.Contains(r.String(), c.text) || a.HostFailed != c.hostFailed {
				t.Errorf("%s, host failed %v", r, a.HostFailed)
			}
			if c.code != 250 && a.Stage != msg.DeliverConnect {
				t.Errorf("stage %s", a.Stage)
			}
		})
	}
}

// TestProxyHangs: a proxy that does not answer, most likely because the host does not, is
// left after the time for a connection.
func TestProxyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }
		cfg := Config{ProxyPresent: true, Proxy: socks.Config{Type: "unix", Path: "/proxy"}}
		r := start(t, cfg, Deps{}, newNetwork(socksServer(t, hang, "<\x05\x01\x00", ">\x05\x00", socksRequest)))
		begin := time.Now()
		a := r.deliver(t, question())
		if took := time.Since(begin); took < connectTimeoutDefault || took > connectTimeoutDefault+time.Second {
			t.Errorf("took %v", took)
		}
		if !a.HostFailed || !strings.Contains(a.Rcpts[0].String(), "the proxy says: nothing in time") {
			t.Errorf("%+v", a)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestProxyNotForLMTP: a delivery agent is spoken to directly.
func TestProxyNotForLMTP(t *testing.T) {
	cfg := Config{ProxyPresent: true, Proxy: socks.Config{Type: "inet", Address: netip.MustParseAddr("192.0.2.80"), Port: 1080}}
	q := question()
	q.Hop.Protocol = msg.ProtoLMTP
	if a := start(t, cfg, Deps{}, newNetwork(acceptAll(func() {}))).deliver(t, q); !a.Rcpts[0].Accepted() {
		t.Errorf("%+v", a)
	}
}
