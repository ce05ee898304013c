package dsn

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// lineLimit is the most octets of a line without its CRLF (RFC 5322 section 2.1.1).
	lineLimit = 998
	// wrapAt is where long lines are broken; it leaves room for a field's name.
	wrapAt = 900
	// foldAt is where fields are folded if they have a space there.
	foldAt = 78
)

// writer collects lines of a message. Whatever it is given, it writes lines of at
// most lineLimit octets that end with CRLF and have no control character in them.
type writer struct {
	b []byte
	// ascii says that what is not ASCII is written in RFC 6533's notation.
	ascii bool
}

// line writes one line of text, or several if it is too long.
func (w *writer) line(parts ...string) {
	s := w.clean(strings.Join(parts, ""))
	for len(s) > wrapAt {
		n := cut(s, wrapAt)
		w.b = append(append(w.b, s[:n]...), "\r\n"...)
		s = s[n:]
	}
	w.b = append(append(w.b, s...), "\r\n"...)
}

// field writes a header field. Each of lines begins a line of the message. Without
// a text in any of them nothing is written.
func (w *writer) field(name string, lines ...string) {
	start, col := len(w.b), len(name)+2
	w.b = append(append(w.b, name...), ": "...)
	empty := true
	for _, s := range lines {
		if s = strings.TrimSpace(w.clean(s)); s == "" {
			continue
		}
		if !empty {
			w.b, col = append(w.b, "\r\n "...), 1
		}
		w.fold(s, col)
		empty = false
	}
	if empty {
		w.b = w.b[:start]
		return
	}
	w.b = append(w.b, "\r\n"...)
}

// fold writes s from column col on. A line is broken before a space, which then
// begins the next one, so that unfolding gives back what was there; a word that is
// too long for any line is broken where it is.
func (w *writer) fold(s string, col int) {
	for {
		if len(s) <= foldAt-col {
			w.b = append(w.b, s...)
			return
		}
		n := foldPoint(s, foldAt-col)
		switch {
		case n > 0 && n <= wrapAt:
			w.b = append(append(w.b, s[:n]...), "\r\n"...)
			s, col = s[n:], 0
		case len(s) <= wrapAt:
			w.b = append(w.b, s...)
			return
		default:
			n = cut(s, wrapAt)
			w.b = append(append(w.b, strings.TrimRight(s[:n], " ")...), "\r\n "...)
			s, col = strings.TrimLeft(s[n:], " "), 1
		}
	}
}

// foldPoint is the index of the last space up to limit before which s may be
// folded, or of the first one behind, or -1. Neither side is blank.
func foldPoint(s string, limit int) int {
	best := -1
	text := false
	for i := 0; i+1 < len(s); i++ {
		if s[i] != ' ' {
			text = true
			continue
		}
		if !text || s[i+1] == ' ' {
			continue
		}
		if i > limit {
			if best < 0 {
				best = i
			}
			break
		}
		best = i
	}
	return best
}

// raw writes the lines of a message that is returned as text. They are kept as far
// as they can be in a message: long ones are broken, and CR, LF or NUL alone become
// '?'.
func (w *writer) raw(content []byte) {
	for len(content) > 0 {
		line, rest, _ := bytes.Cut(content, []byte("\r\n"))
		content = rest
		for len(line) > lineLimit {
			n := cut(line, lineLimit)
			w.rawLine(line[:n])
			line = line[n:]
		}
		w.rawLine(line)
	}
}

func (w *writer) rawLine(line []byte) {
	start := len(w.b)
	w.b = append(append(w.b, line...), "\r\n"...)
	for i, c := range line {
		if c == '\r' || c == '\n' || c == 0 {
			w.b[start+i] = '?'
		}
	}
}

// clean makes foreign text fit for a line: control characters, and what is no
// UTF-8, become '?'.
func (w *writer) clean(s string) string {
	if isPrintable(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, !unicode.IsPrint(r):
			b.WriteByte('?')
		case w.ascii && r >= utf8.RuneSelf:
			writeEmbedded(&b, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// writeEmbedded writes a character in ASCII (RFC 6533 section 3,
// EmbeddedUnicodeChar).
func writeEmbedded(b *strings.Builder, r rune) { fmt.Fprintf(b, `\x{%02X}`, r) }

// cut is the largest index up to n that does not split a character.
func cut[T string | []byte](s T, n int) int {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return i
		}
	}
	return n
}

// isPrintable reports printable ASCII.
func isPrintable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isASCII reports octets below 128.
func isASCII[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
