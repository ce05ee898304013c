package server

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"meta1/mta/supervise"
	"meta1/server/content"
)

// bareEnds reports a CR or LF that is not part of CR LF.
func bareEnds(b []byte) bool {
	return bytes.ContainsAny(bytes.ReplaceAll(b, []byte("\r\n"), nil), "\r\n")
}

// chunked is a message as BDAT sends it, in chunks of the given sizes, which are used in
// turn; the last one is behind all of them.
func chunked(content, sizes []byte) []byte {
	var b bytes.Buffer
	for i := 0; len(sizes) > 0 && len(content) > 0; i++ {
		n := min(int(sizes[i%len(sizes)])+1, len(content))
		fmt.Fprintf(&b, "BDAT %d\r\n%s", n, content[:n])
		content = content[n:]
	}
	fmt.Fprintf(&b, "BDAT %d LAST\r\n%s", len(content), content)
	return b.Bytes()
}

// greetedConn says EHLO in a piece of its own, as a client must.
type greetedConn struct {
	scriptConn
	greeted bool
}

func (c *greetedConn) Read(p []byte) (int, error) {
	if c.greeted {
		return c.scriptConn.Read(p)
	}
	c.greeted = true
	return copy(p, "EHLO c.example\r\n"), nil
}

// playChunks sends a message by BDAT, with QUIT behind it, and returns what was committed
// and all replies.
func playChunks(t testing.TB, input []byte, piece int, inlineMax int64) (*fakeMTA, string) {
	fake := newFakeMTA()
	fake.inlineMax = inlineMax
	g := supervise.NewGroup(context.Background())
	fake.serve(g.Context(), g)
	s := mustNew(t, Config{NUL: content.AcceptNUL, Flags: Flags{Offers: Offers{EightBitMIME: true, Chunking: true, Binary: true}}}, fake.deps())
	conn := &greetedConn{scriptConn: scriptConn{addrConn: addrConn{peer: "192.0.2.1"}, in: input, piece: piece}}
	if err := supervise.Call(g.Context(), s.newSession(conn).run); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return fake, conn.out.String()
}

// FuzzChunks: whatever a message holds and however it is cut, it is committed as it is if
// all its lines end in CR LF, and refused otherwise; none of it is read as a command, and
// what stands behind it is. Both hold for any size of the reads.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"", "a\r\n", "a", "\r\n.\r\nMAIL FROM:<x@y.example>\r\n", "a\nb", "a\r", "\r\n\r\n", "a\r\r\n", ".\r\n", "\n.\n", "\r.\r",
		"BDAT 5 LAST\r\n", "QUIT\r\n", "x\x00y\r\n", " a\r\n",
	} {
		f.Add([]byte(s), []byte{0}, uint16(0), uint16(500))
		f.Add([]byte(s), []byte{2, 0}, uint16(6), uint16(10))
		f.Add([]byte(s), []byte(nil), uint16(1000), uint16(0))
	}
	f.Fuzz(func(t *testing.T, content, sizes []byte, piece, inlineMax uint16) {
		input := []byte("MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n")
		body := chunked(content, sizes)
		input = append(append(input, body...), "QUIT\r\n"...)
		fake, out := playChunks(t, input, int(piece)+1, int64(inlineMax))
		if !strings.HasSuffix(out, "221 2.0.0 Closing connection\r\n") {
			t.Fatalf("QUIT behind %q was not read: %q", body, out)
		}
		if n := fake.store.unfinished(); n > 0 {
			t.Fatalf("%d content files are left", n)
		}
		if bareEnds(content) {
			if len(fake.committed) > 0 || !strings.Contains(out, "554 5.6.0 ") {
				t.Fatalf("%q was accepted: %q", content, out)
			}
			return
		}
		if len(fake.committed) != 1 {
			t.Fatalf("%q was committed %d times: %q", content, len(fake.committed), out)
		}
		got, err := fake.content(fake.committed[0])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(got, append([]byte("\r\n"), content...)) || int64(len(got)) != fake.committed[0].Size {
			t.Fatalf("%q came of %q", got, content)
		}
	})
}

// TestChunkCost: many small chunks make neither more writes of content nor more memory than
// one large one, and their replies go out together.
func TestChunkCost(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789abcd\r\n"), 1000)
	for _, sizes := range [][]byte{nil, {0}} {
		envelope := "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
		input := append([]byte(envelope), chunked(text, sizes)...)
		fake, out := playChunks(t, append(input, "QUIT\r\n"...), 64<<10, 0)
		if len(fake.committed) != 1 {
			t.Fatalf("not committed: %.2000s", out)
		}
		if n := fake.store.writes; n > 3 {
			t.Errorf("chunks of %v: %d writes of content", sizes, n)
		}
	}
}

func BenchmarkChunks(b *testing.B) {
	content := bytes.Repeat([]byte("0123456789abcd\r\n"), 64)
	for name, sizes := range map[string][]byte{"1x1024": nil, "1024x1": {0}} {
		b.Run(name, func(b *testing.B) {
			envelope := "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
			input := append([]byte(envelope), chunked(content, sizes)...)
			b.ReportAllocs()
			for range b.N {
				playChunks(b, bytes.Clone(input), 64<<10, 1<<20)
			}
		})
	}
}
