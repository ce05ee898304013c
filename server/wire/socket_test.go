//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"meta1/mta/msg"
)

// socket is a Conn over TCP, and the client's end.
func socket(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close(); client.Close() })
	return New(raw, time.Minute, new(Halt), new(Pools), msg.NewMemory(1<<20)), client.(*net.TCPConn)
}

// send writes text, and waits until it has arrived.
func send(t *testing.T, c *Conn, client net.Conn, text string) {
	t.Helper()
	if _, err := client.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	raw, err := c.raw.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	err = raw.Read(func(fd uintptr) bool {
		n, _, _ := syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return n == len(text)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestIdle: a session that waits has no buffers, and gets some for what comes.
func TestIdle(t *testing.T) {
	c, client := socket(t)
	c.Acquire()
	c.release()
	_ = c.raw.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.idle.read(); !errors.Is(err, os.ErrDeadlineExceeded) || c.small != nil {
		t.Errorf("%v; it has buffers: %v", err, c.small != nil)
	}
	_ = c.raw.SetReadDeadline(time.Time{})
	send(t, c, client, "NOOP\r\nQUIT\r\n")
	for _, want := range []string{"NOOP", "QUIT"} {
		if line, err := c.ReadLine(LineMax); string(line) != want || err != nil {
			t.Errorf("%q, %v, want %q", line, err, want)
		}
	}
	client.Close()
	if _, err := c.ReadLine(LineMax); !errors.Is(err, io.EOF) {
		t.Errorf("%v at the end", err)
	}
	if c.Close(); c.small != nil {
		t.Error("a closed connection has buffers")
	}
}

// TestPending: what has arrived is seen before it is read.
func TestPending(t *testing.T) {
	c, client := socket(t)
	c.Acquire()
	if c.PendingInput() || c.BeginsTLS() || c.SpeaksFirst(0) {
		t.Error("there is input before there is any")
	}
	send(t, c, client, "\x16\x03\x01")
	if !c.PendingInput() || !c.BeginsTLS() || !c.SpeaksFirst(0) {
		t.Error("the input was not seen")
	}
	if _, err := c.ReadLine(LineMax); err != ErrTLSRecord {
		t.Errorf("%v, want %v", err, ErrTLSRecord)
	}
}

// TestFarewell: the last reply arrives, although the client has sent more than was read.
func TestFarewell(t *testing.T) {
	c, client := socket(t)
	c.Acquire()
	send(t, c, client, "a\nmore\r\n")
	if _, err := c.ReadLine(LineMax); err != ErrBareLine {
		t.Fatal(err)
	}
	if _, err := client.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.Out = append(c.Out, "500 bare\r\n"...)
	c.Farewell()
	c.Close()
	if words, err := io.ReadAll(client); string(words) != "500 bare\r\n" || err != nil {
		t.Errorf("%q, %v", words, err)
	}
}
