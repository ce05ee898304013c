package mta

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"meta1/mta/supervise"
)

// TestAllocations: a message costs no more allocations on its whole way, from a session through the
// queue, the resolver and a delivery to a host that takes it, the log included, than it did when
// this was written: 76, with those of the test, and some for what the runtime does meanwhile.
func TestAllocations(t *testing.T) {
	const n, most = 200, 92
	host, port := newHost(t)
	m := start(t, ". "+port+"^esmtp:[127.0.0.1]\n", "")
	conn, err := net.Dial("tcp", m.address("smtps"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	out := make([]byte, 0, 2<<10)
	say := func(text string) {
		if text != "" {
			if _, err := conn.Write(append(out, text...)); err != nil {
				t.Fatal(err)
			}
		}
		line, err := r.ReadSlice('\n')
		if err != nil || line[0] > '3' {
			t.Fatalf("%q: %q, %v", text, line, err)
		}
	}
	say("") // the greeting
	say("HELO client.test\r\n")
	body := "Subject: x\r\nMessage-Id: <1@example.net>\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 15) + ".\r\n"
	sent := int64(0)
	send := func(n int) {
		for range n {
			say("MAIL FROM:<alice@example.net>\r\n")
			say("RCPT TO:<bob@example.org>\r\n")
			say("DATA\r\n")
			say(body)
		}
		sent += int64(n)
		eventually(t, "arrival of all messages", func() bool { return host.Load() == sent })
	}
	send(20) // pools fill, and the connection to the host is made
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send(n)
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.1f allocations, %d bytes", each, (after.TotalAlloc-before.TotalAlloc)/n)
	if each > most && !raceEnabled {
		t.Errorf("a message costs %.1f allocations, want at most %d", each, most)
	}
}

// newHost starts a host that takes all mail, and says how many messages it has got. It allocates nothing for
// one.
func newHost(t *testing.T) (got *atomic.Int64, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = new(atomic.Int64)
	g := supervise.NewGroup(context.Background())
	g.Go(func(context.Context) error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil // the end of the test
			}
			g.Go(func(context.Context) error { takeMail(conn, got); return nil })
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.Stop()
		_ = g.Wait() // it never fails
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return got, port
}

// takeMail is a session of the host.
func takeMail(conn net.Conn, got *atomic.Int64) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	answers := [...]struct{ verb, reply []byte }{
		{[]byte("EHLO "), []byte("250-host.test\r\n250 PIPELINING\r\n")},
		{[]byte("DATA"), []byte("354 go on\r\n")},
		{[]byte("QUIT"), []byte("221 2.0.0 bye\r\n")},
		{nil, []byte("250 2.0.0 ok\r\n")},
	}
	_, err := io.WriteString(conn, "220 host.test\r\n")
	for text := false; err == nil; {
		var line []byte
		if line, err = r.ReadSlice('\n'); err != nil {
			return
		}
		if text {
			if text = string(line) != ".\r\n"; text {
				continue
			}
			got.Add(1)
		}
		for i, a := range answers {
			if bytes.HasPrefix(line, a.verb) {
				text = i == 1
				_, err = conn.Write(a.reply)
				break
			}
		}
	}
}
