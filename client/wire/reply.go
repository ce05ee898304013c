package wire

import (
	"bytes"
	"unicode/utf8"

	"meta1/mta/smtp"
)

// Reply is one answer of a peer as it was read. It is used again for each
// reply of a connection, so a positive reply costs no allocation.
type Reply struct {
	Code  int    // 200 to 599; 0 before the first line
	Text  []byte // the lines that are kept, without code, each with a '\n' at its end
	lines int
	total int // bytes read for this reply
}

func (p *Reply) reset() { *p = Reply{Text: p.Text[:0]} }

// add takes one line without its line end and reports whether it was the last. The
// code of the last line counts, as RFC 5321 section 4.2.1 advises clients.
func (p *Reply) add(line []byte) (last bool, err error) {
	if p.total += len(line) + 2; p.total > replyBytesMax {
		return false, errReplyLong
	}
	code, last, text, ok := parseReplyLine(line)
	if !ok || hidesReply(text) {
		return false, ErrNotAReply
	}
	p.Code = code
	if p.lines < replyLinesMax && len(p.Text)+len(text) < ReplyTextMax {
		p.Text = append(append(p.Text, text...), '\n')
		p.lines++
	}
	return last, nil
}

// Positive reports 2yz, the only success of all commands but DATA.
func (p *Reply) Positive() bool { return p.Code >= 200 && p.Code < 300 }

// Failed reports 4yz and 5yz.
func (p *Reply) Failed() bool { return p.Code >= 400 && p.Code < 600 }

// FirstWord is the first word of the reply: the peer's name in a greeting or in the
// reply to EHLO.
func (p *Reply) FirstWord() string {
	line, _, _ := bytes.Cut(p.Text, []byte{'\n'})
	word, _, _ := bytes.Cut(bytes.TrimLeft(line, " "), []byte{' '})
	return string(word)
}

// SMTP makes a value of the reply that may be kept: control bytes are cleaned, the
// enhanced code is taken off each line.
func (p *Reply) SMTP() smtp.Reply {
	r := smtp.Reply{Code: p.Code, Lines: make([]string, 0, max(p.lines, 1))}
	all := CleanText(p.Text)
	for line := range bytes.Lines(p.Text) {
		n := len(line)
		text := all[:n-1]
		all = all[n:]
		if e, rest, ok := enhancedCode(text, p.Code); ok && (r.Enhanced.IsZero() || r.Enhanced == e) {
			r.Enhanced, text = e, rest
		}
		r.Lines = append(r.Lines, text)
	}
	if len(r.Lines) == 0 {
		r.Lines = append(r.Lines, "")
	}
	return r
}

// Said is the last reply to one kind of command as a value. Most hosts say the same each time, so that
// the lines of a log cost no allocation.
type Said struct {
	code  int
	text  []byte
	reply *smtp.Reply // nil before the first
}

// saidMax bounds the text that is kept.
const saidMax = 128

// Value is p.SMTP, which nobody may change.
func (s *Said) Value(p *Reply) *smtp.Reply {
	if s.reply != nil && s.code == p.Code && bytes.Equal(s.text, p.Text) {
		return s.reply
	}
	r := p.SMTP()
	if len(p.Text) <= saidMax {
		s.code, s.text, s.reply = p.Code, append(s.text[:0], p.Text...), &r
	}
	return &r
}

// parseReplyLine splits a line of a reply (RFC 5321 section 4.2): three digits, a
// hyphen if lines follow, text. A last line of the code alone is allowed.
func parseReplyLine(line []byte) (code int, last bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, nil, true
	}
	switch line[3] {
	case ' ':
		return code, true, line[4:], true
	case '-':
		return code, false, line[4:], true
	}
	return 0, false, nil, false
}

// hidesReply reports a CR within a line and what looks like a reply behind it. The end of the
// line was damaged on the way: two replies would be taken for one, and each that follows for
// that to another command. Any other CR is text.
func hidesReply(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\r')
		if i < 0 {
			return false
		}
		text = text[i+1:]
		for _, rest := range [...][]byte{text, text[min(1, len(text)):]} { // the LF is missing, or another byte
			if _, _, _, ok := parseReplyLine(rest); ok {
				return true
			}
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// enhancedCode reads a code such as "5.7.1" at the start of s (RFC 2034). Its class
// must be the one of the reply code: else it is text.
func enhancedCode(s string, code int) (e smtp.EnhancedCode, rest string, ok bool) {
	if len(s) < 5 || int(s[0]-'0') != code/100 || s[1] != '.' {
		return e, s, false
	}
	e[0] = uint16(s[0] - '0')
	i := 2
	for part := 1; part <= 2; part++ {
		start := i
		for i < len(s) && isDigit(s[i]) && i-start < 3 {
			e[part] = e[part]*10 + uint16(s[i]-'0')
			i++
		}
		if i == start {
			return smtp.EnhancedCode{}, s, false
		}
		if part == 1 {
			if i >= len(s) || s[i] != '.' {
				return smtp.EnhancedCode{}, s, false
			}
			i++
		}
	}
	switch {
	case i == len(s):
		return e, "", true
	case s[i] == ' ':
		return e, s[i+1:], true
	}
	return smtp.EnhancedCode{}, s, false
}

// CleanText makes a string of text in which every control character and every byte
// that is not UTF-8 is a question mark. The length stays as it is.
func CleanText(text []byte) string {
	if isPrintable(text) {
		return string(text)
	}
	b := bytes.Clone(text)
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case r == '\t':
			b[i] = ' '
		case r == utf8.RuneError && n == 1, r < ' ' && r != '\n', r == 0x7f:
			b[i] = '?'
		case r >= 0x80 && r < 0xa0: // C1 controls, two bytes
			b[i], b[i+1] = '?', '?'
		}
		i += n
	}
	return string(b)
}

// isPrintable reports printable ASCII; line ends are allowed.
func isPrintable(b []byte) bool {
	for _, c := range b {
		if (c < ' ' && c != '\n') || c >= 0x7f {
			return false
		}
	}
	return true
}
