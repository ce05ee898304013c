package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
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
							if err != nil || a.Stage != msg.DeliverDone || !a.Rcpts[0].Accepted() {
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

// patientConn is a connection in memory on which nobody is ever late.
type patientConn struct{ *memConn }

func (patientConn) SetDeadline(time.Time) error      { return nil }
func (patientConn) SetReadDeadline(time.Time) error  { return nil }
func (patientConn) SetWriteDeadline(time.Time) error { return nil }

// memSink is an SMTP server in memory that takes all mail and does little else: each line is read
// into one buffer. With cfg it offers STARTTLS.
type memSink struct{ cfg *tls.Config }

func (s *memSink) serve(nc net.Conn) {
	defer nc.Close()
	r, w := bufio.NewReaderSize(nc, 16<<10), bufio.NewWriter(nc)
	w.WriteString("220 sink ESMTP\r\n")
	data, secured := false, s.cfg == nil
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil:
			return
		case data && string(line) == ".\r\n":
			data = false
			w.WriteString("250 2.0.0 ok queued as 4711\r\n")
		case data:
		case bytes.HasPrefix(line, []byte("EHLO")) && !secured:
			w.WriteString("250-sink\r\n250-STARTTLS\r\n250 PIPELINING\r\n")
		case bytes.HasPrefix(line, []byte("EHLO")):
			w.WriteString("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")
		case bytes.HasPrefix(line, []byte("STARTTLS")):
			w.WriteString("220 go on\r\n")
			if w.Flush() != nil {
				return
			}
			tc := tls.Server(nc, s.cfg)
			r.Reset(tc)
			w.Reset(tc)
			secured = true
		case bytes.HasPrefix(line, []byte("DATA")):
			data = true
			w.WriteString("354 go on\r\n")
		case bytes.HasPrefix(line, []byte("QUIT")):
			w.WriteString("221 bye\r\n")
			w.Flush()
			return
		default:
			w.WriteString("250 2.1.0 ok\r\n")
		}
	}
}

// BenchmarkSink measures deliveries of 1 KiB to a sink in memory, of which there are no calls of
// the system: over kept connections and over new ones, plain, under TLS, with sessions of TLS
// that are resumed and with whole handshakes, to 1 and to 50 recipients. The work of the sink and
// of its side of TLS is part of the figures.
func BenchmarkSink(b *testing.B) {
	body := memBody("Subject: x\r\n\r\n" + string(bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890\r\n"), 16)))
	for _, c := range []struct {
		name               string
		tls, reuse, resume bool
		rcpts              int
	}{
		{"kept", false, true, false, 1},
		{"kept, 50 recipients", false, true, false, 50},
		{"new", false, false, false, 1},
		{"TLS, kept", true, true, true, 1},
		{"TLS, resumed", true, false, true, 1},
		{"TLS, whole", true, false, false, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := &memSink{}
			cfg := Config{}
			if c.tls {
				s.cfg = &tls.Config{Certificates: []tls.Certificate{newCerts().kind["trusted"]}}
				if cfg = trusting(b); !c.resume {
					cfg.TLS.Cache.Size = 0
				}
			}
			g := supervise.NewGroup(context.Background())
			dial := func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := memPipe()
				g.Go(func(context.Context) error {
					s.serve(patientConn{theirs})
					return nil
				})
				return patientConn{ours}, nil
			}
			r := start(b, cfg, Deps{ReuseConnections: c.reuse, Dial: dial}, nil)
			q := question()
			q.Body = body
			for len(q.Rcpts) < c.rcpts {
				q.Rcpts = append(q.Rcpts, q.Rcpts[0])
			}
			r.deliver(b, q)
			b.ReportAllocs()
			for b.Loop() {
				a := r.deliver(b, q)
				if !a.Rcpts[c.rcpts-1].Accepted() || a.Reused != c.reuse || (a.TLS.Level != msg.TLSNone) != c.tls || a.TLS.Resumed != (c.resume && !c.reuse) {
					b.Fatalf("%+v", a)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			if err := r.stop(); err != nil {
				b.Fatal(err)
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestAllocations: a delivery costs no more allocations than it did when this was written, 10,
// and a few for what the runtime does meanwhile.
func TestAllocations(t *testing.T) {
	q := question()
	q.Body = memBody("Subject: x\r\n\r\nx\r\n")
	r := start(t, Config{}, Deps{ReuseConnections: true, Dial: cannedDial}, nil)
	r.deliver(t, q)
	n := testing.AllocsPerRun(300, func() {
		if a, err := r.ports.Deliver.Ask(context.Background(), q); err != nil || a.Stage != msg.DeliverDone {
			t.Fatalf("%+v %v", a, err)
		}
	})
	t.Logf("%.0f allocations", n)
	if most := 16.0; n > most && !raceDetector {
		t.Errorf("a delivery costs %.0f allocations, want at most %.0f", n, most)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkTLS measures one delivery of a small message to a sink on loopback whose work,
// with that of its side of TLS, is part of the figure: over a connection that is kept, over a
// new one that resumes a TLS session, and over a new one with a whole handshake.
func BenchmarkTLS(b *testing.B) {
	for _, c := range []struct {
		name   string
		reuse  bool
		resume bool
	}{{"kept", true, true}, {"resumed", false, true}, {"whole", false, false}} {
		b.Run(c.name, func(b *testing.B) {
			s := newTLSServer("trusted")
			s.forget = true
			q := to(listen(b, s.serve))
			cfg := trusting(b)
			if !c.resume {
				cfg.TLS.Cache.Size = 0
			}
			r := start(b, cfg, Deps{ReuseConnections: c.reuse}, nil)
			r.deliver(b, q)
			b.ReportAllocs()
			for b.Loop() {
				if a := r.deliver(b, q); !a.Rcpts[0].Accepted() || a.TLS.Resumed != (c.resume && !c.reuse) || a.Reused != c.reuse {
					b.Fatalf("%+v", a)
				}
			}
		})
	}
}
