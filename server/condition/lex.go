package condition

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"meta1/confparse/syntax"
)

// tokenKind is the kind of a token.
type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokName             // an identifier or the name of a function
	tokNumber           // node.num
	tokString           // one or more strings, joined
	tokMark             // an operator, a parenthesis or a comma
)

// token is one word of a condition.
type token struct {
	kind tokenKind
	at   span
	text string // as it is written; of a string its value
	num  int64
}

// span is a part of the text, in bytes.
type span struct{ from, to int }

// marks are the operators, longer ones first. It never changes.
var marks = [...]string{"||", "&&", "==", "!=", "=~", "<=", ">=", "<", ">", "+", "-", "*", "/", "!", "(", ")", ","}

// wrongMarks are what other languages write, and what is meant. It never changes.
var wrongMarks = map[byte]string{'=': "==", '&': "&&", '|': "||", '~': "=~"}

// lexer cuts a text into tokens.
type lexer struct {
	text string
	off  int
}

// next gives the next token.
func (l *lexer) next() (token, *Error) {
	l.skip()
	from := l.off
	if from == len(l.text) {
		return token{at: span{from, from}}, nil
	}
	switch c := l.text[from]; {
	case c == '"':
		return l.joined()
	case isDigit(c):
		return l.number()
	case isNameByte(c):
		for l.off < len(l.text) && isNameByte(l.text[l.off]) {
			l.off++
		}
		return token{kind: tokName, at: span{from, l.off}, text: l.text[from:l.off]}, nil
	}
	for _, m := range marks {
		if strings.HasPrefix(l.text[from:], m) {
			l.off += len(m)
			return token{kind: tokMark, at: span{from, l.off}, text: m}, nil
		}
	}
	e := wrong(span{from, from + 1}, "unexpected character %q", l.text[from:from+1])
	if meant := wrongMarks[l.text[from]]; meant != "" {
		e.Suggestion = "did you mean " + meant + "?"
	}
	return token{}, e
}

func (l *lexer) skip() {
	for l.off < len(l.text) && strings.IndexByte(" \t\r\n\f\v", l.text[l.off]) >= 0 {
		l.off++
	}
}

// joined reads a string and those that follow it, which are joined as in C.
func (l *lexer) joined() (token, *Error) {
	t := token{kind: tokString, at: span{l.off, l.off}}
	for l.off < len(l.text) && l.text[l.off] == '"' {
		s, n, err := syntax.ReadString(l.text[l.off:])
		if err != nil {
			return t, wrong(span{l.off, l.off + max(n, 1)}, "%v", err)
		}
		l.off += n
		t.text, t.at.to = t.text+s, l.off
		l.skip()
	}
	return t, nil
}

// number reads a decimal number. One that C would read as octal is refused, as is one with
// letters behind it.
func (l *lexer) number() (token, *Error) {
	from := l.off
	for l.off < len(l.text) && (isDigit(l.text[l.off]) || isNameByte(l.text[l.off])) {
		l.off++
	}
	t := token{kind: tokNumber, at: span{from, l.off}, text: l.text[from:l.off]}
	n, err := strconv.ParseInt(t.text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return t, wrong(t.at, "number is larger than %d", int64(math.MaxInt64))
	case err != nil || len(t.text) > 1 && t.text[0] == '0':
		return t, wrong(t.at, "%q is no decimal number", t.text)
	}
	t.num = n
	return t, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || isDigit(c)
}
