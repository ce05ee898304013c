package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// stall plays script and is then silent, but takes whatever the client sends.
func stall(script ...string) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		for _, step := range script {
			if text, ok := strings.CutPrefix(step, "S: "); ok {
				_, _ = io.WriteString(nc, text+"\r\n")
				continue
			}
			for line := ""; !strings.HasPrefix(line, step); {
				var err error
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
		}
		_, _ = io.Copy(io.Discard, r)
	}
}

// hello is the dialogue up to the reply to EHLO.
var hello = []string{"S: 220 mx.example", "EHLO", "S: 250-mx.example", "S: 250 PIPELINING"}

// TestTimeouts has a host fall silent at each stage: RFC 5321 section 4.5.3.2, and
// what IO_timeout makes of it.
func TestTimeouts(t *testing.T) {
	cases := []struct {
		name   string
		server func(net.Conn)
		after  time.Duration // with the default
		short  time.Duration // with IO_timeout = 7s
		stage  msg.DeliverStage
		code   smtp.EnhancedCode
	}{
		{"greeting", stall(), 5 * time.Minute, 7 * time.Second, msg.DeliverGreeting, smtp.EnhancedCode{4, 4, 2}},
		{"ehlo", stall("S: 220 mx.example"), 5 * time.Minute, 7 * time.Second, msg.DeliverEhlo, smtp.EnhancedCode{4, 4, 2}},
		{"helo", stall("S: 220 mx.example", "EHLO", "S: 500 what"), 5 * time.Minute, 7 * time.Second, msg.DeliverEhlo, smtp.EnhancedCode{4, 4, 2}},
		{"mail", stall(hello...), 5 * time.Minute, 7 * time.Second, msg.DeliverMail, smtp.EnhancedCode{4, 4, 2}},
		{"rcpt", stall(append(hello, "DATA", "S: 250 ok")...), 5 * time.Minute, 7 * time.Second, msg.DeliverRcpt, smtp.EnhancedCode{4, 4, 2}},
		{"data", stall(append(hello, "DATA", "S: 250 ok", "S: 250 ok")...), 2 * time.Minute, 7 * time.Second, msg.DeliverData, smtp.EnhancedCode{4, 4, 2}},
		{"dot", stall(append(hello, "DATA", "S: 250 ok", "S: 250 ok", "S: 354 go on", ".\r\n")...), 10 * time.Minute, 7 * time.Second, msg.DeliverDot, smtp.EnhancedCode{4, 4, 2}},
		{"drip", drip, 5 * time.Minute, 7 * time.Second, msg.DeliverGreeting, smtp.EnhancedCode{4, 4, 2}},
		{"content", stopReading, 3 * time.Minute, 7 * time.Second, msg.DeliverData, smtp.EnhancedCode{4, 4, 2}},
	}
	for _, c := range cases {
		for _, io := range []time.Duration{0, 7 * time.Second} {
			want := c.after
			if io > 0 {
				want = c.short
			}
			t.Run(c.name+"/"+want.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := start(t, Config{IOTimeout: io}, Deps{}, newNetwork(c.server))
					begin := time.Now()
					a := r.deliver(t, question())
					took := time.Since(begin).Truncate(2 * time.Second)
					if want = want.Truncate(2 * time.Second); took != want {
						t.Errorf("took %v, want %v", took, want)
					}
					if a.Stage != c.stage || !a.HostFailed || a.Rcpts[0].Enhanced != c.code || a.Rcpts[0].Code != 451 {
						t.Errorf("answer %+v", a)
					}
					if a.Unknown != (c.stage == msg.DeliverDot) {
						t.Errorf("unknown is %v", a.Unknown)
					}
					if !strings.Contains(a.Rcpts[0].Text(), "timed out") {
						t.Errorf("text %q", a.Rcpts[0].Text())
					}
				})
			})
		}
	}
}

// drip sends one byte a second, for ever.
func drip(nc net.Conn) {
	for {
		if _, err := nc.Write([]byte("2")); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// stopReading accepts DATA and reads no further.
func stopReading(nc net.Conn) {
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 mx\r\n")
	for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on"} {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		_, _ = io.WriteString(nc, reply+"\r\n")
	}
	time.Sleep(24 * time.Hour)
}

// TestConnectTimeout has a host that does not answer at all (RFC 3463, 4.4.1).
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deps := Deps{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		}}
		r := start(t, Config{}, deps, nil)
		begin := time.Now()
		a := r.deliver(t, question())
		if took := time.Since(begin).Truncate(time.Second); took != 30*time.Second {
			t.Errorf("took %v", took)
		}
		want := smtp.NewReply(451, "4.4.1", "connect to mx.example[192.0.2.1]:25: connection timed out")
		if got := a.Rcpts[0]; got.String() != want.String() || !a.HostFailed || a.Stage != msg.DeliverConnect {
			t.Errorf("answer %+v", a)
		}
	})
}

// TestShortageIsNotTheHosts: descriptors that have run out say nothing of the host.
func TestShortageIsNotTheHosts(t *testing.T) {
	for errno, failed := range map[syscall.Errno]bool{syscall.EMFILE: false, syscall.ENOBUFS: false, syscall.EHOSTUNREACH: true} {
		synctest.Test(t, func(t *testing.T) {
			deps := Deps{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", errno)}
			}}
			a := start(t, Config{}, deps, nil).deliver(t, question())
			if a.HostFailed != failed || a.Rcpts[0].Code != 451 || !strings.Contains(a.Rcpts[0].String(), errno.Error()) {
				t.Errorf("%v: answer %+v", errno, a)
			}
		})
	}
}

// TestLargeContentTimeout: a peer that takes large content too slowly is given up
// although each part moves.
func TestLargeContentTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(nc net.Conn) {
			r := bufio.NewReaderSize(nc, 512)
			_, _ = io.WriteString(nc, "220 mx\r\n")
			for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on"} {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				_, _ = io.WriteString(nc, reply+"\r\n")
			}
			buf := make([]byte, 8<<10)
			for {
				if _, err := io.ReadFull(r, buf); err != nil {
					return
				}
				time.Sleep(20 * time.Second) // 400 bytes a second
			}
		}
		r := start(t, Config{}, Deps{}, newNetwork(slow))
		q := question()
		q.Body = memBody(strings.Repeat("x\r\n", 1<<20))
		begin := time.Now()
		a := r.deliver(t, q)
		most := 6*time.Minute + time.Duration(q.Body.Size()/dataRateMin)*time.Second
		if took := time.Since(begin); took > most || !a.HostFailed || a.Unknown {
			t.Errorf("took %v, at most %v; answer %+v", took, most, a)
		}
	})
}

// TestRequestEnds: the asker gives up while the host is silent; the connection is
// closed soon after.
func TestRequestEnds(t *testing.T) {
	for _, where := range []string{"greeting", "dot", "dial"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var deps Deps
				n := newNetwork(stall())
				switch where {
				case "dot":
					n = newNetwork(stall(append(hello, "DATA", "S: 250 ok", "S: 250 ok", "S: 354 go on", ".\r\n")...))
				case "dial":
					n = nil
					deps.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
				}
				r := start(t, Config{}, deps, n)
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if _, err := r.ask(ctx, question()); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("ask: %v", err)
				}
				time.Sleep(2 * sweepEvery)
				if threads, waiting := r.threads.Load(), r.waiting.Load(); threads != waiting {
					t.Errorf("%d workers, %d wait", threads, waiting)
				}
				if _, busy, _ := r.pool.counts(); where == "dot" && busy != 0 {
					t.Errorf("%d connections at work", busy)
				}
			})
		})
	}
}

// TestRequestEndedBefore: what nobody waits for any more is not delivered: neither a
// request that waited for a worker, nor one whose envelope took too long.
func TestRequestEndedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		contents := 0
		n := newNetwork(func(nc net.Conn) {
			slow := &slowReplies{Conn: nc, wait: 3 * time.Second}
			receive(slow, func([]byte) { contents++ })
		})
		r := start(t, Config{ThreadsMax: 1}, Deps{}, n)
		g := supervise.NewGroup(context.Background())
		for _, begin := range []time.Duration{0, time.Second, 2 * time.Second} {
			g.Go(func(context.Context) error {
				time.Sleep(begin)
				ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second-2*begin)
				defer cancel()
				if _, err := r.ask(ctx, question()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ask: %v", err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n.dialed() != 1 || contents != 0 {
			t.Errorf("%d connections, %d messages", n.dialed(), contents)
		}
	})
}

// slowReplies waits before each write.
type slowReplies struct {
	net.Conn
	wait time.Duration
}

func (s *slowReplies) Write(p []byte) (int, error) {
	time.Sleep(s.wait)
	return s.Conn.Write(p)
}

// TestStopGrace: a running delivery may finish after the end was asked for, but not
// for ever.
func TestStopGrace(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration // of the host before its last reply
		took time.Duration
		ok   bool
	}{{"finishes", 4 * time.Second, 4 * time.Second, true}, {"hangs", time.Hour, 10 * time.Second, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := func(nc net.Conn) {
					stallUntilDot(nc)
					time.Sleep(c.wait)
					_, _ = io.WriteString(nc, "250 2.0.0 late\r\n")
				}
				r := start(t, Config{}, Deps{ReuseConnections: true}, newNetwork(server))
				asker := supervise.NewGroup(context.Background())
				var a msg.DeliverA
				var err error
				asker.Go(func(context.Context) error {
					a, err = r.ask(context.Background(), question())
					return nil
				})
				time.Sleep(time.Second) // until the host has the final dot
				begin := time.Now()
				if c.ok {
					begin = begin.Add(-time.Second)
				}
				stopper := supervise.NewGroup(context.Background())
				stopper.Go(func(context.Context) error { return r.stop() })
				if e := asker.Wait(); e != nil {
					t.Fatal(e)
				}
				took := time.Since(begin).Truncate(time.Second)
				if e := stopper.Wait(); e != nil {
					t.Fatal(e)
				}
				if took != c.took || err != nil {
					t.Errorf("took %v, want %v; %v", took, c.took, err)
				}
				if c.ok != a.Rcpts[0].Accepted() || a.HostFailed || a.Unknown == c.ok {
					t.Errorf("answer %+v", a)
				}
				if !c.ok && a.Rcpts[0].Enhanced != (smtp.EnhancedCode{4, 3, 2}) {
					t.Errorf("reply %v", a.Rcpts[0])
				}
			})
		})
	}
}

// TestStopBeforeTheMail: a delivery that the end of the module cuts short before the host has
// the message gets no answer but that the module is gone: it is no attempt.
func TestStopBeforeTheMail(t *testing.T) {
	for name, said := range map[string]string{"greeting": "", "MAIL": "220 mx\r\n250 mx\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangs := func(nc net.Conn) {
					_, _ = io.WriteString(nc, said[:min(len(said), 8)])
					r := bufio.NewReader(nc)
					for said := said[min(len(said), 8):]; ; said = "" {
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
						_, _ = io.WriteString(nc, said)
					}
				}
				r := start(t, Config{}, Deps{ReuseConnections: true}, newNetwork(hangs))
				asker := supervise.NewGroup(context.Background())
				var a msg.DeliverA
				var err error
				asker.Go(func(context.Context) error {
					a, err = r.ask(context.Background(), question())
					return nil
				})
				time.Sleep(time.Second)
				if e := errors.Join(r.stop(), asker.Wait()); e != nil {
					t.Fatal(e)
				}
				if !errors.Is(err, msg.ErrDown) {
					t.Errorf("answer %+v, %v", a, err)
				}
			})
		})
	}
}

// stallUntilDot speaks up to the final dot and does not reply to it.
func stallUntilDot(nc net.Conn) {
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 mx\r\n")
	for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on"} {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		_, _ = io.WriteString(nc, reply+"\r\n")
	}
	for line := ""; line != ".\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
	}
}

// TestIdleTimeout: a connection without work is closed politely after idle_timeout.
func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone time.Time
		var rest []byte
		server := func(nc net.Conn) {
			stallUntilDot(nc)
			_, _ = io.WriteString(nc, "250 ok\r\n")
			rest, _ = io.ReadAll(nc)
			gone = time.Now()
		}
		n := newNetwork(server)
		r := start(t, Config{}, Deps{ReuseConnections: true}, n)
		begin := time.Now()
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Fatalf("answer %+v", a)
		}
		time.Sleep(time.Minute)
		if err := n.group.Wait(); err != nil {
			t.Fatal(err)
		}
		if took := gone.Sub(begin); took < idleTimeoutDefault || took > idleTimeoutDefault+2*sweepEvery {
			t.Errorf("closed after %v", took)
		}
		if string(rest) != "QUIT\r\n" {
			t.Errorf("said %q", rest)
		}
		if idle, busy, hops := r.pool.counts(); idle+busy+hops != 0 {
			t.Errorf("left: %d idle, %d busy, %d hops", idle, busy, hops)
		}
	})
}

// TestFamilyOfTheHost: the answer says whether this system has no way to such addresses, or nobody
// answered there, and neither of a host that refuses the connection.
func TestFamilyOfTheHost(t *testing.T) {
	six := netip.MustParseAddrPort("[2001:db8::1]:25")
	for _, c := range []struct {
		err                 error
		six                 bool
		noNetwork, noAnswer bool
	}{
		{err: syscall.ENETUNREACH, noNetwork: true},
		{err: syscall.ENETUNREACH, six: true, noNetwork: true},
		{err: syscall.EADDRNOTAVAIL, six: true, noNetwork: true},
		{err: syscall.EADDRNOTAVAIL}, // no port is left
		{err: syscall.ETIMEDOUT, noAnswer: true},
		{err: context.DeadlineExceeded, noAnswer: true},
		{err: syscall.ECONNREFUSED},
		{err: syscall.EMFILE},
	} {
		synctest.Test(t, func(t *testing.T) {
			deps := Deps{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", c.err)}
			}}
			q := question()
			if c.six {
				q.Hop.Addr = six
			}
			if a := start(t, Config{}, deps, nil).deliver(t, q); a.NoNetwork != c.noNetwork || a.NoAnswer != c.noAnswer {
				t.Errorf("%v: no network %v, no answer %v", c.err, a.NoNetwork, a.NoAnswer)
			}
		})
	}
}
