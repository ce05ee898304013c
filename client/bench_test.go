package client

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"meta1/mta/msg"
)

// cannedConn is a peer without a network: it answers in Write, so a benchmark over it
// shows the client's own work.
type cannedConn struct {
	net.Conn
	out bytes.Buffer
}

func (c *cannedConn) Write(p []byte) (int, error) {
	switch {
	case bytes.HasPrefix(p, []byte("EHLO")):
		c.out.WriteString("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")
	case bytes.HasPrefix(p, []byte("MAIL")):
		c.out.WriteString("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n")
	case bytes.HasSuffix(p, []byte("\r\n.\r\n")):
		c.out.WriteString("250 2.0.0 ok queued as 4711\r\n")
	}
	return len(p), nil
}

func (c *cannedConn) Read(p []byte) (int, error)       { return c.out.Read(p) }
func (c *cannedConn) Close() error                     { return nil }
func (c *cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *cannedConn) SetWriteDeadline(time.Time) error { return nil }

func cannedDial(context.Context, string, string) (net.Conn, error) {
	c := &cannedConn{}
	c.out.WriteString("220 sink ESMTP\r\n")
	return c, nil
}

// serveSink is a minimal pipelining SMTP server.
func serveSink(nc net.Conn) {
	r, w := bufio.NewReaderSize(nc, 16<<10), bufio.NewWriter(nc)
	w.WriteString("220 sink ESMTP\r\n")
	data := false
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		line, err := r.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return
		}
		switch {
		case data && string(line) == ".\r\n":
			data = false
			w.WriteString("250 2.0.0 ok queued as 4711\r\n")
		case data:
		case bytes.HasPrefix(line, []byte("EHLO")):
			w.WriteString("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")
		case bytes.HasPrefix(line, []byte("DATA")):
			data = true
			w.WriteString("354 go on\r\n")
		default:
			w.WriteString("250 2.1.0 ok\r\n")
		}
	}
}

// BenchmarkDeliver measures one delivery of 1 KiB over kept connections, asked for
// through the port: without a network, and with a sink on loopback whose work is
// then part of the figure.
func BenchmarkDeliver(b *testing.B) {
	body := memBody("Subject: x\r\n\r\n" + string(bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890\r\n"), 16)))
	logs := map[string]*slog.Logger{"silent": nil, "logged": slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, name := range []string{"silent", "logged"} {
		for _, network := range []string{"canned", "loopback"} {
			for _, parallel := range []int{1, 25} {
				b.Run(fmt.Sprintf("%s/%s/%d", network, name, parallel), func(b *testing.B) {
					deps := Deps{ReuseConnections: true, Log: logs[name]}
					q := question()
					q.Body = body
					if network == "canned" {
						deps.Dial = cannedDial
					} else {
						q.Hop.Addr = listen(b, serveSink)
					}
					r := start(b, Config{}, deps, nil)
					r.deliver(b, q)
					b.ReportAllocs()
					b.SetParallelism(parallel)
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							a, err := r.ports.Deliver.Ask(context.Background(), q)
							if err != nil || a.Stage != msg.DeliverDone || !a.Rcpts[0].Positive() {
								b.Errorf("%+v %v", a, err)
								return
							}
						}
					})
					b.StopTimer()
					if err := r.stop(); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}
