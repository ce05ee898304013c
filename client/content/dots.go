package content

import "bytes"

var (
	crlf    = []byte("\r\n")
	crlfDot = []byte("\r\n.")
	oneDot  = []byte(".")
	dotCRLF = []byte(".\r\n")

	crlfDotCRLF = []byte("\r\n.\r\n")
)

// dots finds the places of a message where a dot must be doubled (RFC 5321 section
// 4.5.2), in content that comes in parts. The zero value stands at its start.
type dots struct {
	at   position
	none bool // no line begins with a dot: nothing is searched for
}

// position is what the content before ended in.
type position uint8

const (
	lineStart position = iota // nothing, or CRLF
	afterCR
	midLine
)

// cut returns how many bytes of p can be sent before the next dot that must be
// doubled, and whether there is one. The caller sends the one more dot and goes on
// with p[n:].
func (d *dots) cut(p []byte) (n int, double bool) {
	if len(p) == 0 {
		return 0, false
	}
	if d.none {
		d.pass(p)
		return len(p), false
	}
	if d.at == lineStart && p[0] == '.' {
		d.at = midLine
		return 0, true
	}
	if d.at == afterCR && p[0] == '\n' {
		d.at = lineStart
		if len(p) == 1 {
			return 1, false
		}
		n, double = d.cut(p[1:])
		return n + 1, double
	}
	if i := bytes.Index(p, crlfDot); i >= 0 {
		d.at = midLine
		return i + 2, true
	}
	d.pass(p)
	return len(p), false
}

// pass notes what p, of at least one byte, ends in.
func (d *dots) pass(p []byte) {
	switch {
	case bytes.HasSuffix(p, crlf), d.at == afterCR && len(p) == 1 && p[0] == '\n':
		d.at = lineStart
	case p[len(p)-1] == '\r':
		d.at = afterCR
	default:
		d.at = midLine
	}
}

// end is what must follow the content: its line end if it has none, and the final dot.
func (d *dots) end() []byte {
	if d.at == lineStart {
		return dotCRLF
	}
	return crlfDotCRLF
}

// appendTo adds p to b with its dots doubled.
func (d *dots) appendTo(b, p []byte) []byte {
	for {
		n, double := d.cut(p)
		b = append(b, p[:n]...)
		if !double {
			return b
		}
		b = append(b, '.')
		p = p[n:]
	}
}
