package mailutils

import (
	"strings"

	"meta1/confparse/syntax"
)

// kind is what a token is.
type kind uint8

const (
	end    kind = iota
	word        // without quotes
	quoted      // a string, or a here-document
	mark        // one of { } ( ) , ;
	bad         // a mistake, which was reported
)

type token struct {
	kind kind
	text string // of a word or string: its value; of a mark: the mark
	at   syntax.Span
}

type lexer struct {
	src   *syntax.Source
	diags *syntax.Diags
	pos   int
}

// isWord reports whether an unquoted value may hold the byte.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c != 0 && strings.IndexByte("_-./@*:", c) >= 0
}

func isBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (l *lexer) span(from int) syntax.Span { return l.src.Span(from, l.pos) }

// next is the next token.
func (l *lexer) next() token {
	l.skip()
	text, from := l.src.Text, l.pos
	if from >= len(text) {
		return token{kind: end, at: l.span(from)}
	}
	switch c := text[from]; {
	case strings.IndexByte("{}(),;", c) >= 0:
		l.pos++
		return token{kind: mark, text: string(c), at: l.span(from)}
	case c == '"':
		return l.str()
	case strings.HasPrefix(text[from:], "<<"):
		return l.hereDocument()
	case isWord(c):
		for l.pos < len(text) && isWord(text[l.pos]) {
			l.pos++
		}
		return token{kind: word, text: text[from:l.pos], at: l.span(from)}
	}
	for l.pos < len(text) && !isWord(text[l.pos]) && !isBlank(text[l.pos]) && strings.IndexByte("{}(),;\"", text[l.pos]) < 0 {
		l.pos++
	}
	at := l.span(from)
	l.diags.Errorf(at, "", "put a value with such characters in double quotes", "%s is not part of a word", syntax.ShownWord(text[from:l.pos]))
	return token{kind: bad, at: at}
}

// skip passes blanks and comments over.
func (l *lexer) skip() {
	text := l.src.Text
	for l.pos < len(text) {
		switch rest := text[l.pos:]; {
		case isBlank(rest[0]):
			l.pos++
		case rest[0] == '#' || strings.HasPrefix(rest, "//"):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				l.pos += n
			} else {
				l.pos = len(text)
			}
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				from := l.pos
				l.pos += 2
				l.diags.Errorf(l.span(from), "*/", "", "this comment has no end")
				l.pos = len(text)
				return
			}
			l.pos += 2 + n + 2
		default:
			return
		}
	}
}

// str reads strings in quotes; adjacent ones are one.
func (l *lexer) str() token {
	from, value := l.pos, ""
	for {
		start := l.pos
		raw, ok := l.quotes()
		if !ok {
			l.pos = start + 1
			l.diags.Errorf(l.span(start), `"`, "", "this string has no end")
			l.pos = len(l.src.Text)
			return token{kind: bad, at: l.span(start)}
		}
		value += l.unescape(raw, start+1)
		till := l.pos
		if l.skip(); l.pos >= len(l.src.Text) || l.src.Text[l.pos] != '"' {
			l.pos = till
			return token{kind: quoted, text: value, at: l.span(from)}
		}
	}
}

// quotes passes over one string and gives what stands between its quotes.
func (l *lexer) quotes() (raw string, ok bool) {
	text := l.src.Text
	l.pos++
	for from := l.pos; l.pos < len(text); l.pos++ {
		switch text[l.pos] {
		case '\\':
			l.pos++
		case '"':
			l.pos++
			return text[from : l.pos-1], true
		}
	}
	l.pos = len(text) // a backslash may have led beyond it
	return "", false
}

// escapes are the letters behind a backslash and what they stand for.
const escapes = "abfnrtv\\\""

var escaped = [...]byte{7, 8, 12, 10, 13, 9, 11, '\\', '"'}

// unescape replaces the escape sequences of a string that begins at offset off.
func (l *lexer) unescape(raw string, off int) string {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' || i+1 == len(raw) {
			b.WriteByte(raw[i])
			continue
		}
		i++
		switch n := strings.IndexByte(escapes, raw[i]); {
		case n >= 0:
			b.WriteByte(escaped[n])
		case raw[i] != '\n': // that continues the line
			b.WriteByte(raw[i])
			l.diags.Report(syntax.NewDiagnostic(syntax.SeverityWarning, l.src.Span(off+i-1, off+i+1), "there is no such escape sequence: the backslash is ignored"))
		}
	}
	return b.String()
}

// hereDocument reads <<WORD, <<-WORD, <<- WORD, <<\WORD or <<"WORD" and the lines up to WORD.
func (l *lexer) hereDocument() token {
	text, from := l.src.Text, l.pos
	l.pos += 2
	tabs, blanks, plain := false, false, false
	if l.pos < len(text) && text[l.pos] == '-' {
		l.pos, tabs = l.pos+1, true
		if l.pos < len(text) && text[l.pos] == ' ' {
			l.pos, blanks = l.pos+1, true
		}
	}
	if l.pos < len(text) && text[l.pos] == '\\' {
		l.pos, plain = l.pos+1, true
	}
	marker := ""
	if l.pos < len(text) && text[l.pos] == '"' {
		plain = true
		marker, _ = l.quotes()
	} else {
		at := l.pos
		for l.pos < len(text) && isWord(text[l.pos]) {
			l.pos++
		}
		marker = text[at:l.pos]
	}
	head := l.span(from)
	line, rest, found := strings.Cut(text[l.pos:], "\n")
	if marker == "" || strings.ContainsAny(marker, "\n") || !found || strings.Trim(line, " \t\r") != "" {
		l.diags.Errorf(head, "a word and the end of the line", "", "this here-document has no marker")
		l.pos += len(line)
		return token{kind: bad, at: head}
	}
	l.pos = len(text) - len(rest)
	var body strings.Builder
	for begin := l.pos; l.pos < len(text); {
		line, _, _ := strings.Cut(text[l.pos:], "\n")
		start := l.pos
		l.pos = min(l.pos+len(line)+1, len(text))
		cut := line
		switch {
		case blanks:
			cut = strings.TrimLeft(line, " \t")
		case tabs:
			cut = strings.TrimLeft(line, "\t")
		}
		if stop := strings.TrimRight(cut, " \t\r"); stop == marker || strings.TrimRight(strings.TrimSuffix(stop, ";"), " \t") == marker {
			l.pos = start + len(line) - len(cut) + len(marker) // a semicolon may follow
			if plain {
				return token{kind: quoted, text: body.String(), at: head}
			}
			return token{kind: quoted, text: l.unescape(body.String(), begin), at: head}
		}
		body.WriteString(cut + "\n")
	}
	l.diags.Errorf(head, marker, "", "this here-document has no end")
	return token{kind: bad, at: head}
}
