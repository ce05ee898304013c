package smtp

import (
	"strconv"
	"strings"
)

// EnhancedCode is an enhanced mail system status code (RFC 3463), class, subject
// and detail. The zero value means that there is none.
type EnhancedCode [3]uint16

// IsZero reports whether there is no enhanced code.
func (e EnhancedCode) IsZero() bool { return e == EnhancedCode{} }

// String prints the code as in "5.7.1".
func (e EnhancedCode) String() string {
	return string(e.append(make([]byte, 0, 16)))
}

func (e EnhancedCode) append(b []byte) []byte {
	b = append(strconv.AppendUint(b, uint64(e[0]), 10), '.')
	b = append(strconv.AppendUint(b, uint64(e[1]), 10), '.')
	return strconv.AppendUint(b, uint64(e[2]), 10)
}

// ParseEnhancedCode reads "5.7.1" at the start of s and returns the rest behind
// the following space. ok is false when s does not begin with a code.
func ParseEnhancedCode(s string) (code EnhancedCode, rest string, ok bool) {
	word, rest, _ := strings.Cut(s, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 {
		return EnhancedCode{}, s, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || len(p) > 3 {
			return EnhancedCode{}, s, false
		}
		code[i] = uint16(n)
	}
	if c := code[0]; c != 2 && c != 4 && c != 5 {
		return EnhancedCode{}, s, false
	}
	return code, rest, true
}

// Reply is an answer of an SMTP or LMTP server (RFC 5321 section 4.2). As an
// error it stands for the failure that the peer must see, or that a peer sent.
// The zero Reply means "no answer".
type Reply struct {
	Code     int
	Enhanced EnhancedCode
	Lines    []string // without code, enhanced code and line end; at least one
}

// NewReply makes a reply of one line. enhanced is as in "5.7.1", or "".
func NewReply(code int, enhanced, text string) Reply {
	e, _, _ := ParseEnhancedCode(enhanced)
	return Reply{Code: code, Enhanced: e, Lines: []string{text}}
}

// IsZero reports whether there is no answer.
func (r Reply) IsZero() bool { return r.Code == 0 }

// Accepted reports 2yz: what was asked for is done (RFC 5321 section 4.2.1). It alone
// means that mail was taken over.
func (r Reply) Accepted() bool { return r.Code >= 200 && r.Code < 300 }

// Temporary reports 4yz: the same command may succeed later.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent reports 5yz.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// Text joins the lines with spaces.
func (r Reply) Text() string { return strings.Join(r.Lines, " ") }

// String prints the reply as one line, for logs and DSNs: "550 5.7.1 no".
func (r Reply) String() string { return string(r.Append(make([]byte, 0, 128))) }

// Append adds what String returns to b.
func (r Reply) Append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(r.Code), 10)
	if !r.Enhanced.IsZero() {
		b = r.Enhanced.append(append(b, ' '))
	}
	if t := r.Text(); t != "" {
		b = append(append(b, ' '), t...)
	}
	return b
}

// Error makes a Reply an error that its receiver can send on.
func (r Reply) Error() string { return r.String() }

// AppendWire adds the reply as it goes over the wire, CRLF included. CR, LF and
// NUL inside a line become '?', so that no text can forge a second reply.
func (r Reply) AppendWire(b []byte) []byte {
	lines := r.Lines
	if len(lines) == 0 {
		lines = []string{""}
	}
	for i, line := range lines {
		b = strconv.AppendInt(b, int64(r.Code), 10)
		if i < len(lines)-1 {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if !r.Enhanced.IsZero() {
			b = append(r.Enhanced.Append(b), ' ')
		}
		b = append(appendSafe(b, line), '\r', '\n')
	}
	return b
}

func appendSafe(b []byte, line string) []byte {
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '\r', '\n', 0:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return b
}
