package content

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/client/wire"
	"meta1/mta/msg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plainDots is the rule of RFC 5321 section 4.5.2 in its plainest form.
func plainDots(content string) string {
	if content != "" && !strings.HasSuffix(content, "\r\n") {
		content += "\r\n"
	}
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	return strings.ReplaceAll(content, "\r\n.", "\r\n..") + ".\r\n"
}

func noDots(content string) bool {
	return !strings.HasPrefix(content, ".") && !strings.Contains(content, "\r\n.")
}

// FuzzDots compares the sender's way of finding dots, content in any parts, with the
// plain rule.
func FuzzDots(f *testing.F) {
	for _, s := range []string{"", ".", "..", "\r\n.", ".\r\n", "a\r\n.b\r\n..\r\n.\r\n", "\r", "a\r", "\n.", "\r\r\n.", "x\r\n\r\n.\r\n"} {
		f.Add(s, uint8(1))
	}
	f.Fuzz(func(t *testing.T, content string, part uint8) {
		for _, known := range []bool{false, noDots(content)} {
			d := dots{none: known}
			var got []byte
			for rest := content; rest != ""; {
				n := min(len(rest), int(part)+1)
				got = d.appendTo(got, []byte(rest[:n]))
				rest = rest[n:]
			}
			got = append(got, d.end()...)
			if want := plainDots(content); string(got) != want {
				t.Errorf("%q in parts of %d, known to have no dots %v: %q, want %q", content, int(part)+1, known, got, want)
			}
		}
	})
}

// connect makes a connection and a function that closes it and returns all that arrived at the host.
func connect(t *testing.T) (c *wire.Conn, host net.Conn, all func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(theirs)
		got <- string(b)
	}()
	return wire.New(ours), theirs, func() string {
		_ = ours.Close()
		defer theirs.Close()
		return <-got
	}
}

// TestSend: content of every kind and size arrives as it should, from memory and from a reader,
// known to have no dots or not, by DATA and by BDAT, with QUIT and without; and the delivery cannot give
// way any more then.
func TestSend(t *testing.T) {
	for name, line := range map[string]string{
		"text": "just a line of some text that is not very long\r\n", "dots": ".\r\n", "few dots": strings.Repeat("x", 900) + "\r\n.y\r\n", "CR": "\r", "binary": "\x00\r\xff\n",
	} {
		for _, size := range []int{0, 1, 2, SmallMax, SmallMax + 1, readMax + 1, chunkMax + 1, 2*chunkMax + 17} {
			text := strings.Repeat(line, size/len(line)+1)[:size]
			for how := range 8 {
				reader, bdat, quit := how&1 != 0, how&2 != 0, how&4 != 0
				c, _, all := connect(t)
				m := Content{Body: []byte(text), Size: int64(size), NoDots: how&4 != 0 && noDots(text)}
				if reader && size > 0 {
					m.Body, m.Reader = nil, strings.NewReader(text)
				}
				p := msg.NewProgress()
				s := Sender{Conn: c, BDAT: bdat, Quit: quit, Block: time.Minute, Progress: p}
				err := s.Send(m)
				want := plainDots(text)
				if bdat {
					want = fmt.Sprintf("BDAT %d LAST\r\n%s", size, text)
				}
				if quit {
					want += "QUIT\r\n"
				}
				if got := all(); err != nil || got != want || !s.Tried || p.GiveWay() {
					t.Errorf("%s of %d bytes, reader %v, BDAT %v, QUIT %v: %v, %d bytes of %d", name, size, reader, bdat, quit, err, len(got), len(want))
				}
				if stage, _ := p.Idle(); (stage == msg.DeliverData) != (size > chunkMax || size > SmallMax && !bdat || size > 0 && reader && (!bdat || size > readMax)) {
					t.Errorf("%s of %d bytes, reader %v, BDAT %v: progress to %v", name, size, reader, bdat, stage)
				}
			}
		}
	}
}

// TestNotFinished: the last part does not leave if it must not, if the host has spoken, or if the content ends too
// early. For a chunk that means that the host gets less than it was told.
func TestNotFinished(t *testing.T) {
	for _, size := range []int{5, SmallMax + 1, chunkMax + 5} {
		text := bytes.Repeat([]byte("x"), size)
		for name, want := range map[string]error{"gave way": msg.ErrGaveWay, "early": wire.ErrEarly, "short": ErrRead} {
			for _, bdat := range []bool{false, true} {
				c, host, all := connect(t)
				m := Content{Body: text, Size: int64(size)}
				s := Sender{Conn: c, BDAT: bdat, Quit: true, Block: time.Minute, Progress: msg.NewProgress()}
				switch name {
				case "gave way":
					s.Progress.GiveWay()
				case "early":
					if _, err := io.WriteString(host, "354 go on\r\n250 ok\r\n"); err != nil {
						t.Fatal(err)
					}
					if err := c.ReadReply(time.Minute); err != nil {
						t.Fatal(err)
					}
					for !c.Heard() { // it may come in two pieces
					}
					if size <= SmallMax && !c.Pending() {
						_ = all()
						continue // small content does not look at the socket again
					}
				case "short":
					m.Body, m.Reader = nil, bytes.NewReader(text[1:])
				}
				err := s.Send(m)
				got := all()
				if err != want || s.Tried || (name == "gave way") != c.Aborted() || strings.HasSuffix(got, ".\r\n") || strings.HasSuffix(got, "QUIT\r\n") || strings.Count(got, "x") >= size && bdat {
					t.Errorf("%s, %d bytes, BDAT %v: %v, %d bytes arrived", name, size, bdat, err, len(got))
				}
			}
		}
	}
}

// TestSlow: a host that takes the content too slowly has so much time for it as the slowest that is borne with, whatever it takes
// of each part.
func TestSlow(t *testing.T) {
	c, _, all := connect(t)
	s := Sender{Conn: c, Block: -time.Minute}
	if err := s.Send(Content{Body: make([]byte, SmallMax+1), Size: SmallMax + 1}); !wire.IsTimeout(err) {
		t.Errorf("%v", err)
	}
	if got := all(); got != "" {
		t.Errorf("%d bytes were sent", len(got))
	}
}
