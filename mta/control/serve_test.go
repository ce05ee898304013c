package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/mta/supervise"
)

// TestListenerTaken: who closes a listener before it says that the server has moved breaks no answer off, and that is no
// failure of the server.
func TestListenerTaken(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		_, _ = io.WriteString(w, "ok")
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	moved := make(chan struct{})
	g := supervise.NewGroup(context.Background())
	ended := make(chan error, 1)
	g.Go(func(ctx context.Context) error { ended <- ServeUntil(ctx, moved, l, h); return nil })
	var body []byte
	asked := make(chan error, 1)
	g.Go(func(ctx context.Context) error {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String(), nil)
		if err != nil {
			return err
		}
		a, err := new(http.Transport).RoundTrip(q)
		if err == nil {
			defer a.Body.Close()
			body, err = io.ReadAll(a.Body)
		}
		asked <- err
		return nil
	})
	<-began
	_ = l.Close()
	select {
	case err := <-ended:
		t.Errorf("it ended while it answered: %v", err)
	case err := <-asked:
		t.Errorf("the answer was broken off: %v", err)
	case <-time.After(1500 * time.Millisecond): // more than what it would grant an answer at its end
	}
	close(moved)
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-asked; err != nil || string(body) != "ok" {
		t.Errorf("%q, %v", body, err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSlowClients asks for health while others hold as many connections as they get: that
// send nothing, half a request, or a request whose answer they do not read.
func TestSlowClients(t *testing.T) {
	for name, say := range map[string]string{
		"nothing":        "",
		"half a request": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"half a body":    "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
		"no reading":     "GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
		"kept alive":     "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) { testSlow(t, say) })
	}
}

func testSlow(t *testing.T, say string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		part := make([]byte, 1<<20)
		for {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error { return Serve(ctx, l, mux) })
	defer func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	const slow = 3 * connectionsMax
	conns := make([]net.Conn, 0, slow)
	for range slow {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, say); err != nil && say == "" {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	probe := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 {
		a, err := probe.Get("http://" + l.Addr().String() + "/healthz")
		if err != nil {
			t.Fatalf("the probe has no answer: %v", err)
		}
		body, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if err != nil || string(body) != "ok\n" {
			t.Errorf("the probe is answered %q, %v", body, err)
		}
	}
	limit := time.Now().Add(20 * time.Second)
	for open := slow; open > addressMax; {
		if time.Now().After(limit) {
			t.Fatalf("%d connections of one address are open", open)
		}
		open = 0
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				open++
			}
		}
	}
}

// from is a connection from an address.
type from struct {
	net.Conn
	ip     string
	closed *[]string
}

func (f *from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip)} }
func (f *from) Close() error {
	*f.closed = append(*f.closed, f.ip)
	return nil
}

// TestWhoIsClosed: an address closes connections of its own; only when all together are
// too many, the oldest of any is, and one that is being answered last of all.
func TestWhoIsClosed(t *testing.T) {
	var closed []string
	o := &connections{all: map[net.Conn]*connection{}}
	open := func(prefix string, n int, busy bool) {
		for i := range n {
			ip := prefix
			if strings.HasSuffix(prefix, ".") {
				ip = fmt.Sprint(prefix, i)
			}
			c := &from{ip: ip, closed: &closed}
			o.note(c, http.StateNew)
			if busy {
				o.note(c, http.StateActive)
			}
		}
	}
	expect := func(want ...string) {
		t.Helper()
		if strings.Join(closed, " ") != strings.Join(want, " ") {
			t.Errorf("closed %v, want %v", closed, want)
		}
		closed = nil
	}
	open("192.0.2.1", addressMax, true)
	open("192.0.2.2", 1, false)
	expect()
	open("192.0.2.1", 1, false)
	expect("192.0.2.1")
	open("198.51.100.", connectionsMax-addressMax-1, true)
	expect()
	open("203.0.113.", 3, false)
	expect("192.0.2.2", "192.0.2.1", "203.0.113.0") // the newest of 192.0.2.1 asks for nothing
	if len(o.all) != connectionsMax {
		t.Errorf("%d are open", len(o.all))
	}
	for c := range o.all {
		o.note(c, http.StateClosed)
	}
	if len(o.all) != 0 {
		t.Errorf("%d are open after the end", len(o.all))
	}
}

// TestUnixClients: of clients at a Unix socket no address is known; all together are bounded.
func TestUnixClients(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error { return Serve(ctx, l, http.NotFoundHandler()) })
	defer func() {
		g.Stop()
		_ = g.Wait()
	}()
	for range connectionsMax + 10 {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "404") {
		t.Errorf("answered %q, %v", line, err)
	}
}
