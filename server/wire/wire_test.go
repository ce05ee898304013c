package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/server/crowd"
)

// script is a connection on which a client says what it has to say, at most piece bytes at a time.
type script struct {
	net.Conn
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *script) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error)     { return c.out.Write(p) }
func (c *script) SetDeadline(time.Time) error     { return nil }
func (c *script) Close() error                    { return nil }
func (c *script) SetReadDeadline(time.Time) error { return nil }

// scripted is a Conn whose client says in, with a budget of so many bytes.
func scripted(in string, piece int, budget int64) (*Conn, *script, *msg.Memory) {
	raw, memory := &script{in: []byte(in), piece: piece}, msg.NewMemory(budget)
	c := New(raw, time.Minute, new(Halt), new(Pools), memory)
	c.Acquire()
	return c, raw, memory
}

// plainLine is what ReadLine makes of in, and the input behind it. either says that it may take the line for
// one that is too long, too.
func plainLine(in []byte, limit int) (line, rest []byte, err error, either bool) {
	i := bytes.IndexByte(in, '\n')
	switch {
	case len(in) >= 2 && in[0] == 0x16 && in[1] == 3:
		return nil, nil, ErrTLSRecord, false
	case i < 0:
		return nil, nil, io.EOF, false
	}
	line, rest = in[:i+1], in[i+1:]
	switch {
	case !bytes.HasSuffix(line, []byte("\r\n")):
		return nil, nil, ErrBareLine, false
	case bytes.Count(line, []byte("\r")) > 1:
		return nil, nil, ErrBareLine, len(line) > limit
	case len(line) > limit:
		return nil, rest, ErrLongLine, false
	}
	return line[:i-1], rest, nil, false
}

// checkLines reads all lines of in, and compares them with plainLine.
func checkLines(t *testing.T, in string, piece, limit int, budget int64) {
	t.Helper()
	c, _, memory := scripted(in, piece, budget)
	for left := []byte(in); ; {
		line, err := c.ReadLine(limit)
		want, rest, wantErr, either := plainLine(left, limit)
		if either && err == ErrLongLine {
			break
		}
		if err != wantErr || string(line) != string(want) {
			t.Fatalf("%.100q in pieces of %d, limit %d: %.100q, %v; want %.100q, %v", left, piece, limit, line, err, want, wantErr)
		}
		c.GiveBack()
		if err != nil && err != ErrLongLine {
			break
		}
		left = rest
	}
	c.Close()
	if n := memory.Used(); n != 0 || c.small != nil {
		t.Fatalf("%d bytes of the budget are lost", n)
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 3000) + "\r\n"
	for _, in := range []string{
		"", "a", "a\r\n", "a\r\nb\r\n\r\nc\r\n", "a\nb\r\n", "a\rb\r\n", "\n", "\r\n", "a\r\r\n", "\x16\x03\x01\r\n", "\x16", "\x16\r\n",
		"a\r\n\x16\x03", long + "b\r\n", long[:len(long)-2] + "\nb\r\n", strings.Repeat("a\r\n", 3000), strings.Repeat(long, 5) + "b\r\n",
	} {
		for _, piece := range []int{1, 2, 7, 1000, smallBuffer, 1 << 20} {
			checkLines(t, in, piece, 2, 1<<20)
			checkLines(t, in, piece, LineMax, 1<<20)
			checkLines(t, in, piece, LineMax, 0)
		}
	}
	c, _, _ := scripted(strings.Repeat("x", skipMax+LineMax)+"\r\na\r\n", 1000, 0)
	if _, err := c.ReadLine(LineMax); err != ErrFlood {
		t.Errorf("a line without an end: %v", err)
	}
}

// FuzzReadLine: lines are read the same however they come.
func FuzzReadLine(f *testing.F) {
	f.Add("EHLO a\r\nMAIL FROM:<>\r\n", uint16(1), uint16(5))
	f.Add("a\nb\r\n\x16\x03\x01", uint16(4), uint16(100))
	f.Add(strings.Repeat("x", 5000)+"\r\nb\r\n", uint16(1000), uint16(10))
	f.Fuzz(func(t *testing.T, in string, piece, limit uint16) {
		if len(in) > skipMax/2 {
			return
		}
		checkLines(t, in, int(piece)+1, int(limit)%LineMax+2, 1<<20)
	})
}

// TestBorrow: a line that the small buffer cannot hold is read if the budget has room for a larger
// one, and skipped otherwise. The large buffer goes back when what waits in it fits into the small one.
func TestBorrow(t *testing.T) {
	const limit = 12 << 10
	long := strings.Repeat("x", 10<<10)
	c, _, memory := scripted(long+"\r\n"+strings.Repeat("y\r\n", 2000), 1<<20, bigBuffer)
	if line, err := c.ReadLine(limit); string(line) != long || err != nil {
		t.Fatalf("%d bytes, %v", len(line), err)
	}
	if c.Borrow() {
		t.Error("two buffers were lent")
	}
	for i := range 2000 {
		c.GiveBack()
		if left := 3 * (2000 - i); (memory.Used() == bigBuffer) != (len(c.Unread()) > smallBuffer) || len(c.Unread()) > left {
			t.Fatalf("%d bytes wait, and %d are taken", len(c.Unread()), memory.Used())
		}
		if line, err := c.ReadLine(limit); string(line) != "y" || err != nil {
			t.Fatalf("line %d: %q, %v", i, line, err)
		}
	}
	c.GiveBack()
	if n := memory.Used(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}

	c, _, _ = scripted(long+"\r\ny\r\n", 1<<20, bigBuffer-1)
	if _, err := c.ReadLine(limit); err != ErrLongLine {
		t.Errorf("a long line without room: %v", err)
	}
	if line, err := c.ReadLine(limit); string(line) != "y" || err != nil {
		t.Errorf("the line behind it: %q, %v", line, err)
	}

	c, _, memory = scripted(long, 1<<20, bigBuffer)
	if _, err := c.ReadLine(limit); err != io.EOF || memory.Used() != bigBuffer {
		t.Errorf("%v, %d bytes are taken", err, memory.Used())
	}
	if c.Close(); memory.Used() != 0 {
		t.Errorf("%d bytes are taken after the end", memory.Used())
	}
}

// TestReplies: replies wait until the input holds no further command.
func TestReplies(t *testing.T) {
	c, raw, _ := scripted("a\r\nb\r\nc\r\n", 6, 0)
	for _, want := range []string{"", "", "1 2 "} {
		if _, err := c.ReadLine(LineMax); err != nil || raw.out.String() != want {
			t.Errorf("%v, written: %q, want %q", err, raw.out.String(), want)
		}
		c.Out = append(c.Out, byte('1'+raw.out.Len()/2+len(c.Out)/2), ' ')
	}
	if err := c.Flush(); err != nil || raw.out.String() != "1 2 3 " {
		t.Errorf("%v, %q", err, raw.out.String())
	}
}

// piped is a Conn over a pipe, and the client's end.
func piped(t *testing.T, h *Halt) (*Conn, net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	c := New(b, time.Minute, h, new(Pools), msg.NewMemory(1<<20))
	c.Acquire()
	return c, a
}

// TestTimeout: a line has its time as a whole, however slowly it drips.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := piped(t, new(Halt))
		go func() {
			for err := error(nil); err == nil; _, err = client.Write([]byte("x")) {
				time.Sleep(10 * time.Second)
			}
		}()
		begun := time.Now()
		_, err := c.ReadLine(LineMax)
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took < time.Minute || took > 70*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		c.Close()
		time.Sleep(10 * time.Second) // the client finds out
	})
}

// TestHalt: a session that waits ends when the server stops; one in DATA goes on until the time is
// over, as one in a transaction does if it may.
func TestHalt(t *testing.T) {
	for _, tt := range []struct {
		name         string
		patient      bool
		awaits       crowd.State
		transactions bool
		want         time.Duration
	}{
		{name: "idle", awaits: crowd.Waiting, transactions: true},
		{name: "in a transaction", awaits: crowd.InTransaction},
		{name: "in a transaction that may go on", awaits: crowd.InTransaction, transactions: true, want: 5 * time.Second},
		{name: "in DATA", patient: true, awaits: crowd.Sending, want: 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := new(Halt)
				c, _ := piped(t, h)
				c.Patient, c.Awaits = tt.patient, tt.awaits
				var begun time.Time
				go func() {
					time.Sleep(time.Second)
					begun = time.Now()
					h.Set(begun.Add(5*time.Second), tt.transactions)
					c.Poke()
				}()
				if _, err := c.ReadLine(LineMax); err != ErrHalted || time.Since(begun) != tt.want {
					t.Errorf("%v after %v, want %v", err, time.Since(begun), tt.want)
				}
				if err := c.Until(time.Now().Add(time.Hour), func() error { return nil }); err != ErrHalted {
					t.Errorf("something new: %v", err)
				}
			})
		})
	}
}

// TestUntil: what reads the connection itself must be over in time, and ends when the server stops.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(Halt)
		c, _ := piped(t, h)
		read := func() error {
			_, err := c.Raw().Read(make([]byte, 1))
			return err
		}
		begun := time.Now()
		if err := c.Until(begun.Add(time.Second), read); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		time.AfterFunc(time.Second, func() {
			h.Set(time.Now().Add(time.Minute), true)
			c.Poke()
		})
		begun = time.Now()
		if err := c.Until(begun.Add(time.Hour), read); err != ErrHalted || time.Since(begun) != time.Second {
			t.Errorf("%v after %v, want %v", err, time.Since(begun), ErrHalted)
		}
	})
}

// TestDismiss: a session that has to make room for another one ends where it waits.
func TestDismiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client := piped(t, new(Halt))
		all := crowd.New(crowd.Limits{Max: 1, Share: 1, Idle: time.Hour, IdleStressed: time.Second})
		if why, _ := all.Arrive(&c.Guest, netip.MustParseAddr("192.0.2.1"), 0); why != crowd.None {
			t.Fatal(why)
		}
		ended := make(chan error)
		go func() {
			_, err := c.ReadLine(LineMax)
			c.Out = append(c.Out, "421 bye\r\n"...)
			c.Farewell()
			c.Close()
			ended <- err
		}()
		synctest.Wait()
		_, leave := all.Arrive(new(crowd.Guest), netip.MustParseAddr("192.0.2.2"), time.Hour)
		if len(leave) != 1 || leave[0] != &c.Guest {
			t.Fatalf("%d have to go", len(leave))
		}
		c.Dismiss()
		if words, _ := io.ReadAll(client); string(words) != "421 bye\r\n" {
			t.Errorf("the last words are %q", words)
		}
		if err := <-ended; err != ErrRoom {
			t.Error(err)
		}
	})
}

// TestSpeaksFirst: a client that does not wait for the greeting is found, and what it said can be read.
func TestSpeaksFirst(t *testing.T) {
	for _, early := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, client := piped(t, new(Halt))
			go func() {
				if !early {
					time.Sleep(3 * time.Second)
				}
				_, _ = client.Write([]byte("EHLO a\r\n"))
			}()
			if got := c.SpeaksFirst(2 * time.Second); got != early {
				t.Errorf("speaks first: %v, want %v", got, early)
			}
			if line, err := c.ReadLine(LineMax); string(line) != "EHLO a" || err != nil {
				t.Errorf("%q, %v", line, err)
			}
		})
	}
}
