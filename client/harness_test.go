package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What package content goes by, for sizes and times here: how much goes out under one timeout, and how slow a host may be, in
// bytes per second.
const (
	chunkMax    = 256 << 10
	dataRateMin = 500
)

// memBody is content in memory, of which is known what a server knows of it.
type memBody []byte

func (b memBody) Size() int64   { return int64(len(b)) }
func (b memBody) Bytes() []byte { return b }
func (b memBody) Shape() msg.Shape {
	return msg.Shape{
		ASCII:  !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 }),
		NoDots: !bytes.HasPrefix(b, []byte(".")) && !bytes.Contains(b, []byte("\r\n.")),
	}
}

func (b memBody) Open() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b)), nil
}

// briefBody is content that leaves memory as soon as it was asked for.
type briefBody struct {
	fileBody
	asked atomic.Bool
}

func (b *briefBody) Bytes() []byte {
	if b.asked.Swap(true) {
		return nil
	}
	return b.data
}

// fileBody is content that must be read. After failAfter bytes (if not zero) it fails.
type fileBody struct {
	data      []byte
	failAfter int
	openErr   error
}

func (b fileBody) Size() int64    { return int64(len(b.data)) }
func (b fileBody) Bytes() []byte  { return nil }
func (fileBody) Shape() msg.Shape { return msg.Shape{} }
func (b fileBody) Open() (io.ReadCloser, error) {
	if b.openErr != nil {
		return nil, b.openErr
	}
	var r io.Reader = bytes.NewReader(b.data)
	if b.failAfter > 0 {
		r = io.MultiReader(io.LimitReader(r, int64(b.failAfter)), errReader{})
	}
	return io.NopCloser(r), nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("disk error") }

// network gives each dial the next of its servers. A nil server refuses.
type network struct {
	mu      sync.Mutex
	servers []func(net.Conn)
	dials   int
	group   *supervise.Group
	sockets bool // connections are sockets of the system, which have room for what is not yet read
}

func newNetwork(servers ...func(net.Conn)) *network {
	return &network{servers: servers, group: supervise.NewGroup(context.Background())}
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := min(n.dials, len(n.servers)-1)
	n.dials++
	serve := n.servers[i]
	if serve == nil {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	if n.sockets {
		var err error
		if ours, theirs, err = socketPair(); err != nil {
			return nil, err
		}
	}
	n.group.Go(func(context.Context) error {
		defer theirs.Close()
		serve(theirs)
		return nil
	})
	return ours, nil
}

// socketPair is a connection whose both ends are sockets.
func socketPair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// listen serves every connection to an address on loopback until the test ends.
func listen(tb testing.TB, serve func(net.Conn)) netip.AddrPort {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(context.Context) error {
		for {
			nc, err := l.Accept()
			if err != nil {
				return nil
			}
			g.Go(func(context.Context) error {
				defer nc.Close()
				serve(nc)
				return nil
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		if err := g.Wait(); err != nil {
			tb.Error(err)
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// provider is what a section tls gives.
func provider(t testing.TB, s tlsconf.Section) *tlsconf.Provider {
	t.Helper()
	p, err := tlsconf.New(s, tlsconf.Deps{Role: tlsconf.Client, Name: "smtpc"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// running is a client under test.
type running struct {
	*Client
	ports *msg.Ports
	net   *network
	stop  func() error
}

// start runs a client against the servers of n. The test calls stop, or its end does.
func start(t testing.TB, cfg Config, deps Deps, n *network) *running {
	t.Helper()
	if deps.Ports == nil {
		deps.Ports = msg.NewPorts()
	}
	if deps.Hostname == "" {
		deps.Hostname = "client.example"
	}
	if n != nil {
		deps.Dial = n.dial
	}
	if deps.TLS == nil {
		deps.TLS = provider(t, cfg.TLS)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Client: New(cfg, deps), ports: deps.Ports, net: n}
	g := supervise.NewGroup(ctx)
	g.Go(r.Run)
	var once sync.Once
	var err error
	r.stop = func() error {
		once.Do(func() {
			cancel()
			err = g.Wait()
			if n != nil {
				n.group.Stop()
				if nerr := n.group.Wait(); err == nil {
					err = nerr
				}
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return r
}

// deliver asks for one delivery. It waits until the port is open.
func (r *running) deliver(t testing.TB, q msg.DeliverQ) msg.DeliverA {
	t.Helper()
	a, err := r.ask(context.Background(), q)
	if err != nil {
		t.Fatalf("ask: %v", err)
	}
	return a
}

func (r *running) ask(ctx context.Context, q msg.DeliverQ) (msg.DeliverA, error) {
	for !r.started() {
		time.Sleep(time.Millisecond)
	}
	return r.ports.Deliver.Ask(ctx, q)
}

// started reports that Run has opened its ports.
func (r *running) started() bool { return r.threads.Load() > 0 }

// question is one recipient, a small message, and the hop of all tests.
func question() msg.DeliverQ {
	return msg.DeliverQ{
		Hop:   msg.Hop{Addr: netip.MustParseAddrPort("192.0.2.1:25"), Host: "mx.example"},
		TA:    smtp.ID{Counter: 0x407EAE4E, Process: 0},
		Mail:  msg.Mail{From: smtp.Path{Local: "from", Domain: "a.example"}},
		Rcpts: []msg.Rcpt{{To: smtp.Path{Local: "to", Domain: "b.example"}}},
		Body:  memBody("Subject: x\r\n\r\nhello\r\n"),
	}
}
