package server

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta1/mta/supervise"
)

// BenchmarkMessage is one 1-KiB message over a kept TCP connection, command by
// command, with fake modules that answer at once. It shows the CPU time of the
// whole process, client and fakes included, for each message.
func BenchmarkMessage(b *testing.B) {
	for _, log := range []bool{false, true} {
		b.Run("log="+map[bool]string{false: "off", true: "info"}[log], func(b *testing.B) { benchMessages(b, log, 1<<20) })
	}
	b.Run("file", func(b *testing.B) { benchMessages(b, false, 0) })
}

func benchMessages(b *testing.B, log bool, inlineMax int64) {
	message, stop := messages(b, log, inlineMax)
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		message()
	}
	b.ReportMetric(float64((cpuTime()-began).Microseconds())/float64(b.N), "cpu-µs/op")
	stop()
}

// messages starts a server and a session; message sends one message of 1 KiB.
func messages(tb testing.TB, log bool, inlineMax int64) (message, stop func()) {
	tb.Helper()
	fake := newFakeMTA()
	fake.inlineMax = inlineMax
	deps := fake.deps()
	deps.Log = slog.New(slog.DiscardHandler)
	if log {
		deps.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	deps.Listeners = []net.Listener{l}
	ctx, cancel := context.WithCancel(context.Background())
	g := supervise.NewGroup(context.Background())
	fake.serve(g.Context(), g)
	s := mustNew(tb, Config{}, deps)
	g.Go(func(context.Context) error { return s.Run(ctx) })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	r := bufio.NewReader(conn)
	say := func(text string) {
		if text != "" {
			if _, err := io.WriteString(conn, text); err != nil {
				tb.Fatal(err)
			}
		}
		line, err := r.ReadSlice('\n')
		for err == nil && line[3] == '-' {
			line, err = r.ReadSlice('\n')
		}
		if err != nil || line[0] > '3' {
			tb.Fatalf("%q: %q, %v", text, line, err)
		}
	}
	body := "Subject: x\r\nMessage-Id: <1@example.net>\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 15) + ".\r\n"
	say("")
	say("EHLO client\r\n")
	message = func() {
		say("MAIL FROM:<alice@example.net>\r\n")
		say("RCPT TO:<bob@example.org>\r\n")
		say("DATA\r\n")
		say(body)
		fake.mu.Lock()
		fake.committed = fake.committed[:0]
		fake.mu.Unlock()
	}
	return message, func() {
		conn.Close()
		cancel()
		g.Stop()
		if err := g.Wait(); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestAllocations: a message costs no more allocations than it did when this was written, 29
// with those of the fake modules, and a few for what the runtime does meanwhile.
func TestAllocations(t *testing.T) {
	message, stop := messages(t, false, 1<<20)
	defer stop()
	n := testing.AllocsPerRun(300, message)
	t.Logf("%.0f allocations", n)
	if most := 38.0; n > most && !raceDetector {
		t.Errorf("a message costs %.0f allocations, want at most %.0f", n, most)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSession is the server alone: one message of a given size in a session in
// memory, without network.
func BenchmarkSession(b *testing.B) {
	for _, kib := range []int{1, 16, 1024} {
		b.Run(sizeName(kib), func(b *testing.B) { benchSession(b, kib) })
	}
}

func sizeName(kib int) string {
	return map[int]string{1: "1KiB", 16: "16KiB", 1024: "1MiB"}[kib]
}

func benchSession(b *testing.B, kib int) { benchSessionWith(b, kib, Config{}, nil) }

// benchSessionWith is benchSession with a configuration, and what its connections lead to.
func benchSessionWith(b *testing.B, kib int, cfg Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	fake := newFakeMTA()
	fake.inlineMax = 4 << 20
	deps := fake.deps()
	deps.Log, deps.Dial = nil, dial
	g := supervise.NewGroup(context.Background())
	fake.serve(g.Context(), g)
	s := mustNew(b, cfg, deps)
	const head = "MAIL FROM:<alice@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
	body := strings.Repeat(strings.Repeat("x", 62)+"\r\n", 16*kib) + ".\r\n"
	conn := &stepConn{steps: []string{"EHLO client\r\n"}}
	conn.again = func() bool {
		fake.committed = fake.committed[:0]
		conn.steps = append(conn.steps[:0], head, body)
		return b.Loop()
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	if err := s.newSession(conn).run(g.Context()); err != nil {
		b.Fatal(err)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// stepConn sends one step at each read, and begins again as long as again says so.
type stepConn struct {
	scriptConn
	steps []string
	again func() bool
}

func (c *stepConn) RemoteAddr() net.Addr { return &net.UnixAddr{} }

func (c *stepConn) Read(p []byte) (int, error) {
	if len(c.steps) == 0 && !c.again() {
		return 0, io.EOF
	}
	n := copy(p, c.steps[0])
	if c.steps[0] = c.steps[0][n:]; c.steps[0] == "" {
		c.steps = c.steps[1:]
	}
	return n, nil
}

func (c *stepConn) Write(p []byte) (int, error) { return len(p), nil }
