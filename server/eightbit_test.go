package server

import (
	"testing"
)

// TestUndeclared8Bit: the envelope says that content is 8-bit also if the client has not said so, for the next host must
// be told (RFC 6152 section 3), and content that has gone to a file is not looked at again for it.
func TestUndeclared8Bit(t *testing.T) {
	for _, tt := range []struct{ name, mail, content, body string }{
		{"ASCII", "", "A: b\r\n\r\nc\r\n", ""},
		{"ASCII, declared", " BODY=8BITMIME", "A: b\r\n\r\nc\r\n", "8BITMIME"},
		{"8 bit", "", "A: b\r\n\r\n\xe9\r\n", "8BITMIME"},
		{"8 bit as 7 bit", " BODY=7BIT", "A: b\r\n\r\n\xe9\r\n", "8BITMIME"},
		{"8 bit in the header", "", "A: \xe9\r\n\r\nc\r\n", "8BITMIME"},
		{"binary", " BODY=BINARYMIME", "A: b\r\n\r\n\xe9\n", "BINARYMIME"},
	} {
		for where, inlineMax := range map[string]int64{"memory": 1 << 20, "file": 1} {
			t.Run(tt.name+" in "+where, func(t *testing.T) {
				in := "MAIL FROM:<a@c.example>" + tt.mail + "\r\nRCPT TO:<b@d.example>\r\n" + string(chunked([]byte(tt.content), nil))
				fake, out := playChunks(t, []byte(in), 1<<20, inlineMax)
				if len(fake.committed) != 1 {
					t.Fatal(out)
				}
				q := fake.committed[0]
				if q.Envelope.Mail.Body != tt.body {
					t.Errorf("BODY=%s, want %s", q.Envelope.Mail.Body, tt.body)
				}
				if file := q.Inline == nil; file != (where == "file") {
					t.Errorf("in a file: %v", file)
				}
			})
		}
	}
}
