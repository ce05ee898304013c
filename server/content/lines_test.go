package content

import (
	"bytes"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// linesOf is what the scanner says of a message that comes by BDAT in pieces.
func linesOf(text string, size int, lineMax int64, binary bool) smtp.Reply {
	c := New(Config{Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 1 << 20})
	c.Begin(nil, 0)
	lines := c.Lines(lineMax, binary)
	for given := 0; given < len(text); {
		piece := text[given:min(len(text), given+size)]
		lines.Scan([]byte(piece))
		c.Write([]byte(piece))
		given += len(piece)
	}
	lines.End()
	return c.Failed()
}

// TestLines: a message by BDAT has no line ends but CR LF and no line that is too long, however it
// is cut; in one that is binary that holds for the header alone.
func TestLines(t *testing.T) {
	for _, tt := range []struct {
		text   string
		binary bool
		code   int
	}{
		{text: ""},
		{text: "a"},
		{text: "a: b\r\n\r\nc\r\n"},
		{text: "\r\n.\r\n\r\n"},
		{text: "a\nb", code: 554},
		{text: "a\r", code: 554},
		{text: "a\r\r\n", code: 554},
		{text: "\n", code: 554},
		{text: "a: b\r\n\r\n\n", code: 554},
		{text: strings.Repeat("x", 20) + "\r\n"},
		{text: strings.Repeat("x", 21), code: 554},
		{text: "a: b\r\n\r\n\n\r\x00" + strings.Repeat("x", 21), binary: true},
		{text: "a: b\n\r\n", binary: true, code: 554},
		{text: "a: \x00\r\n\r\n", binary: true, code: 550},
	} {
		for size := 1; size <= len(tt.text)+1; size++ {
			if r := linesOf(tt.text, size, 20, tt.binary); r.Code != tt.code {
				t.Errorf("%q in pieces of %d: %v, want %d", tt.text, size, r, tt.code)
			}
		}
	}
}

// TestPieceMemory: many small pieces take no more memory than one large one.
func TestPieceMemory(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789abcd\r\n"), 1000)
	memory := msg.NewMemory(1 << 30)
	for _, step := range []int{1, len(text)} {
		c := New(Config{Pools: &Pools{}, Memory: memory.Reserve(), InlineMax: 1 << 20})
		c.Begin(nil, 0)
		for i := 0; i < len(text); i += step {
			c.Write(text[i : i+step])
		}
		if cap(c.mem) > 2*len(text) {
			t.Errorf("pieces of %d octets take %d octets of memory", step, cap(c.mem))
		}
		c.Abort()
	}
}
