package client

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// sources notes from where connections were made.
type sources struct {
	mu   sync.Mutex
	from []string
}

func (s *sources) add(from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = append(s.from, from)
}

func (s *sources) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.from, " ")
}

// TestSourceIsOfTheConnection: a connection from one local address never serves a
// transaction that is to come from another, or from none.
func TestSourceIsOfTheConnection(t *testing.T) {
	var from sources
	n := newNetwork(acceptAll(func() {}))
	deps := Deps{
		ReuseConnections: true,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			from.add("any")
			return n.dial(ctx, network, addr)
		},
		DialFrom: func(ctx context.Context, source netip.Addr, addr string) (net.Conn, error) {
			from.add(source.String())
			return n.dial(ctx, "tcp", addr)
		},
	}
	r := start(t, Config{}, deps, nil)
	for _, list := range []string{"", "192.0.2.9", "", "192.0.2.9", "2001:db8::9 192.0.2.8", "192.0.2.8", "2001:db8::9"} {
		q := question()
		for _, ip := range strings.Fields(list) {
			q.Source = append(q.Source, netip.MustParseAddr(ip))
		}
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
			t.Errorf("from %q: %+v", list, a)
		}
	}
	if got := from.String(); got != "any 192.0.2.9 192.0.2.8" {
		t.Errorf("connections from %s", got)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if err := n.group.Wait(); err != nil {
		t.Error(err)
	}
}

// TestTransactionsMaxOfTheRequest: the bound of a request holds for its connection.
func TestTransactionsMaxOfTheRequest(t *testing.T) {
	n := newNetwork(acceptAll(func() {}))
	r := start(t, Config{}, Deps{ReuseConnections: true, TransactionsPerSession: 100}, n)
	for i, want := range []int{1, 1, 2, 2} {
		q := question()
		q.TransactionsMax = 2
		r.deliver(t, q)
		if got := n.dialed(); got != want {
			t.Errorf("%d connections after %d transactions, want %d", got, i+1, want)
		}
	}
	r.deliver(t, question())
	r.deliver(t, question())
	r.deliver(t, question())
	if got := n.dialed(); got != 3 {
		t.Errorf("%d connections", got)
	}
}

func TestSourceFor(t *testing.T) {
	ips := func(list ...string) (a []netip.Addr) {
		for _, s := range list {
			a = append(a, netip.MustParseAddr(s))
		}
		return a
	}
	v4 := msg.Hop{Addr: netip.MustParseAddrPort("192.0.2.1:25")}
	v6 := msg.Hop{Addr: netip.MustParseAddrPort("[2001:db8::1]:25")}
	for name, c := range map[string]struct {
		hop    msg.Hop
		source []netip.Addr
		want   string
	}{
		"none":             {v4, nil, "invalid IP"},
		"same family":      {v4, ips("2001:db8::9", "192.0.2.9"), "192.0.2.9"},
		"mapped":           {v4, ips("::ffff:192.0.2.9"), "192.0.2.9"},
		"IPv6":             {v6, ips("192.0.2.9", "2001:db8::9"), "2001:db8::9"},
		"no fitting one":   {v6, ips("192.0.2.9"), "invalid IP"},
		"over Unix socket": {msg.Hop{Socket: "/s"}, ips("192.0.2.9", "2001:db8::9"), "invalid IP"},
	} {
		if got := sourceFor(&msg.DeliverQ{Hop: c.hop, Source: c.source}); got.String() != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
	count := map[netip.Addr]int{}
	for i := range uint64(1000) { // every second number, as those of transactions may be
		count[sourceFor(&msg.DeliverQ{Hop: v4, TA: smtp.ID{Counter: 2 * i}, Source: ips("192.0.2.8", "192.0.2.9")})]++
	}
	for ip, n := range count {
		if n < 300 || len(count) != 2 {
			t.Errorf("%v was taken %d times of 1000", ip, n)
		}
	}
}

// TestBindError: an address that is not ours is a warning, and the mail goes out.
func TestBindError(t *testing.T) {
	var log syncBuffer
	addr := listen(t, acceptAll(func() {}))
	r := start(t, Config{}, Deps{Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	q := question()
	q.Hop.Addr, q.Source = addr, []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
		t.Errorf("%+v", a)
	}
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "source=192.0.2.77") {
		t.Errorf("log: %s", got)
	}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	if isBindError(refused) || isBindError(nil) {
		t.Error("a refused connection is no error of bind")
	}
}

// TestBind: the peer sees the address.
func TestBind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 is an address of this host on Linux alone")
	}
	var from sources
	serve := acceptAll(func() {})
	addr := listen(t, func(nc net.Conn) {
		from.add(netip.MustParseAddrPort(nc.RemoteAddr().String()).Addr().String())
		serve(nc)
	})
	r := start(t, Config{}, Deps{}, nil)
	q := question()
	q.Hop.Addr, q.Source = addr, []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	if a := r.deliver(t, q); !a.Rcpts[0].Accepted() || from.String() != "127.0.0.2" {
		t.Errorf("%+v, from %s", a, from.String())
	}
}

// TestRefusalsOfTheHost: what makes the queue try the next host of a route.
func TestRefusalsOfTheHost(t *testing.T) {
	say := func(replies ...string) func(net.Conn) {
		return func(nc net.Conn) {
			buf := make([]byte, 1024)
			for i, reply := range replies {
				if i > 0 {
					if _, err := nc.Read(buf); err != nil {
						return
					}
				}
				if _, err := io.WriteString(nc, reply+"\r\n"); err != nil {
					return
				}
			}
			_, _ = nc.Read(buf) // QUIT
		}
	}
	for name, c := range map[string]struct {
		serve  func(net.Conn)
		failed bool
		stage  msg.DeliverStage
	}{
		"greeting 421": {say("421 busy"), true, msg.DeliverGreeting},
		"greeting 450": {say("450 later"), true, msg.DeliverGreeting},
		"EHLO 451":     {say("220 mx", "451 later"), true, msg.DeliverEhlo},
		"MAIL 421":     {say("220 mx", "250 mx", "421 closing"), true, msg.DeliverMail},
		"RCPT 421":     {say("220 mx", "250 mx", "250 ok", "421 closing"), true, msg.DeliverRcpt},
		"MAIL 451":     {say("220 mx", "250 mx", "451 later"), false, msg.DeliverMail},
		"RCPT 451":     {say("220 mx", "250 mx", "250 ok", "451 later"), false, msg.DeliverRcpt},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Config{}, Deps{}, newNetwork(c.serve))
			a := r.deliver(t, question())
			if a.HostFailed != c.failed || a.Stage != c.stage || a.Rcpts[0].Code/100 != 4 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
