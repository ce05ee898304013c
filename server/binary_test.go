package server

import (
	"bytes"
	"strings"
	"testing"
)

// strictHeader reports whether the header of a message, our Received: not counted, is made of
// lines without NUL. All of a message without an empty line is header.
func strictHeader(content []byte) bool {
	header, _, _ := bytes.Cut(append([]byte("\r\n"), content...), []byte("\r\n\r\n"))
	return !bareEnds(header) && bytes.IndexByte(header, 0) < 0
}

// FuzzBinary: whatever the body of a message holds that comes with BODY=BINARYMIME and however
// it is cut, it is committed octet for octet and said to be binary; a header that is not made
// of lines is refused. None of it is read as a command, and what stands behind it is.
func FuzzBinary(f *testing.F) {
	for _, s := range []string{
		"", "a", "\r\n", "A: b\r\n\r\n\x00\r\n.\r\n\n.\n\r", "\r\n\r", "A: b\r\n\r\n\r\n.\r\nMAIL FROM:<x@y.example>\r\n",
		"A: b\n\r\n", "A: \x00\r\n\r\n", " a\r\n\r\n\x00", "A: b\r\n\rc\r\n", "\r\nBDAT 5 LAST\n", "A: b\r\n\r\nQUIT\n",
	} {
		f.Add([]byte(s), []byte{0}, uint16(0), uint16(500))
		f.Add([]byte(s), []byte{2, 0}, uint16(6), uint16(10))
		f.Add([]byte(s), []byte(nil), uint16(1000), uint16(0))
	}
	f.Fuzz(func(t *testing.T, content, sizes []byte, piece, inlineMax uint16) {
		input := []byte("MAIL FROM:<a@c.example> BODY=BINARYMIME\r\nRCPT TO:<b@d.example>\r\n")
		body := chunked(content, sizes)
		input = append(append(input, body...), "QUIT\r\n"...)
		fake, out := playChunks(t, input, int(piece)+1, int64(inlineMax))
		if !strings.HasSuffix(out, "221 2.0.0 Closing connection\r\n") {
			t.Fatalf("QUIT behind %q was not read: %q", body, out)
		}
		if n := fake.store.unfinished(); n > 0 {
			t.Fatalf("%d content files are left", n)
		}
		if !strictHeader(content) {
			if len(fake.committed) > 0 || !strings.Contains(out, "55") {
				t.Fatalf("%q was accepted: %q", content, out)
			}
			return
		}
		if len(fake.committed) != 1 {
			t.Fatalf("%q was committed %d times: %q", content, len(fake.committed), out)
		}
		q := fake.committed[0]
		got, err := fake.content(q)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(got, append([]byte("\r\n"), content...)) || int64(len(got)) != q.Size || !q.Envelope.Mail.Binary() {
			t.Fatalf("%q came of %q as %q", got, content, q.Envelope.Mail.Body)
		}
	})
}
