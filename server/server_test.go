package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// bench runs one server on a listener, with a fake MTA behind it.
type bench struct {
	fake   *fakeMTA
	server *Server
	group  *supervise.Group // everything but the server
	stop   context.CancelFunc
	pause  context.CancelFunc // as stop, because others wait to go on
	done   chan error
}

func startServer(t testing.TB, cfg Config, fake *fakeMTA, listeners ...net.Listener) *bench {
	return startDeps(t, cfg, fake, fake.deps(listeners...))
}

func startDeps(t testing.TB, cfg Config, fake *fakeMTA, deps Deps) *bench {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop, pause := func() { cancel(nil) }, func() { cancel(supervise.ErrPaused) }
	b := &bench{fake: fake, stop: stop, pause: pause, done: make(chan error, 1), group: supervise.NewGroup(context.Background())}
	fake.serve(b.group.Context(), b.group)
	b.server = mustNew(t, cfg, deps)
	b.group.Go(func(context.Context) error {
		b.done <- b.server.Run(ctx)
		return nil
	})
	return b
}

// end stops all and fails if something went wrong or is left.
func (b *bench) end(t testing.TB) {
	t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		t.Error(err)
	}
	b.group.Stop()
	if err := b.group.Wait(); err != nil {
		t.Error(err)
	}
	if n := b.fake.store.unfinished(); n > 0 {
		t.Errorf("%d content files are left", n)
	}
	if b.fake.sessions != 0 {
		t.Errorf("%d sessions were not ended", b.fake.sessions)
	}
}

// talker is a client that reads each reply before it goes on.
type talker struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newTalker(t testing.TB, conn net.Conn) *talker {
	return &talker{t, conn, bufio.NewReader(conn)}
}

func (c *talker) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("sending %.40q: %v", text, err)
	}
}

// reply reads one reply and fails unless its last line begins with code.
func (c *talker) reply(code string) string {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("waiting for %s: %v after %q", code, err, line)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		wantReply(c.t, line, code)
		return line
	}
}

func (c *talker) say(text, code string) string {
	c.t.Helper()
	c.send(text + "\r\n")
	return c.reply(code)
}

// begin goes on to the reply to DATA.
func (c *talker) begin() {
	c.t.Helper()
	c.reply("220")
	c.say("EHLO client", "250")
	c.say("MAIL FROM:<a@b>", "250")
	c.say("RCPT TO:<bob@example.org>", "250")
	c.say("DATA", "354")
}

func (c *talker) eof() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("instead of the end: %q, %v", rest, err)
	}
}

func (l *pipeListener) talker(t testing.TB) *talker {
	t.Helper()
	conn, err := l.dial("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	return newTalker(t, conn)
}

func TestStopIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{}, newFakeMTA(), l)
		c := l.talker(t)
		c.reply("220")
		synctest.Wait()
		began := time.Now()
		b.stop()
		c.reply("421 4.3.2")
		c.eof()
		b.end(t)
		if d := time.Since(began); d > time.Second {
			t.Errorf("stopping took %v", d)
		}
		if _, err := l.dial(""); err == nil {
			t.Error("the listener is still open")
		}
	})
}

// TestStopInData: a message that is coming in may end, its session does not go on.
func TestStopInData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{}, newFakeMTA(), l)
		c := l.talker(t)
		c.begin()
		c.send("half a message\r\n")
		synctest.Wait()
		b.stop()
		time.Sleep(5 * time.Second)
		c.send("the other half\r\n.\r\n")
		c.reply("250")
		c.reply("421 4.3.2")
		c.eof()
		b.end(t)
		if len(b.fake.committed) != 1 {
			t.Errorf("%d messages", len(b.fake.committed))
		}
	})
}

// TestStopForPause: when others wait to go on, a transaction that has begun ends as it would have.
func TestStopForPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{}, newFakeMTA(), l)
		c, idle, slow := l.talker(t), l.talker(t), l.talker(t)
		idle.reply("220")
		for _, c := range []*talker{c, slow} {
			c.reply("220")
			c.say("EHLO client", "250")
			c.say("MAIL FROM:<a@b>", "250")
		}
		synctest.Wait()
		b.pause()
		idle.reply("421 4.3.2")
		idle.eof()
		time.Sleep(2 * time.Second)
		c.say("RCPT TO:<bob@example.org>", "250")
		c.say("DATA", "354")
		c.say("a message\r\n.", "250")
		c.reply("421 4.3.2")
		c.eof()
		slow.reply("421 4.3.2") // it has begun, and does not go on
		slow.eof()
		b.end(t)
		if len(b.fake.committed) != 1 {
			t.Errorf("%d messages", len(b.fake.committed))
		}
	})
}

// TestStopHanging: a message that does not end in time is given up.
func TestStopHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		fake := newFakeMTA()
		fake.inlineMax = 0
		b := startServer(t, Config{StopTimeout: 20 * time.Second}, fake, l)
		c := l.talker(t)
		c.begin()
		began := time.Now()
		b.stop()
		c.send("half a message\r\n")
		c.reply("421 4.3.2")
		c.eof()
		b.end(t)
		if d := time.Since(began); d < 19*time.Second || d > 23*time.Second {
			t.Errorf("stopping took %v", d)
		}
	})
}

// TestStopDeaf: neither a client that reads nothing nor a module that does not
// answer holds up the end.
func TestStopDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{ModuleTimeout: time.Hour}, newFakeMTA(), l)
		_, closeCommit := b.fake.ports.Commit.Open() // in place of the fake
		defer closeCommit()
		deaf, err := l.dial("192.0.2.2") // never reads the greeting
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		c := l.talker(t)
		c.begin()
		c.send(".\r\n")
		synctest.Wait()
		began := time.Now()
		b.stop()
		err = <-b.done
		if d := time.Since(began); err != nil || d > 30*time.Second {
			t.Errorf("stopping took %v: %v", d, err)
		}
		c.conn.Close()
		b.done <- nil
		b.end(t)
	})
}

// TestModuleTimeout: a module that does not answer in time means 451, and the next
// question gets its whole time again.
func TestModuleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{WaitForSMAR: 30 * time.Second}, newFakeMTA(), l)
		var wait atomic.Int64
		wait.Store(int64(20 * time.Second))
		requests, stop := b.fake.ports.Check.Open() // in place of the fake
		b.group.Go(func(ctx context.Context) error {
			defer stop()
			for {
				select {
				case r := <-requests:
					time.Sleep(time.Duration(wait.Load()))
					r.Answer(msg.Verdict{})
				case <-ctx.Done():
					return nil
				}
			}
		})
		c := l.talker(t)
		c.reply("220")
		c.say("EHLO client", "250")
		c.say("MAIL FROM:<a@b>", "250")
		c.say("RCPT TO:<bob@example.org>", "250")
		synctest.Wait()
		wait.Store(int64(31 * time.Second))
		c.say("RCPT TO:<carol@example.org>", "451")
		time.Sleep(10 * time.Second)
		wait.Store(int64(29 * time.Second))
		c.say("RCPT TO:<dave@example.org>", "250")
		c.say("QUIT", "221")
		b.end(t)
	})
}

func TestThreadsMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startServer(t, Config{ThreadsMax: 1, AddressShare: 100}, newFakeMTA(), l)
		first := l.talker(t)
		first.reply("220")
		second := l.talker(t)
		second.reply("421 4.3.2")
		second.eof()
		first.say("QUIT", "221")
		first.eof()
		synctest.Wait()
		third := l.talker(t)
		third.reply("220")
		third.conn.Close()
		b.end(t)
	})
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		for range 8 {
			l.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		began := time.Now()
		b := startServer(t, Config{}, newFakeMTA(), l)
		c := l.talker(t)
		c.reply("220")
		// 5 10 20 40 80 160 320 640 ms
		if d := time.Since(began); d != 1275*time.Millisecond {
			t.Errorf("waited %v", d)
		}
		c.conn.Close()
		b.end(t)
	})
}

// TestListenerLost: a listener that somebody else closed ends the server.
func TestListenerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, other := newPipeListener(), newPipeListener()
		b := startServer(t, Config{}, newFakeMTA(), l, other)
		c := other.talker(t)
		c.reply("220")
		synctest.Wait()
		l.Close()
		c.reply("421")
		if err := <-b.done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run returned %v", err)
		}
		b.done <- nil
		b.end(t)
	})
}

// panicStore fails as a program does.
type panicStore struct{ *memStore }

func (panicStore) Create(smtp.ID) (msg.ContentWriter, error) { panic("no such store") }

func TestPanicEndsOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		fake := newFakeMTA()
		fake.inlineMax = 0
		deps := fake.deps(l)
		deps.Content = panicStore{fake.store}
		reg := prometheus.NewRegistry()
		deps.Metrics = reg
		b := startDeps(t, Config{}, fake, deps)
		other := l.talker(t)
		other.reply("220")
		c := l.talker(t)
		c.begin()
		c.send("x\r\n.\r\n")
		c.reply("421 4.3.0")
		c.eof()
		other.say("NOOP", "250")
		other.say("QUIT", "221")
		b.end(t)
		if !strings.Contains(fake.log.String(), "no such store") {
			t.Errorf("log: %s", fake.log)
		}
		if n := counted(t, b.server.metrics.panics); n != 1 {
			t.Errorf("%v panics counted", n)
		}
	})
}

func TestStatusAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		fake := newFakeMTA()
		reg := prometheus.NewRegistry()
		deps := fake.deps(l)
		deps.Metrics, deps.Name = reg, "MTA"
		b := startDeps(t, Config{ThreadsMax: 7}, fake, deps)
		c := l.talker(t)
		c.begin()
		c.send("hello\r\n.\r\n")
		c.reply("250")
		synctest.Wait() // the port may not be open yet
		a, err := fake.ports.Status["smtps"].Ask(t.Context(), msg.StatusQ{})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(a.Values)
		for _, want := range []string{"{name 0 MTA}", "{sessions 1 }", "{sessions_peak 1 }", "{sessions_max 7 }", "{messages 1 }", "{recipients 1 }", "{bytes 7 }"} {
			if !strings.Contains(got, want) {
				t.Errorf("status %s lacks %s", got, want)
			}
		}
		c.say("QUIT", "221")
		b.end(t)

		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if label := f.Metric[0].Label; f.GetName() == "meta1_smtps_messages_total" &&
				(len(label) != 1 || label[0].GetName() != "server" || label[0].GetValue() != "MTA") {
				t.Errorf("labels %v", label)
			}
		}
		if n := counted(t, b.server.metrics.replies.WithLabelValues("DATA", "2")); n != 1 {
			t.Errorf("%v replies to the final dot", n)
		}
		// A restarted server goes on counting, and another one counts apart.
		again := mustNew(t, Config{}, deps)
		deps.Name = "MSA"
		other := mustNew(t, Config{}, deps)
		if n := counted(t, again.metrics.messages); n != 1 {
			t.Errorf("the next instance begins at %v", n)
		}
		if n := counted(t, other.metrics.messages); n != 0 {
			t.Errorf("another server begins at %v", n)
		}
	})
}

// counted is the value of a counter.
func counted(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue()
}

func TestBadConfig(t *testing.T) {
	fake := newFakeMTA()
	for name, change := range map[string]func(*Config, *Deps){
		"host name": func(_ *Config, d *Deps) { d.Hostname = "not a host" },
		"greeting":  func(c *Config, _ *Deps) { c.Greeting = "a\nb" },
	} {
		var cfg Config
		deps := fake.deps()
		change(&cfg, &deps)
		if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEarlyTalker: over TCP what has arrived before the greeting is seen without
// waiting.
func TestEarlyTalker(t *testing.T) {
	fake := newFakeMTA()
	hold := make(chan struct{})
	fake.admit = func(q msg.AdmitQ) smtp.Reply {
		if q.Kind == msg.NewSession {
			<-hold // until the client has talked
		}
		return smtp.Reply{}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := startServer(t, Config{}, fake, l)
	for _, early := range []bool{true, false} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := newTalker(t, conn)
		if early {
			c.send("EHLO client\r\n")
		}
		hold <- struct{}{}
		if early {
			c.reply("554 5.5.0")
		} else {
			c.reply("220")
		}
		conn.Close()
	}
	b.end(t)
	if n := counted(t, b.server.metrics.earlyTalker); n != 1 {
		t.Errorf("%v early talkers counted", n)
	}
}

// TestReplySurvivesClose: a client that still sends gets the last reply all the
// same.
func TestReplySurvivesClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := startServer(t, Config{}, newFakeMTA(), l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newTalker(t, conn)
	c.reply("220")
	c.say("EHLO client", "250")
	c.send("NOOP\n" + strings.Repeat("x", 20<<10))
	c.reply("421 4.5.2")
	conn.Close()
	b.end(t)
}

func TestUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	b := startServer(t, Config{}, newFakeMTA(), l)
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newTalker(t, conn)
	c.begin()
	c.send("x\r\n.\r\n")
	c.reply("250")
	c.say("QUIT", "221")
	c.eof()
	conn.Close()
	b.end(t)
	if ip := b.fake.committed[0].Envelope.Client.IP; ip.IsValid() {
		t.Errorf("client %v", ip)
	}
}

// TestConcurrent sends messages of many sizes in many sessions at a time over TCP,
// pipelined, and compares what arrives byte for byte.
func TestConcurrent(t *testing.T) {
	const clients, messages = 20, 15
	fake := newFakeMTA()
	fake.inlineMax = 8 << 10
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := startServer(t, Config{}, fake, l)
	g := supervise.NewGroup(t.Context())
	var sent atomic.Int64
	for i := range clients {
		g.Go(func(context.Context) error { return sendMany(l.Addr().String(), i, messages, &sent) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	b.end(t)
	if len(fake.committed) != clients*messages || sent.Load() != clients*messages {
		t.Fatalf("%d of %d messages arrived", len(fake.committed), sent.Load())
	}
	for _, q := range fake.committed {
		data, err := fake.content(q)
		if err != nil {
			t.Fatal(err)
		}
		var i, j int
		if _, err := fmt.Sscanf(q.Envelope.Mail.From.Local, "m%d.%d", &i, &j); err != nil {
			t.Fatal(err)
		}
		_, after, _ := bytes.Cut(data, []byte("+0000\r\n"))
		if want := testBody(i, j); string(after) != want {
			t.Fatalf("message %d.%d of %d bytes differs from the one sent, of %d bytes", i, j, len(after), len(want))
		}
		if (q.Inline == nil) != (int64(len(data)) > fake.inlineMax) {
			t.Errorf("content of %d bytes in memory: %v", len(data), q.Inline != nil)
		}
	}
}

// testBody is a message that depends on i and j in size and content.
func testBody(i, j int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Message-Id: <%d.%d@example.net>\r\n\r\n", i, j)
	for k := range 1 + (i*j*37)%3000 {
		fmt.Fprintf(&b, "%.*s line %d\r\n", k%4, "....", k)
	}
	return b.String()
}

func sendMany(addr string, i, n int, sent *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	expect := func(codes ...string) error {
		for _, code := range codes {
			line, err := r.ReadString('\n')
			for err == nil && line[3] == '-' {
				line, err = r.ReadString('\n')
			}
			if err != nil || !strings.HasPrefix(line, code) {
				return fmt.Errorf("client %d: %q in place of %s: %w", i, line, code, err)
			}
		}
		return nil
	}
	if err := expect("220"); err != nil {
		return err
	}
	fmt.Fprintf(conn, "EHLO client%d\r\n", i)
	if err := expect("250"); err != nil {
		return err
	}
	for j := range n {
		fmt.Fprintf(conn, "MAIL FROM:<m%d.%d@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", i, j)
		if err := expect("250", "250", "354"); err != nil {
			return err
		}
		stuffed := strings.ReplaceAll(testBody(i, j), "\r\n.", "\r\n..")
		if _, err := io.WriteString(conn, stuffed+".\r\n"); err != nil {
			return err
		}
		if err := expect("250 2.0.0"); err != nil {
			return err
		}
		sent.Add(1)
	}
	fmt.Fprint(conn, "QUIT\r\n")
	return expect("221")
}
