package pmilter

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a reply.
const (
	replyLinesMax = 32
	replyLineMax  = 980 // of an SMTP line of 1000
)

// Errors of checks.
var (
	// ErrReply is a reply that SetReply does not take.
	ErrReply = errors.New("a reply must be lines of the form \"XYZ D.S.N text\", each with CR LF")
	// ErrHeader is a header field that cannot stand in a message.
	ErrHeader = errors.New("a header must be one complete field with CR LF")
)

// Reply is a reply for SMTP, taken apart.
type Reply struct {
	Code     int
	Enhanced string   // "" for none
	Lines    []string // without code, enhanced code and line end
}

// ParseReply reads a reply as SetReply takes it (README 15.1.12): one or several lines, each
// with the same code from 400 to 599 or 250 and the same enhanced code, of the class of the
// code, and CR LF. The error wraps ErrReply.
func ParseReply(text string) (Reply, error) {
	rest, complete := strings.CutSuffix(text, "\r\n")
	if !complete || !utf8.ValidString(text) {
		return Reply{}, ErrReply
	}
	lines := strings.Split(rest, "\r\n")
	if len(lines) > replyLinesMax {
		return Reply{}, fmt.Errorf("%w: more than %d lines", ErrReply, replyLinesMax)
	}
	var r Reply
	for n, line := range lines {
		code, enhanced, words, err := cutReply(line, n == len(lines)-1)
		if n == 0 {
			r.Code, r.Enhanced = code, enhanced
		}
		if err == nil && (code != r.Code || enhanced != r.Enhanced) {
			err = errors.New("lines with different codes")
		}
		if err != nil {
			return Reply{}, fmt.Errorf("%w: %w", ErrReply, err)
		}
		r.Lines = append(r.Lines, words)
	}
	return r, nil
}

// cutReply takes a line apart.
func cutReply(line string, last bool) (code int, enhanced, words string, err error) {
	if len(line) > replyLineMax {
		return 0, "", "", errors.New("a line is too long")
	}
	for _, c := range []byte(line) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, "", "", errors.New("a control character")
		}
	}
	if len(line) < 4 || line[3] != ' ' && line[3] != '-' || (line[3] == ' ') != last {
		return 0, "", "", errors.New("only the last line has a space behind its code")
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, "", "", errors.New("no code")
		}
		code = 10*code + int(c-'0')
	}
	if code != int(OK) && !Code(code).Refuses() {
		return 0, "", "", errors.New("a code that is not 250 nor from 400 to 599")
	}
	enhanced, words, _ = strings.Cut(line[4:], " ")
	if !isEnhanced(enhanced, line[0]) {
		return 0, "", "", errors.New("no enhanced code of the class of the code")
	}
	return code, enhanced, words, nil
}

// isEnhanced checks an enhanced code (RFC 3463 section 2).
func isEnhanced(s string, class byte) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != string(class) {
		return false
	}
	for _, p := range parts[1:] {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// CheckHeader checks what HdrMod is given: a field with its name, CR LF at its end and a blank
// behind each CR LF before (RFC 5322 section 2.2.3), without a lone CR or LF, without a line
// of blanks alone, without NUL; and nothing for HeaderRemove. The error wraps ErrHeader.
func CheckHeader(mod HeaderMod, header string) error {
	switch {
	case mod < HeaderPrepend || mod > HeaderAppend:
		return fmt.Errorf("%w: %s is not known", ErrHeader, mod)
	case mod == HeaderRemove && header == "":
		return nil
	case mod == HeaderRemove:
		return fmt.Errorf("%w: of none to be removed", ErrHeader)
	}
	rest, complete := strings.CutSuffix(header, "\r\n")
	name, _, found := strings.Cut(rest, ":")
	if !complete || !found || name == "" || len(header) > TextMax {
		return ErrHeader
	}
	for _, c := range []byte(name) {
		if c < '!' || c > '~' {
			return fmt.Errorf("%w: a name that is none", ErrHeader)
		}
	}
	for n, line := range strings.Split(rest, "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") {
			return fmt.Errorf("%w: a lone CR or LF or a NUL", ErrHeader)
		}
		if n > 0 && (strings.Trim(line, " \t") == "" || line[0] != ' ' && line[0] != '\t') {
			return fmt.Errorf("%w: a line that does not continue it", ErrHeader)
		}
	}
	return nil
}
