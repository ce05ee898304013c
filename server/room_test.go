package server

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
)

func (l *pipeListener) talkerFrom(t testing.TB, peer string) *talker {
	t.Helper()
	conn, err := l.dial(peer)
	if err != nil {
		t.Fatal(err)
	}
	return newTalker(t, conn)
}

// TestIdleMakeRoom: with all sessions taken by idle clients new ones get theirs, and a client
// that sends mail keeps its own.
func TestIdleMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		b := startServer(t, Config{ThreadsMax: 8}, fake, l)
		var idle []*talker
		sends, brought := l.talkerFrom(t, "192.0.2.1"), l.talkerFrom(t, "192.0.2.2")
		brought.begin()
		brought.say("x\r\n.", "250")
		sends.begin()
		sends.send("half a message\r\n")
		for i := range 6 {
			c := l.talkerFrom(t, fmt.Sprintf("198.51.100.%d", i))
			c.reply("220")
			idle = append(idle, c)
			time.Sleep(10 * time.Millisecond)
		}
		early := l.talkerFrom(t, "203.0.113.1")
		early.reply("421 4.3.2") // nobody has been idle for a second
		early.eof()
		time.Sleep(2 * time.Second)
		for i := range 5 {
			c := l.talkerFrom(t, fmt.Sprintf("203.0.113.%d", i))
			idle[i].reply("421 4.3.2 Too many sessions, closing this idle one")
			idle[i].eof()
			c.begin()
			c.say("x\r\n.", "250")
			synctest.Wait()
		}
		time.Sleep(9 * time.Second) // the last one idle is ended without a newcomer
		idle[5].reply("421 4.3.2")
		idle[5].eof()
		sends.say("the other half\r\n.", "250")
		brought.say("QUIT", "221")
		b.end(t)
		log := fake.log.String()
		for _, want := range []string{
			`msg="stress begins" sessions=6 sessions_max=8`,
			`client_ip=198.51.100.0 client_name=Hostname_Not_Determined where=session error="sessions are scarce" cause=room idle=2.06s reply="421 4.3.2`,
			`client_ip=198.51.100.5 client_name=Hostname_Not_Determined where=session error="sessions are scarce" cause=stress_timeout idle=`,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("not in the log: %s", want)
			}
		}
		if n := counted(t, b.server.metrics.dismissed.WithLabelValues("room")); n != 5 {
			t.Errorf("%v made room", n)
		}
		if n := counted(t, b.server.metrics.dismissed.WithLabelValues("stress_timeout")); n != 1 {
			t.Errorf("%v were idle for too long", n)
		}
		if len(fake.committed) != 7 {
			t.Errorf("%d messages", len(fake.committed))
		}
		if t.Failed() {
			t.Log(log)
		}
	})
}

// TestTooMuchNoise: commands without effect do not keep a session under stress.
func TestTooMuchNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		b := startServer(t, Config{ThreadsMax: 1, AddressShare: 100, Limits: Limits{NopsBetween: 100}}, fake, l)
		conn, err := l.dial("192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(conn, b.group)
		began, text, closed := time.Now(), "", false
		for !closed && time.Since(began) < time.Minute {
			_, _ = conn.Write([]byte("NOOP\r\n")) // fails when the session has ended
			time.Sleep(500 * time.Millisecond)
			var more string
			more, closed = c.take()
			text += more
		}
		ended := time.Since(began)
		if !strings.Contains(text, "421 4.3.2") {
			t.Errorf("the last words: %q", text)
		}
		if ended < 9*time.Second || ended > 12*time.Second {
			t.Errorf("ended after %v", ended)
		}
		b.end(t)
	})
}

// TestStressPasses: the time for idle clients is the whole one again, and the log says how long
// it was short.
func TestStressPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		b := startServer(t, Config{ThreadsMax: 4, AddressShare: 100}, fake, l)
		var all []*talker
		for range 3 {
			c := l.talker(t)
			c.reply("220")
			all = append(all, c)
		}
		time.Sleep(3500 * time.Millisecond)
		all[0].say("QUIT", "221")
		all[1].say("QUIT", "221")
		time.Sleep(4 * time.Minute)
		all[2].say("EHLO client", "250")
		b.end(t)
		if log := fake.log.String(); !strings.Contains(log, `msg="stress is over" sessions=1 sessions_max=4 elapsed=4s idle_ended=0`) {
			t.Errorf("log: %s", log)
		}
	})
}

// countingConn counts what is done with a connection.
type countingConn struct {
	net.Conn
	reads, writes, closes int
}

func (c *countingConn) Read(p []byte) (int, error)       { c.reads++; return 0, net.ErrClosed }
func (c *countingConn) Write(p []byte) (int, error)      { c.writes++; return len(p), nil }
func (c *countingConn) Close() error                     { c.closes++; return nil }
func (c *countingConn) SetDeadline(time.Time) error      { return nil }
func (c *countingConn) SetWriteDeadline(time.Time) error { return nil }
func (c *countingConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711}
}

func (c *countingConn) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 25), Port: 25}
}

// TestRefusalIsOneWrite: over the limit a connection costs one write: no module is asked, no
// goroutine is started, no buffer is taken.
func TestRefusalIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		asked := 0
		fake.asked = func(msg.AdmitQ) { asked++ }
		fake.check = func(msg.CheckQ) msg.Verdict { asked++; return msg.Verdict{} }
		b := startServer(t, Config{ThreadsMax: 2, AddressShare: 100, Flags: Flags{Access: true}}, fake, l)
		one, two := l.talker(t), l.talker(t)
		one.reply("220")
		two.reply("220")
		synctest.Wait()
		fake.mu.Lock()
		before, goroutines := asked, runtime.NumGoroutine()
		fake.mu.Unlock()
		conn := &countingConn{}
		l.conns <- conn
		synctest.Wait()
		fake.mu.Lock()
		if asked != before {
			t.Errorf("%d questions to modules", asked-before)
		}
		fake.mu.Unlock()
		// Fewer: goroutines of tests before this one have ended meanwhile.
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines more", n-goroutines)
		}
		if conn.reads != 0 || conn.writes != 1 || conn.closes != 1 {
			t.Errorf("%d reads, %d writes, %d closes", conn.reads, conn.writes, conn.closes)
		}
		if n := counted(t, b.server.metrics.refused.WithLabelValues("threads_max")); n != 1 {
			t.Errorf("%v counted", n)
		}
		b.end(t)
	})
}
