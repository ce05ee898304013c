package client

import (
	"flag"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"meta1/mta/msg"
)

// cutting passes bytes of a connection on until it has passed some of one direction, then it
// closes it, or changes one byte.
type cutting struct {
	net.Conn
	left   *atomic.Int64 // bytes that still pass; negative: all
	garble bool
	reads  bool // count what the client sends, else what the server does
}

// pass is how many of n bytes pass, and whether that is the end.
func (c *cutting) pass(n int) (int, bool) {
	if left := c.left.Add(-int64(n)); left < 0 && left+int64(n) >= 0 {
		return n + int(left), true
	}
	return n, false
}

func (c *cutting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.reads {
		return n, err
	}
	keep, cut := c.pass(n)
	switch {
	case cut && c.garble && keep < n:
		p[keep] ^= 0x55
	case cut:
		c.Conn.Close()
		return keep, net.ErrClosed
	}
	return n, err
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.reads {
		return c.Conn.Write(p)
	}
	keep, cut := c.pass(len(p))
	switch {
	case cut && c.garble && keep < len(p):
		p = append([]byte(nil), p...)
		p[keep] ^= 0x55
	case cut:
		_, _ = c.Conn.Write(p[:keep])
		c.Conn.Close()
		return keep, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// everyByte has TestTLSCut look at each byte, which takes minutes.
var everyByte = flag.Bool("everybyte", false, "cut connections at every byte of the dialogue")

// TestTLSCut cuts or garbles the first connection at every so many bytes of either direction:
// from the greeting over the handshake to the reply to the final dot. What the client says was
// delivered the server has accepted; what the server has accepted the client says was
// delivered, or that it does not know; and mail that demands TLS never goes without.
func TestTLSCut(t *testing.T) {
	step := int64(97)
	if *everyByte {
		step = 1
	}
	for _, must := range []bool{false, true} {
		for _, garble := range []bool{false, true} {
			for _, reads := range []bool{false, true} {
				for at := int64(0); at < 3000; at += step {
					cutOnce(t, at, must, garble, reads)
				}
			}
		}
	}
}

func cutOnce(t *testing.T, at int64, must, garble, reads bool) {
	t.Helper()
	s := newTLSServer("trusted")
	var left atomic.Int64
	left.Store(at)
	ours, theirs := 0, 0
	n := newNetwork(func(nc net.Conn) { s.serve(&cutting{Conn: nc, left: &left, garble: garble, reads: reads}) }, s.serve)
	n.sockets = true
	cfg := Config{}
	cfg.IOTimeout = time.Second // a garbled length has one side wait for what does not come
	r := start(t, cfg, Deps{}, n)
	q := to(netip.MustParseAddrPort("192.0.2.1:25"))
	if must {
		q.SessionConf = parseConf(t, "tls_requirements { flags=encrypted }")
	}
	a := r.deliver(t, q)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	messages, _, _ := s.took()
	theirs = len(messages)
	if a.Rcpts[0].Accepted() {
		ours = 1
	}
	if ours > theirs || theirs > ours && !a.Unknown || a.Rcpts[0].IsZero() || a.Rcpts[0].Permanent() {
		t.Errorf("cut at %d (must %v, garbled %v, of the client %v): the server has %d messages, %+v", at, must, garble, reads, theirs, a)
	}
	for _, m := range messages {
		if must && !strings.HasPrefix(m, "tls:") || !strings.Contains(m, "hello\r\n.\r\n") {
			t.Errorf("cut at %d: the server has %q", at, m)
		}
	}
	if must && a.Rcpts[0].Accepted() && a.TLS.Level == msg.TLSNone {
		t.Errorf("cut at %d: %+v", at, a)
	}
}
