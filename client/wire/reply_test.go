package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"meta1/mta/smtp"
)

func TestReply(t *testing.T) {
	cases := []struct{ in, want string }{
		{"250 ok\r\n", `250 0.0.0 ["ok"]`},
		{"250\r\n", `250 0.0.0 [""]`},
		{"250 \r\n", `250 0.0.0 [""]`},
		{"250-\r\n250\n", `250 0.0.0 ["" ""]`},
		{"550 5.1.1\r\n", `550 5.1.1 [""]`},
		{"550 5.1.1 no such user\r\n", `550 5.1.1 ["no such user"]`},
		{"550-5.1.1 no such\r\n550 5.1.1 user\r\n", `550 5.1.1 ["no such" "user"]`},
		{"550-no such\r\n550 5.1.1 user\r\n", `550 5.1.1 ["no such" "user"]`},
		{"550 4.1.1 class does not fit\r\n", `550 0.0.0 ["4.1.1 class does not fit"]`},
		{"550 5.1 short\r\n", `550 0.0.0 ["5.1 short"]`},
		{"550 5.1.1111 long\r\n", `550 0.0.0 ["5.1.1111 long"]`},
		{"550 5..1 empty\r\n", `550 0.0.0 ["5..1 empty"]`},
		{"550 5.7.1more\r\n", `550 0.0.0 ["5.7.1more"]`},
		{"450-4.2.1 codes\r\n550 5.1.1 differ\r\n", `550 5.1.1 ["4.2.1 codes" "differ"]`},
		{"250 tab\there\r\n", `250 0.0.0 ["tab here"]`},
		{"250 \x01\x7f\xc2\x85\xff\xc3\xa9\r\n", `250 0.0.0 ["?????é"]`},
		{"250 cr\rinside\r\n", `250 0.0.0 ["cr?inside"]`},
	}
	for _, c := range cases {
		t.Run(c.in, func(t *testing.T) {
			r, err := readFrom([]byte(c.in))
			got := fmt.Sprintf("%d %v %q", r.Code, r.Enhanced, r.Lines)
			if err != nil || got != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
		})
	}
}

// TestHiddenReply: a line end that was damaged does not make one reply of two.
func TestHiddenReply(t *testing.T) {
	for in, hidden := range map[string]bool{
		"250 one\r250 two\r\n": true, "250 one\rx250 two\r\n": true, "250 one\r\r550-two\r\n250 three\r\n": true, "250-one\r250\r\n": true,
		"250 one\r\r\r\n": false, "250 one\rtwo\r\n": false, "250 one\r25 two\r\n": false, "250 one 250 two\r\n": false, "250 one\r199 two\r\n": false,
	} {
		if _, err := readFrom([]byte(in)); hidden != errors.Is(err, ErrNotAReply) || !hidden && err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// readFrom reads one reply from a peer that sends b and closes.
func readFrom(b []byte) (smtp.Reply, error) {
	peer := &packets{data: b, size: max(len(b), 1)}
	c := New(peer)
	if err := c.ReadReply(time.Minute); err != nil {
		return smtp.Reply{}, err
	}
	return c.Reply.SMTP(), nil
}

// FuzzReply: whatever a peer sends, what is kept of it is bounded, printable, and the
// same in what packets ever it comes.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.7.1 no\r\n", "2", "250", "250-", "\r\n", "999 x\r\n",
		"220-" + strings.Repeat("x", 5000), strings.Repeat("250-5.1.1 x\r\n", 300) + "250 y\r\n", "250 \xff\x00\x1b\xc2\x85\n",
	} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, packet uint8) {
		whole, err := readFrom(in)
		peer := &packets{data: in, size: int(packet%100) + 1}
		c := New(peer)
		perr := c.ReadReply(time.Minute)
		if (err == nil) != (perr == nil) {
			t.Fatalf("whole: %v, in packets of %d: %v", err, peer.size, perr)
		}
		if err != nil {
			if !c.Broken {
				t.Error("connection not marked as broken")
			}
			return
		}
		parts := c.Reply.SMTP()
		if whole.String() != parts.String() || len(whole.Lines) != len(parts.Lines) {
			t.Fatalf("whole %v, in packets %v", whole, parts)
		}
		if whole.Code < 200 || whole.Code > 599 || len(whole.Lines) == 0 || len(whole.Lines) > replyLinesMax {
			t.Fatalf("reply %v", whole)
		}
		if e := whole.Enhanced; !e.IsZero() && int(e[0]) != whole.Code/100 {
			t.Fatalf("enhanced code %v of %d", e, whole.Code)
		}
		n := 0
		for _, line := range whole.Lines {
			n += len(line)
			for _, r := range line {
				if r < ' ' || r >= 0x7f && r < 0xa0 {
					t.Fatalf("line %q", line)
				}
			}
			if !utf8.ValidString(line) {
				t.Fatalf("line %q", line)
			}
		}
		if n > ReplyTextMax {
			t.Fatalf("%d bytes kept", n)
		}
	})
}

// packets is a peer that gives its data in parts of one size, whatever it is told.
type packets struct {
	net.Conn
	data    []byte
	size    int
	written []byte
	closed  bool
}

func (p *packets) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func (p *packets) Write(b []byte) (int, error) {
	p.written = append(p.written, b...)
	return len(b), nil
}

func (p *packets) Close() error {
	p.closed = true
	return nil
}
func (p *packets) SetReadDeadline(time.Time) error  { return nil }
func (p *packets) SetWriteDeadline(time.Time) error { return nil }
