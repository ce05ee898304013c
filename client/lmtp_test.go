package client

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/client/content"
	"meta1/mta/lda"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// TestLMTPDelivery delivers to the real delivery agent over its Unix socket, from
// many askers, messages of many sizes to several recipients, and compares every file.
func TestLMTPDelivery(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "lmtpsock")
	l, err := lda.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	agent := supervise.NewGroup(ctx)
	agent.Go(func(ctx context.Context) error {
		return lda.Run(ctx, lda.Options{MailDir: filepath.Join(dir, "mail"), Create: true, Listener: l, Hostname: "client.example"})
	})
	r := start(t, Config{}, Deps{ReuseConnections: true}, nil)
	const askers, each = 10, 15
	sizes := []int{0, 1, 500, content.SmallMax - 10, content.SmallMax + 10, 100_000, chunkMax + 1}
	g := supervise.NewGroup(context.Background())
	for i := range askers {
		g.Go(func(context.Context) error {
			for k := range each {
				q := question()
				q.Hop = msg.Hop{Protocol: msg.ProtoLMTP, Socket: socket}
				q.Body = ldaBody(i, k, sizes[(i+k)%len(sizes)])
				q.Rcpts = []msg.Rcpt{
					{To: smtp.Path{Local: fmt.Sprintf("u%d+%d", i, k), Domain: "b.example"}},
					{To: smtp.Path{Local: "no/such", Domain: "b.example"}},
					{To: smtp.Path{Local: "all", Domain: "b.example"}},
				}
				a, err := r.ask(context.Background(), q)
				if err != nil {
					return err
				}
				if !strings.HasPrefix(a.Rcpts[0].String(), "250 2.1.5 delivered as ") || a.Rcpts[1].Code != 550 || a.Rcpts[2].Code != 250 || a.HostFailed {
					return fmt.Errorf("answer %+v", a)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := agent.Wait(); err != nil {
		t.Error(err)
	}
	for i := range askers {
		for k := range each {
			checkDelivered(t, filepath.Join(dir, "mail"), i, k, sizes[(i+k)%len(sizes)])
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "mail", "all", "new", "*")); len(files) != askers*each {
		t.Errorf("%d files of all", len(files))
	}
}

// ldaBody is content that differs for each message, with dots in bad places.
func ldaBody(i, k, size int) msg.Body {
	b := fmt.Appendf(nil, "Subject: %d %d\r\n\r\n.\r\n..x\r\n", i, k)
	for len(b) < size {
		b = append(b, ".line of text\r\nanother\r\n"...)
	}
	if k%2 == 0 {
		return fileBody{data: b}
	}
	return memBody(b)
}

func checkDelivered(t *testing.T, root string, i, k, size int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, fmt.Sprintf("u%d", i), "new", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	head := fmt.Sprintf("Return-Path: <from@a.example>\nDelivered-To: u%d+%d@b.example\n", i, k)
	var body []byte
	switch b := ldaBody(i, k, size).(type) {
	case memBody:
		body = b
	case fileBody:
		body = b.data
	}
	want := append([]byte(head), bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))...)
	found := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(text, want) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("message %d of %d is there %d times", k, i, found)
	}
}

// TestUnreliableHosts runs many deliveries over hosts that lose connections, refuse
// and answer late at random; each recipient has a reply, no message is lost or
// doubled but where the answer says that it may be, and nothing is left over.
func TestUnreliableHosts(t *testing.T) {
	accepted := make(chan string, 100_000)
	addr := listen(t, func(nc net.Conn) { unreliable(nc, accepted) })
	r := start(t, Config{IdleTimeout: 50 * time.Millisecond, IdleHopMax: 3, ThreadsMax: 15}, Deps{ReuseConnections: true, TransactionsPerSession: 20}, nil)
	const askers, each = 25, 60
	sure, unknown := make(chan string, askers*each), make(chan string, askers*each)
	g := supervise.NewGroup(context.Background())
	for i := range askers {
		g.Go(func(context.Context) error {
			for k := range each {
				q := question()
				q.Hop.Addr = addr
				q.Hop.Host = []string{"a", "b", "c"}[k%3]
				id := fmt.Sprintf("%d-%d", i, k)
				q.Body = memBody("Subject: " + id + "\r\n\r\n" + strings.Repeat("x\r\n", k*k) + "end\r\n")
				a, err := r.ask(context.Background(), q)
				switch {
				case err != nil:
					return err
				case len(a.Rcpts) != 1 || a.Rcpts[0].IsZero():
					return fmt.Errorf("no reply in %+v", a)
				case a.Rcpts[0].Accepted():
					sure <- id
				case a.Unknown:
					unknown <- id
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if idle, busy, hops := r.pool.counts(); idle+busy+hops != 0 {
		t.Errorf("left over: %d idle, %d busy, %d hops", idle, busy, hops)
	}
	close(sure)
	close(unknown)
	times := map[string]int{}
	for len(accepted) > 0 {
		times[<-accepted]++
	}
	delivered := 0
	for id := range sure {
		delivered++
		if times[id] != 1 {
			t.Errorf("%s was confirmed and arrived %d times", id, times[id])
		}
		delete(times, id)
	}
	for id := range unknown {
		delete(times, id)
	}
	if len(times) > 0 {
		t.Errorf("arrived and not confirmed: %v", times)
	}
	if delivered < askers*each/4 {
		t.Errorf("only %d delivered", delivered)
	}
}

// unreliable is receive with mishaps. What it confirms, or would have, is accepted.
func unreliable(nc net.Conn, accepted chan<- string) {
	mishap := func() bool { return rand.IntN(25) == 0 }
	if mishap() {
		return
	}
	h := &mishapConn{Conn: nc, mishap: mishap}
	receive(h, func(b []byte) {
		subject, _, _ := strings.Cut(strings.TrimPrefix(string(b), "Subject: "), "\r\n")
		if bytes.HasSuffix(b, []byte("end\r\n.\r\n")) {
			accepted <- subject
		}
	})
}

// mishapConn closes at random before a write, or says 421 in its place.
type mishapConn struct {
	net.Conn
	mishap func() bool
}

func (c *mishapConn) Write(p []byte) (int, error) {
	if !c.mishap() {
		return c.Conn.Write(p)
	}
	if rand.IntN(2) == 0 && !bytes.HasPrefix(p, []byte("250 queued")) {
		_, _ = c.Conn.Write([]byte("421 4.3.0 mishap\r\n"))
	}
	_ = c.Conn.Close()
	return 0, net.ErrClosed
}
