package confparse

import (
	"strings"
)

// kind of a token.
type kind uint8

const (
	tokEOF    kind = iota
	tokWord        // unquoted text
	tokString      // one or more adjacent quoted strings, joined
	tokOpen        // {
	tokClose       // }
	tokAssign      // =
	tokEqual       // ==
	tokSemi        // ;
	tokComma       // ,
	tokBad         // something the lexer has reported already
)

// token is a word, a string or a mark. text is the unquoted, joined value of a
// word or string.
type token struct {
	kind kind
	at   span
	text string
}

// comment is one comment with its marks.
type comment struct {
	text string
	// own: it stands on a line of its own, not behind something else.
	own bool
	// blank: an empty line stands before it.
	blank bool
	off   int32
}

// input is what the files of one configuration have in common while they are read.
type input struct {
	diags
	nodes    int  // what is left of maxNodes
	comments bool // comments are kept
	// broken: braces do not match, so that names may be in another section than they
	// seem to be.
	broken bool
}

// spend takes one node from the budget.
func (in *input) spend(at span) bool {
	in.nodes--
	if in.nodes == -1 {
		in.errorf(at, "", "", "configuration has more than %d entries and values", maxNodes)
	}
	return in.nodes >= 0
}

// lexer cuts a source into tokens. Comments before a token are kept in notes
// until the parser takes them.
type lexer struct {
	*input
	src     *source
	off     int
	notes   []comment // comments before the next token
	newline bool      // a line break lies between the last token and the next one
	blank   bool      // so does an empty line
}

func newLexer(src *source, in *input) *lexer {
	l := &lexer{input: in, src: src, newline: true}
	if strings.HasPrefix(src.text, "\ufeff") {
		l.off = len("\ufeff")
	}
	return l
}

func (l *lexer) span(from int) span {
	return span{src: l.src, off: int32(from), end: int32(l.off)}
}

// skip passes blanks and keeps comments.
func (l *lexer) skip() {
	l.newline, l.blank = l.off == 0, false
	for l.off < len(l.src.text) {
		rest := l.src.text[l.off:]
		switch c := rest[0]; {
		case c == '\n':
			l.blank = l.blank || l.newline
			l.newline = true
			l.off++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			l.off++
		case c == '#':
			text, _, _ := strings.Cut(rest, "\n")
			l.keep(text)
		case strings.HasPrefix(rest, "/*"):
			l.blockComment(rest)
		default:
			return
		}
	}
}

func (l *lexer) blockComment(rest string) {
	end := strings.Index(rest[2:], "*/")
	if end < 0 {
		at := span{l.src, int32(l.off), int32(l.off + 2)}
		l.errorf(at, `"*/"`, "", "comment is not closed")
		l.off = len(l.src.text)
		return
	}
	l.keep(rest[:end+4])
}

func (l *lexer) keep(text string) {
	at := l.off
	l.off += len(text)
	if l.input.comments && l.spend(l.span(at)) {
		l.notes = append(l.notes, comment{
			text: strings.TrimRight(text, " \t\r"), own: l.newline, blank: l.blank, off: int32(at),
		})
	}
	l.newline, l.blank = false, false
}

// next gives the next token.
func (l *lexer) next() token {
	l.skip()
	from := l.off
	if from >= len(l.src.text) {
		return token{kind: tokEOF, at: l.span(from)}
	}
	c := l.src.text[from]
	if k := markOf(c); k != tokBad {
		l.off++
		if c == '=' && strings.HasPrefix(l.src.text[l.off:], "=") {
			l.off++
			k = tokEqual
		}
		return token{kind: k, at: l.span(from), text: l.src.text[from:l.off]}
	}
	if c == '"' {
		return l.strings()
	}
	return l.word()
}

func markOf(c byte) kind {
	switch c {
	case '{':
		return tokOpen
	case '}':
		return tokClose
	case '=':
		return tokAssign
	case ';':
		return tokSemi
	case ',':
		return tokComma
	}
	return tokBad
}

// isWordByte says what may stand in an unquoted value: all that has no other
// meaning in the grammar (README 3.2.1).
func isWordByte(c byte) bool {
	return c > ' ' && c != 0x7f && !strings.ContainsRune("{}=;,\"#", rune(c))
}

func (l *lexer) word() token {
	from := l.off
	for l.off < len(l.src.text) && isWordByte(l.src.text[l.off]) &&
		!strings.HasPrefix(l.src.text[l.off:], "/*") {
		l.off++
	}
	if l.off == from {
		l.off++
		at := l.span(from)
		l.errorf(at, "", "", "unexpected character %q", l.src.text[from:l.off])
		return token{kind: tokBad, at: at}
	}
	t := token{kind: tokWord, at: l.span(from), text: l.src.text[from:l.off]}
	if t.text[0] == '\'' {
		l.errorf(t.at, "double quotes", "", "strings are not written in single quotes")
		t.kind = tokBad
	}
	return t
}

// strings reads a quoted string and those that follow it directly, which are
// joined as in C. Comments between them stay in l.notes.
func (l *lexer) strings() token {
	from := l.off
	var b strings.Builder
	ok := true
	for {
		ok = l.quoted(&b) && ok
		end, newline, blank, kept := l.off, l.newline, l.blank, len(l.notes)
		l.skip()
		if l.off >= len(l.src.text) || l.src.text[l.off] != '"' {
			l.off, l.newline, l.blank, l.notes = end, newline, blank, l.notes[:kept]
			break
		}
	}
	if !ok {
		return token{kind: tokBad, at: l.span(from)}
	}
	return token{kind: tokString, at: l.span(from), text: b.String()}
}

// quoted reads one quoted string into b.
func (l *lexer) quoted(b *strings.Builder) bool {
	from := l.off
	l.off++
	ok := true
	for l.off < len(l.src.text) {
		switch c := l.src.text[l.off]; c {
		case '"':
			l.off++
			return ok
		case '\n':
			l.errorf(l.span(from), `" before the end of the line`,
				`a long string is written as several: "one " "two"`, "string is not closed")
			return false
		case '\\':
			ok = l.escape(b) && ok
		default:
			if c == 0 {
				l.errorf(span{l.src, int32(l.off), int32(l.off + 1)}, "", "", "NUL in a string")
				ok = false
			}
			b.WriteByte(c)
			l.off++
		}
	}
	l.errorf(l.span(from), `"`, "", "string is not closed")
	return false
}

// escape reads one escape sequence of C; \x takes at most two digits.
func (l *lexer) escape(b *strings.Builder) bool {
	from := l.off
	rest := l.src.text[from+1:]
	if rest == "" {
		l.off++
		return true // the missing quote is reported by the caller
	}
	n, c, ok := 1, byte(0), true
	switch i := strings.IndexByte(`abfnrtv\"'?`, rest[0]); {
	case i >= 0:
		c = "\a\b\f\n\r\t\v\\\"'?"[i]
	case rest[0] == '\n' || strings.HasPrefix(rest, "\r\n"): // a line goes on
		l.off += 2 + strings.IndexByte(rest, '\n')
		return true
	case rest[0] == 'x':
		n, c, ok = number(rest, 1, 3, 16)
	case rest[0] >= '0' && rest[0] <= '7':
		n, c, ok = number(rest, 0, 3, 8)
	default:
		ok = false
	}
	l.off += 1 + n
	if !ok || c == 0 {
		l.errorf(l.span(from), `one of \a \b \f \n \r \t \v \\ \" \' \? \x41 \101`, "",
			"bad escape %s", clean(l.src.text[from:l.off]))
		return false
	}
	b.WriteByte(c)
	return true
}

// number reads the digits of s[from:to] in the given base; n is where they end.
func number(s string, from, to, base int) (n int, c byte, ok bool) {
	v := 0
	for n = from; n < min(to, len(s)); n++ {
		d := strings.IndexByte("0123456789abcdef", s[n]|0x20)
		if s[n] < '0' || d < 0 || d >= base {
			break
		}
		v = v*base + d
	}
	return n, byte(v), n > from && v < 256
}

// raw reads the text behind == up to the semicolon that ends it: a boolean
// expression (README 8.5.1), in which strings may hold any mark.
func (l *lexer) raw() token {
	l.skip()
	from := l.off
	var b strings.Builder
	for l.off < len(l.src.text) {
		c := l.src.text[l.off]
		start := l.off
		switch {
		case c == ';' || c == '{' || c == '}':
			return l.rawEnd(from, b.String())
		case c == '"':
			if !l.quoted(&strings.Builder{}) {
				return token{kind: tokBad, at: l.span(from)}
			}
		case c == '#' || strings.HasPrefix(l.src.text[l.off:], "/*"):
			l.skip()
			b.WriteByte(' ')
			continue
		default:
			l.off++
		}
		b.WriteString(l.src.text[start:l.off])
	}
	return l.rawEnd(from, b.String())
}

func (l *lexer) rawEnd(from int, text string) token {
	text = strings.TrimSpace(text)
	at := span{l.src, int32(from), int32(from + max(1, len(text)))}
	if l.off == from || text == "" {
		at.end = at.off
	}
	return token{kind: tokWord, at: at, text: text}
}
