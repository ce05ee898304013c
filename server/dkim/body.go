package dkim

import (
	"crypto/sha256"
	"hash"
)

// Canon is a canonicalization of headers and bodies (RFC 6376 section 3.4).
type Canon string

// The canonicalizations.
const (
	Simple  Canon = "simple"
	Relaxed Canon = "relaxed"
)

// Known reports whether it is one of the two.
func (c Canon) Known() bool { return c == Simple || c == Relaxed }

// BodyHash is the SHA-256 of a canonical body (RFC 6376 section 3.4.3, 3.4.4), which is written
// to it in pieces of any size. Only CR LF ends a line. It keeps a few bytes of the body.
type BodyHash struct {
	relaxed bool
	sum     hash.Hash
	buf     []byte // canonical text that sum has not got yet
	blank   int64  // line ends that count only if more follows
	cr      bool   // a CR whose LF may follow
	wsp     bool   // white space that counts only if more follows in the line
	some    bool   // there is more than empty lines
}

const hashBuffer = 2 << 10

// lineEnds are for hashing many at a time.
const lineEnds = "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"

// NewBodyHash begins a body.
func NewBodyHash(c Canon) *BodyHash {
	return &BodyHash{relaxed: c == Relaxed, sum: sha256.New(), buf: make([]byte, 0, hashBuffer)}
}

// Write takes a piece of the body. It never fails.
func (b *BodyHash) Write(p []byte) (int, error) {
	n := len(p)
	if b.relaxed {
		b.relax(p)
	} else {
		b.simple(p)
	}
	return n, nil
}

func (b *BodyHash) simple(p []byte) {
	if len(p) > 0 && b.cr {
		b.cr = false
		if p[0] == '\n' {
			b.blank++
			p = p[1:]
		} else {
			b.lines()
			b.put("\r")
		}
	}
	if n := len(p); n > 0 && p[n-1] == '\r' {
		b.cr, p = true, p[:n-1]
	}
	end, blank := len(p), int64(0)
	for end >= 2 && p[end-2] == '\r' && p[end-1] == '\n' {
		end -= 2
		blank++
	}
	if end > 0 {
		b.lines()
		b.flush()
		b.sum.Write(p[:end])
	}
	b.blank += blank
}

// lines writes the line ends that were held back.
func (b *BodyHash) lines() {
	if b.blank == 1 {
		b.put(lineEnds[:2])
		b.blank = 0
	}
	for b.blank > 0 {
		n := min(b.blank, int64(len(lineEnds)/2))
		b.put(lineEnds[:2*n])
		b.blank -= n
	}
}

func (b *BodyHash) relax(p []byte) {
	for len(p) > 0 {
		if b.cr {
			b.cr = false
			if p[0] == '\n' {
				b.blank, b.wsp = b.blank+1, false
				p = p[1:]
				continue
			}
			b.text([]byte{'\r'})
		}
		switch p[0] {
		case '\r':
			b.cr, p = true, p[1:]
		case ' ', '\t':
			b.wsp, p = true, p[1:]
		default:
			n := canonical(p)
			b.text(p[:n])
			p = p[n:]
		}
	}
}

// canonical is how many bytes of p, which begins with no white space, are canonical as they
// are: words of one line with a blank between them.
func canonical(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '\r', '\t':
			return i
		case ' ':
			if i+1 == len(p) || p[i+1] == ' ' || p[i+1] == '\t' || p[i+1] == '\r' {
				return i
			}
		}
	}
	return len(p)
}

// text takes what stands in a line and is no white space.
func (b *BodyHash) text(p []byte) {
	if b.blank > 0 {
		b.lines()
	}
	b.some = true
	if b.wsp {
		b.put(" ")
		b.wsp = false
	}
	if len(p) > hashBuffer {
		b.flush()
		b.sum.Write(p)
		return
	}
	if len(b.buf)+len(p) > hashBuffer {
		b.flush()
	}
	b.buf = append(b.buf, p...)
}

// put takes a short piece of canonical text.
func (b *BodyHash) put(s string) {
	if len(b.buf)+len(s) > hashBuffer {
		b.flush()
	}
	b.buf = append(b.buf, s...)
}

func (b *BodyHash) flush() {
	if len(b.buf) > 0 {
		b.sum.Write(b.buf)
		b.buf = b.buf[:0]
	}
}

// Sum ends the body and gives its hash. It may be called once.
func (b *BodyHash) Sum() []byte {
	if b.cr && b.relaxed {
		b.text([]byte{'\r'})
	} else if b.cr {
		b.lines()
		b.put("\r")
	}
	b.flush()
	// The empty lines at the end are left out; an empty body is one line end in simple, and
	// nothing in relaxed.
	if !b.relaxed || b.some {
		b.sum.Write([]byte("\r\n"))
	}
	return b.sum.Sum(nil)
}
