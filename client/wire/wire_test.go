package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/tlsconf/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPair is a connection whose both ends are sockets.
func socketPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// hear waits until the connection has heard something.
func hear(t *testing.T, c *Conn) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !c.Heard(); {
		if time.Now().After(end) {
			t.Fatal("nothing was heard")
		}
	}
}

// TestHeard: what lies in the socket is noticed without waiting, and so is its end.
func TestHeard(t *testing.T) {
	ours, theirs := socketPair(t)
	c := New(ours)
	if c.Heard() {
		t.Error("heard something of a host that is silent")
	}
	say(t, theirs, "250 early\r\n")
	hear(t, c)
	if err := c.ReadReply(time.Minute); err != nil || c.Heard() {
		t.Errorf("after the reply: %v", err)
	}
	say(t, theirs, "250 one\r\n250 two\r\n")
	if err := c.ReadReply(time.Minute); err != nil || !c.Heard() {
		t.Errorf("one reply of two was read: %v", err)
	}
	if err := c.ReadReply(time.Minute); err != nil {
		t.Error(err)
	}
	theirs.Close()
	hear(t, c)
	if err := c.ReadReply(time.Minute); err != io.ErrUnexpectedEOF || !IsClosed(err) || !c.Heard() || !c.Broken {
		t.Errorf("the end was not noticed: %v", err)
	}
}

// secured is a connection under TLS and the server's side of it, whose words can be held back.
func secured(t *testing.T) (*Conn, *tls.Conn, *holding) {
	t.Helper()
	ours, theirs := socketPair(t)
	held := &holding{Conn: theirs}
	cert := tlstest.SelfSigned(t, tlstest.Spec{CN: "mx.example", Names: []string{"mx.example"}})
	server := tls.Server(held, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: cert.Key}}})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	c := New(ours)
	state, err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}, time.Minute)
	if err != nil || !state.HandshakeComplete {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c, server, held
}

// TestEarlyReplyOverTLS: what the host has said before it was asked is noticed, also if TLS has read
// it along with something else.
func TestEarlyReplyOverTLS(t *testing.T) {
	c, server, held := secured(t)
	if c.Heard() {
		t.Error("tickets count as a word of the peer")
	}
	held.hold = true
	say(t, server, "354 go on\r\n")
	say(t, server, "250 early\r\n")
	held.release(t)
	if err := c.ReadReply(5 * time.Second); err != nil || c.Reply.Code != 354 {
		t.Fatalf("%v %d", err, c.Reply.Code)
	}
	if !c.Heard() {
		t.Error("what TLS had read was not heard")
	}
	if err := c.ReadReply(5 * time.Second); err != nil || c.Reply.Code != 250 || c.Heard() {
		t.Fatalf("%v %d", err, c.Reply.Code)
	}
	server.Close()
	hear(t, c)
}

// holding holds writes back.
type holding struct {
	net.Conn
	hold bool
	held []byte
}

func (h *holding) Write(p []byte) (int, error) {
	if !h.hold {
		return h.Conn.Write(p)
	}
	h.held = append(h.held, p...)
	return len(p), nil
}

func (h *holding) release(t *testing.T) {
	t.Helper()
	h.hold = false
	if _, err := h.Conn.Write(h.held); err != nil {
		t.Fatal(err)
	}
}

// TestParts: parts arrive as one stream, plain and in records of TLS, whatever their sizes.
func TestParts(t *testing.T) {
	for _, plain := range []bool{true, false} {
		var c *Conn
		var peer io.Reader
		if plain {
			ours, theirs := socketPair(t)
			c, peer = New(ours), theirs
		} else {
			c, peer, _ = secured(t)
		}
		var want []byte
		for _, n := range []int{0, 1, recordMax - 1, 1, recordMax, 3*recordMax + 7, 2} {
			part := bytes.Repeat([]byte{byte('a' + len(c.Parts))}, n)
			c.Parts, want = append(c.Parts, part), append(want, part...)
		}
		if err := c.FlushParts(time.Minute); err != nil || len(c.Parts) != 0 || len(c.Out) != 0 {
			t.Errorf("%v, %d parts and %d bytes are left", err, len(c.Parts), len(c.Out))
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("plain %v: %v, or something else arrived", plain, err)
		}
	}
}

// TestEarly: nothing is sent to a peer that has spoken before it was asked.
func TestEarly(t *testing.T) {
	for _, flush := range []func(*Conn) error{
		func(c *Conn) error { return c.Command("NOOP", time.Minute) },
		func(c *Conn) error {
			c.Parts = append(c.Parts, []byte("x"))
			return c.FlushParts(time.Minute)
		},
	} {
		peer := &packets{data: []byte("220 mx\r\n250 early\r\n"), size: 100}
		c := New(peer)
		if err := c.ReadReply(time.Minute); err != nil || !c.Pending() {
			t.Fatal(err)
		}
		if err := flush(c); err != ErrEarly || len(peer.written) > 0 || len(c.Out)+len(c.Parts) > 0 {
			t.Errorf("%v, %q was sent", err, peer.written)
		}
	}
}

// TestCommand: a line goes out, its reply comes in, and large buffers are not kept.
func TestCommand(t *testing.T) {
	peer := &packets{data: []byte("250-one\r\n250 2.0.0 two\r\n221 bye\r\n"), size: 100}
	c := New(peer)
	c.Out = append(make([]byte, 0, 2*keepBuffer), "RSET\r\n"...)
	if err := c.Flush(time.Minute); err != nil || c.Out != nil {
		t.Errorf("%v, a buffer of %d bytes is kept", err, cap(c.Out))
	}
	c = New(peer)
	if err := c.Command("EHLO us", time.Minute); err != nil || c.Reply.SMTP().String() != "250 2.0.0 one two" || c.Reply.FirstWord() != "one" {
		t.Errorf("%v %v", err, c.Reply.SMTP())
	}
	c.r = c.w // or it would be early
	c.Quit(time.Minute, false)
	if got := string(peer.written); got != "RSET\r\nEHLO us\r\nQUIT\r\n" || !c.Closing || !peer.closed {
		t.Errorf("sent %q", got)
	}
}

// TestQuit: QUIT is said once, and only to whom it means something.
func TestQuit(t *testing.T) {
	for name, c := range map[string]struct {
		broken, closing, wait bool
		want                  string
	}{
		"in step": {want: "QUIT\r\n"}, "waiting": {wait: true, want: "QUIT\r\n"}, "broken": {broken: true, wait: true}, "after 421": {closing: true},
	} {
		peer := &packets{data: []byte("221 bye\r\n"), size: 100}
		conn := New(peer)
		conn.Broken, conn.Closing = c.broken, c.closing
		conn.Quit(time.Minute, c.wait)
		if string(peer.written) != c.want || !peer.closed || (len(peer.data) == 0) != (c.wait && !c.broken) {
			t.Errorf("%s: sent %q, closed %v", name, peer.written, peer.closed)
		}
	}
}

// TestLastWords: a refusal that the peer sent before it closed the connection is worth more than the error
// of the write; a success is worth nothing then.
func TestLastWords(t *testing.T) {
	reset := &net.OpError{Op: "write", Err: syscall.EPIPE}
	for words, want := range map[string]error{"421 going\r\n": nil, "554 no\r\n": nil, "250 ok\r\n": reset, "": reset, "rubbish\r\n": reset} {
		c := New(&packets{data: []byte(words), size: 100})
		if err := c.ReplyAfter(reset, time.Minute); err != want || !c.Broken {
			t.Errorf("%q: %v", words, err)
		}
	}
	c := New(&packets{data: []byte("554 no\r\n"), size: 100})
	if err := c.ReplyAfter(os.ErrDeadlineExceeded, time.Minute); err != os.ErrDeadlineExceeded {
		t.Errorf("%v", err)
	}
}

// TestDrip: a reply has one deadline, however slowly it drips.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := io.WriteString(theirs, "250-more\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		begin, c := time.Now(), New(ours)
		if err := c.ReadReply(time.Minute); !IsTimeout(err) || time.Since(begin) != time.Minute || !c.Broken {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		c.Close()
		<-done
	})
}

// TestLimits: a peer that sends more than a reply may have is not heard to the end.
func TestLimits(t *testing.T) {
	for in, want := range map[string]error{
		"220 " + strings.Repeat("x", replyLineMax):                 errLineLong,
		strings.Repeat("220-more\r\n", replyBytesMax/10+1) + "220": errReplyLong,
		strings.Repeat("\r\n", 9):                                  ErrNotAReply,
	} {
		c := New(&packets{data: []byte(in), size: 4096})
		if err := c.ReadReply(time.Minute); err != want || !c.Broken {
			t.Errorf("%.20q: %v", in, err)
		}
		if n := len(c.Reply.Text); n > ReplyTextMax {
			t.Errorf("%.20q: %d bytes are kept", in, n)
		}
	}
}

// TestSaid: the value of a reply is made once for as long as the peer says the same.
func TestSaid(t *testing.T) {
	long := "250 " + strings.Repeat("x", saidMax) + "\r\n"
	c := New(&packets{data: []byte("250 2.1.5 ok\r\n250 2.1.5 ok\r\n251 2.1.5 ok\r\n" + long + long), size: 4096})
	var s Said
	var values []string
	same := 0
	for last := s.reply; ; {
		if err := c.ReadReply(time.Minute); err != nil {
			break
		}
		r := s.Value(&c.Reply)
		if r == last {
			same++
		}
		last = r
		values = append(values, r.String()[:9])
	}
	if got := strings.Join(values, ","); got != "250 2.1.5,250 2.1.5,251 2.1.5,250 xxxxx,250 xxxxx" || same != 1 {
		t.Errorf("%s, %d the same", got, same)
	}
}

// TestFault: what is said of a conversation that ended depends on why, and only our own end of it is not the host's fault.
func TestFault(t *testing.T) {
	for _, c := range []struct {
		err   error
		abort bool
		want  string
	}{
		{io.ErrUnexpectedEOF, false, "451 4.4.2 lost connection with mx while waiting"},
		{os.ErrDeadlineExceeded, false, "451 4.4.2 conversation with mx while waiting timed out"},
		{ErrUnfit, false, "451 4.5.0 protocol error: unexpected reply 354 go on of mx while waiting"},
		{ErrInjected, false, "451 4.5.0 protocol error: peer sent something behind its reply to STARTTLS: mx while waiting"},
		{errReplyLong, false, "451 4.5.0 protocol error: peer sent a reply that is too long: mx while waiting"},
		{net.ErrClosed, true, "451 4.3.2 delivery was stopped: conversation with mx while waiting"},
	} {
		conn := New(&packets{data: []byte("354 go on\r\n"), size: 100})
		if err := conn.ReadReply(time.Minute); err != nil {
			t.Fatal(err)
		}
		if c.abort {
			conn.Abort()
		}
		if r, failed := conn.Fault("mx", "waiting", c.err); r.String() != c.want || failed == c.abort || !conn.Broken {
			t.Errorf("%v: %v, %v", c.err, r, failed)
		}
	}
}

func TestIsTimeout(t *testing.T) {
	if !IsTimeout(os.ErrDeadlineExceeded) || IsTimeout(io.EOF) || IsTimeout(nil) || IsTimeout(errors.New("timeout")) {
		t.Error("wrong")
	}
}
