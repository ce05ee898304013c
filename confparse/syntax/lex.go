package syntax

import (
	"errors"
	"math"
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
	at   Span
	text string
}

// Comment is one comment with its marks.
type Comment struct {
	text string
	// own: it stands on a line of its own, not behind something else.
	own bool
	// blank: an empty line stands before it.
	blank bool
	off   int32
}

// Input is what the files of one configuration have in common while they are read.
type Input struct {
	Diags
	Nodes    int  // what is left of MaxNodes
	comments bool // comments are kept
	line     bool // it is one value of a map, see [ParseLine]
	// broken: braces do not match, so that names may be in another section than they
	// seem to be.
	Broken bool
}

// spend takes one node from the budget.
func (in *Input) spend(at Span) bool {
	in.Nodes--
	if in.Nodes == -1 && in.line {
		in.Errorf(at, "", "", "too many entries and values")
	} else if in.Nodes == -1 {
		in.Errorf(at, "", "", "configuration has more than %d entries and values", MaxNodes)
	}
	return in.Nodes >= 0
}

// lexer cuts a source into tokens. Comments before a token are kept in notes
// until the parser takes them.
type lexer struct {
	*Input
	src     *Source
	off     int
	notes   []Comment // comments before the next token
	newline bool      // a line break lies between the last token and the next one
	blank   bool      // so does an empty line
}

func newLexer(src *Source, in *Input) *lexer {
	l := &lexer{Input: in, src: src, newline: true}
	if strings.HasPrefix(src.Text, "\ufeff") {
		l.off = len("\ufeff")
	}
	return l
}

func (l *lexer) span(from int) Span {
	return Span{Src: l.src, off: int32(from), end: int32(l.off)}
}

// skip passes blanks and keeps comments.
func (l *lexer) skip() {
	l.newline, l.blank = l.off == 0, false
	for l.off < len(l.src.Text) {
		rest := l.src.Text[l.off:]
		switch c := rest[0]; {
		case c == '\n':
			l.blank = l.blank || l.newline
			l.newline = true
			l.off++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			l.off++
		case l.line:
			return
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
		at := Span{l.src, int32(l.off), int32(l.off + 2)}
		l.Errorf(at, `"*/"`, "", "comment is not closed")
		l.off = len(l.src.Text)
		return
	}
	l.keep(rest[:end+4])
}

func (l *lexer) keep(text string) {
	at := l.off
	l.off += len(text)
	if l.Input.comments && l.spend(l.span(at)) {
		l.notes = append(l.notes, Comment{
			text: strings.TrimRight(text, " \t\r"), own: l.newline, blank: l.blank, off: int32(at),
		})
	}
	l.newline, l.blank = false, false
}

// next gives the next token.
func (l *lexer) next() token {
	l.skip()
	from := l.off
	if from >= len(l.src.Text) {
		return token{kind: tokEOF, at: l.span(from)}
	}
	c := l.src.Text[from]
	if k := markOf(c); k != tokBad {
		l.off++
		if c == '=' && strings.HasPrefix(l.src.Text[l.off:], "=") {
			l.off++
			k = tokEqual
		}
		return token{kind: k, at: l.span(from), text: l.src.Text[from:l.off]}
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

// IsWordByte says what may stand in an unquoted value: all that has no other
// meaning in the grammar (README 3.2.1).
func IsWordByte(c byte) bool {
	return c > ' ' && c != 0x7f && !strings.ContainsRune("{}=;,\"#", rune(c))
}

func (l *lexer) word() token {
	from := l.off
	for l.off < len(l.src.Text) && IsWordByte(l.src.Text[l.off]) &&
		(l.line || !strings.HasPrefix(l.src.Text[l.off:], "/*")) {
		l.off++
	}
	if l.off == from {
		l.off++
		at := l.span(from)
		l.Errorf(at, "", "", "unexpected character %q", l.src.Text[from:l.off])
		return token{kind: tokBad, at: at}
	}
	t := token{kind: tokWord, at: l.span(from), text: l.src.Text[from:l.off]}
	if t.text[0] == '\'' {
		l.Errorf(t.at, "double quotes", "", "strings are not written in single quotes")
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
		if l.line { // a list may do without commas, and no string needs a second line
			break
		}
		end, newline, blank, kept := l.off, l.newline, l.blank, len(l.notes)
		l.skip()
		if l.off >= len(l.src.Text) || l.src.Text[l.off] != '"' {
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
	for l.off < len(l.src.Text) {
		switch c := l.src.Text[l.off]; c {
		case '"':
			l.off++
			return ok
		case '\n':
			l.Errorf(l.span(from), `" before the end of the line`,
				`a long string is written as several: "one " "two"`, "string is not closed")
			return false
		case '\\':
			ok = l.escape(b) && ok
		default:
			if c == 0 {
				l.Errorf(Span{l.src, int32(l.off), int32(l.off + 1)}, "", "", "NUL in a string")
				ok = false
			}
			b.WriteByte(c)
			l.off++
		}
	}
	l.Errorf(l.span(from), `"`, "", "string is not closed")
	return false
}

// escape reads one escape sequence of C; \x takes at most two digits.
func (l *lexer) escape(b *strings.Builder) bool {
	from := l.off
	rest := l.src.Text[from+1:]
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
		l.Errorf(l.span(from), `one of \a \b \f \n \r \t \v \\ \" \' \? \x41 \101`, "",
			"bad escape %s", Clean(l.src.Text[from:l.off]))
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
	text, ok := l.expr(math.MaxInt)
	if !ok {
		return token{kind: tokBad, at: l.span(from)}
	}
	text = strings.TrimSpace(text)
	at := Span{l.src, int32(from), int32(from + max(1, len(text)))}
	if l.off == from || text == "" {
		at.end = at.off
	}
	return token{kind: tokWord, at: at, text: text}
}

// expr reads the text of an expression, in which a blank stands for each comment, up to its
// end or until it has n bytes or more. ok is false if a string in it is not closed.
func (l *lexer) expr(n int) (text string, ok bool) {
	var b strings.Builder
	for l.off < len(l.src.Text) && b.Len() < n {
		c := l.src.Text[l.off]
		start := l.off
		switch {
		case c == ';' || c == '{' || c == '}':
			return b.String(), true
		case c == '"':
			if !l.quoted(&strings.Builder{}) {
				return b.String(), false
			}
		case c == '#' || strings.HasPrefix(l.src.Text[l.off:], "/*"):
			l.skip()
			b.WriteByte(' ')
			continue
		default:
			l.off++
		}
		b.WriteString(l.src.Text[start:l.off])
	}
	return b.String(), true
}

// Part is the place of the bytes from to to of the text of a boolean expression, which
// stands at s.
func (s Span) Part(from, to int) Span {
	if s.Src == nil {
		return s
	}
	place := func(n int) int32 {
		l := newLexer(s.Src, &Input{})
		l.off = int(s.off)
		text, _ := l.expr(n)
		return int32(l.off - max(len(text)-n, 0)) // what is copied as one piece, a string, may go beyond n
	}
	return Span{s.Src, place(from), place(to)}
}

// ReadString reads the string in double quotes with which text begins. n is how many bytes
// of text it takes; with an error, how many were read.
func ReadString(text string) (value string, n int, err error) {
	in := &Input{line: true}
	l := newLexer(&Source{Text: text}, in)
	if !strings.HasPrefix(text, `"`) {
		return "", 0, errors.New("no string")
	}
	var b strings.Builder
	if !l.quoted(&b) {
		return "", l.off, errors.New(in.Errs[0].Brief())
	}
	return b.String(), l.off, nil
}
