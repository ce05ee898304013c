package authn

import (
	"errors"
	"strconv"
	"strings"
)

// Bounds of what Parse reads.
const (
	fieldMax   = 64 << 10
	resultsMax = 100
	propsMax   = 50 // of one result
)

// Field is an Authentication-Results: field that was read. All of it may be forged.
type Field struct {
	ID      string // authserv-id, without quotes
	Version int    // 0 for none, which stands for 1
	Results []Result
}

// The mistakes of a field.
var (
	errLong    = errors.New("the field is too long")
	errComment = errors.New("a comment or a quoted string has no end")
	errWord    = errors.New("a word is missing")
	errResult  = errors.New("a result is not one")
	errVersion = errors.New("the version is not known")
	errMany    = errors.New("it has too many results")
)

// Parse reads the value of a field, folded as it is (RFC 8601 section 2.2). The words of methods
// and results come in lower case, comments are left out, and a semicolon may end it. With an
// error, ID is set as far as it was read.
func Parse(value string) (Field, error) {
	if len(value) > fieldMax {
		return Field{}, errLong
	}
	p := &parser{s: value}
	f := Field{}
	p.space()
	f.ID = p.value()
	p.space()
	if p.err == nil && f.ID == "" {
		p.fail(errWord)
	}
	if c := p.peek(); p.err == nil && c != 0 && c != ';' {
		f.Version = p.number()
		p.space()
	}
	if f.Version > 1 { // what is behind it has another syntax
		p.fail(errVersion)
	}
	for p.err == nil && p.peek() != 0 {
		if !p.take(';') {
			p.fail(errResult)
			break
		}
		p.space()
		switch {
		case p.peek() == 0: // behind the last one
		case len(f.Results) == resultsMax:
			p.fail(errMany)
		default:
			if r, ok := p.result(); ok {
				f.Results = append(f.Results, r)
			}
		}
	}
	return f, p.err
}

// parser reads a value from left to right. After an error it stays where it is.
type parser struct {
	s   string
	at  int
	err error
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// peek is the next octet, 0 at the end.
func (p *parser) peek() byte {
	if p.err != nil || p.at == len(p.s) {
		return 0
	}
	return p.s[p.at]
}

func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	return true
}

// space passes over CFWS (RFC 5322 section 3.2.2).
func (p *parser) space() {
	for depth := 0; ; p.at++ {
		switch c := p.peek(); {
		case c == 0 && p.err == nil && p.at < len(p.s): // a NUL
			p.fail(errWord)
			return
		case c == 0:
			if depth > 0 {
				p.fail(errComment)
			}
			return
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			if p.at++; p.at == len(p.s) {
				p.fail(errComment)
				return
			}
		case c == ' ', c == '\t', c == '\r', c == '\n', depth > 0:
		default:
			return
		}
	}
}

// word reads the octets that may stand in a token, and those of also.
func (p *parser) word(also string) string {
	start := p.at
	for c := p.peek(); c > ' ' && c != 0x7f && (strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0 || strings.IndexByte(also, c) >= 0); c = p.peek() {
		p.at++
	}
	return p.s[start:p.at]
}

// keyword reads a word of a method, a result or a property (RFC 5321's Keyword, with the
// underscores that are common).
func (p *parser) keyword() string {
	start := p.at
	for c := p.peek(); 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'; c = p.peek() {
		p.at++
	}
	if start == p.at {
		p.fail(errWord)
	}
	return strings.ToLower(p.s[start:p.at])
}

func (p *parser) number() int {
	start := p.at
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
	}
	n, err := strconv.ParseUint(p.s[start:p.at], 10, 16)
	if err != nil {
		p.fail(errVersion)
	}
	return int(n)
}

// value reads a token or a quoted string.
func (p *parser) value() string {
	if p.peek() == '"' {
		return p.quoted()
	}
	return p.word("")
}

func (p *parser) quoted() string {
	var b strings.Builder
	for p.at++; ; p.at++ {
		switch c := p.peek(); {
		case c == 0:
			p.fail(errComment)
			return b.String()
		case c == '"':
			p.at++
			return b.String()
		case c == '\r', c == '\n': // of a fold
		case c == '\\' && p.at+1 < len(p.s):
			p.at++
			b.WriteByte(p.s[p.at])
		default:
			b.WriteByte(c)
		}
	}
}

// result reads what stands behind a semicolon; ok is false for none.
func (p *parser) result() (r Result, ok bool) {
	r.Method = Method(p.keyword())
	p.space()
	if r.Method == "none" && (p.peek() == 0 || p.peek() == ';') {
		return r, false
	}
	if p.take('/') {
		p.space()
		r.Version = p.number()
		p.space()
	}
	if !p.take('=') {
		p.fail(errResult)
	}
	p.space()
	r.Value = p.keyword()
	for p.space(); p.err == nil && p.peek() != 0 && p.peek() != ';'; p.space() {
		word := p.keyword()
		p.space()
		if word == "reason" && p.take('=') {
			p.space()
			r.Reason = p.value()
			continue
		}
		if !p.take('.') || len(r.Props) == propsMax {
			p.fail(errResult)
			break
		}
		p.space()
		prop := Prop{Type: word, Name: p.keyword()}
		p.space()
		if !p.take('=') {
			p.fail(errResult)
		}
		p.space()
		prop.Value = p.pvalue()
		r.Props = append(r.Props, prop)
	}
	return r, p.err == nil
}

// pvalue reads the value of a property: a value, an address, or a part of one. Octets that should
// have been quoted, as in smtp.remote-ip=2001:db8::1, are taken as they are.
func (p *parser) pvalue() string {
	if p.peek() != '"' {
		return p.word(`@:/=+?[]<>,`)
	}
	s := p.quoted()
	if p.peek() == '@' {
		s += p.word("@[]:")
	}
	return s
}
