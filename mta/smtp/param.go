package smtp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of the parameters, in octets.
const (
	SizeDigitsMax = 20  // digits of SIZE= (RFC 1870 section 3)
	EnvIDMax      = 100 // ENVID= as sent (RFC 3461 section 4.4)
	ORcptMax      = 500 // ORCPT= as sent (RFC 3461 section 4.2)
)

// The mistakes of a parameter. Their texts hold nothing of the input.
var (
	errParamSpace = errors.New("parameters must be separated by one space")
	errParamName  = errors.New("bad parameter name")
	errParamValue = errors.New("bad parameter value")
	errChunk      = errors.New("bad size of a chunk")
)

// Param is an ESMTP parameter of MAIL or RCPT (RFC 5321 section 4.1.1.11).
type Param struct {
	Name  string // in upper case
	Value string // "" if there is none
}

// CutKeyword cuts a word such as "FROM:" off the argument of MAIL or RCPT, in any
// case. Nothing may stand between the colon and the path unless allowSpace is set
// (README 6.3.1, and 3.10 allow_space_after_colon_for_MAIL_and_RCPT).
func CutKeyword(arg, word string, allowSpace bool) (rest string, ok bool) {
	if len(arg) < len(word) || !strings.EqualFold(arg[:len(word)], word) {
		return arg, false
	}
	rest = arg[len(word):]
	if allowSpace {
		rest = strings.TrimLeft(rest, " ")
	}
	return rest, true
}

// NextParam reads one space and a parameter at the start of s, which is not empty,
// and returns what follows it. With UTF8 its value may go beyond ASCII (RFC 6531 section 3.3).
func NextParam(s string, cs Charset) (p Param, rest string, err error) {
	if s == "" || s[0] != ' ' || len(s) == 1 || s[1] == ' ' {
		return Param{}, s, errParamSpace
	}
	word, rest := s[1:], ""
	if i := strings.IndexByte(word, ' '); i >= 0 {
		word, rest = word[:i], word[i:]
	}
	name, value, hasValue := strings.Cut(word, "=")
	if !isParamName(name) {
		return Param{}, s, errParamName
	}
	if hasValue && !isParamValue(value, cs) {
		return Param{}, s, errParamValue
	}
	return Param{Name: strings.ToUpper(name), Value: value}, rest, nil
}

// isParamName: esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-").
func isParamName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isLetDig(s[i]) && (s[i] != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// isParamValue: esmtp-value = 1*(%d33-60 / %d62-126 / UTF8-non-ascii).
func isParamValue(s string, cs Charset) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf && cs == UTF8 {
			n := beyond(s[i:])
			if n == 0 {
				return false
			}
			i += n - 1
			continue
		}
		if c < '!' || c > '~' || c == '=' {
			return false
		}
	}
	return s != ""
}

// ParseSize reads the value of SIZE= (RFC 1870). A number that does not fit an
// int64 becomes the largest one, since the RFC allows 20 digits.
func ParseSize(v string) (int64, error) {
	if v == "" || len(v) > SizeDigitsMax || strings.Trim(v, "0123456789") != "" {
		return 0, errParamValue
	}
	n, _ := strconv.ParseInt(v, 10, 64) // out of range: the largest
	return n, nil
}

// The values of BODY= (RFC 6152, RFC 3030 section 3).
const (
	Body7Bit   = "7BIT"
	Body8Bit   = "8BITMIME"
	BodyBinary = "BINARYMIME"
)

// ParseBody reads the value of BODY= (RFC 6152): Body7Bit or Body8Bit.
func ParseBody(v string) (string, error) { return oneOf(v, Body7Bit, Body8Bit) }

// IsBinary reports whether the value of BODY= is BodyBinary, which only a host that offers
// BINARYMIME knows (RFC 3030 section 3).
func IsBinary(v string) bool { return strings.EqualFold(v, BodyBinary) }

// ParseRet reads the value of RET= (RFC 3461 section 4.3): "FULL" or "HDRS".
func ParseRet(v string) (string, error) { return oneOf(v, "FULL", "HDRS") }

func oneOf(v string, words ...string) (string, error) {
	for _, w := range words {
		if strings.EqualFold(v, w) {
			return w, nil
		}
	}
	return "", errParamValue
}

// ParseEnvID checks the value of ENVID= (RFC 3461 section 4.4) and returns it as
// sent.
func ParseEnvID(v string) (string, error) {
	if v == "" || len(v) > EnvIDMax {
		return "", errParamValue
	}
	return v, CheckXtext(v)
}

// notifyWords are the words of NOTIFY= other than NEVER, in the order in which
// ParseNotify returns them.
var notifyWords = [...]string{"SUCCESS", "FAILURE", "DELAY"}

// ParseNotify reads the value of NOTIFY= (RFC 3461 section 4.1): "NEVER", or a list
// of SUCCESS, FAILURE and DELAY without repetition. It returns upper case, the list
// in that order.
func ParseNotify(v string) (string, error) {
	if strings.EqualFold(v, "NEVER") {
		return "NEVER", nil
	}
	var seen [len(notifyWords)]bool
	for word := range strings.SplitSeq(v, ",") {
		i := notifyIndex(word)
		if i < 0 || seen[i] {
			return "", errParamValue
		}
		seen[i] = true
	}
	out := make([]string, 0, len(notifyWords))
	for i, w := range notifyWords {
		if seen[i] {
			out = append(out, w)
		}
	}
	return strings.Join(out, ","), nil
}

func notifyIndex(word string) int {
	for i, w := range notifyWords {
		if strings.EqualFold(word, w) {
			return i
		}
	}
	return -1
}

// ParseORcpt checks the value of ORCPT= (RFC 3461 section 4.2), an address type, a
// semicolon and xtext, and returns it as sent. Of the type utf-8 the address has an
// encoding of its own (RFC 6533 section 3), which may be UTF-8 itself if NextParam let it
// pass; whoever decodes it looks at it.
//
// With UTF8 an address of the type rfc822 may be xtext of UTF-8, as Postfix sends it: it is
// returned as the type utf-8, which it is.
func ParseORcpt(v string, cs Charset) (string, error) {
	kind, addr, ok := strings.Cut(v, ";")
	if !ok || len(v) > ORcptMax || !isParamName(kind) || addr == "" {
		return "", errParamValue
	}
	if strings.EqualFold(kind, "utf-8") {
		return v, checkUnitext(addr)
	}
	err := CheckXtext(addr)
	if err != nil && cs == UTF8 && strings.EqualFold(kind, "rfc822") {
		if addr, ok := unitext(addr); ok {
			return "utf-8;" + addr, nil
		}
	}
	return v, err
}

// unitext makes utf-8-addr-unitext (RFC 6533 section 3) of an address that is xtext of UTF-8.
func unitext(xtext string) (string, bool) {
	var raw []byte
	for i := 0; i < len(xtext); i++ {
		c := xtext[i]
		if c < '!' || c > '~' {
			return "", false
		}
		if c == '+' {
			if i+2 >= len(xtext) || !isUpperHex(xtext[i+1]) || !isUpperHex(xtext[i+2]) {
				return "", false
			}
			c = unhex(xtext[i+1])<<4 | unhex(xtext[i+2])
			i += 2
		}
		raw = append(raw, c)
	}
	var b strings.Builder
	for s := string(raw); s != ""; {
		n := beyond(s)
		switch {
		case n == 0:
			return "", false
		case strings.IndexByte(` \+=`, s[0]) >= 0:
			fmt.Fprintf(&b, `\x{%X}`, s[0])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String(), true
}

// checkUnitext: utf-8-addr-xtext or utf-8-addr-unitext, as far as it matters for a
// command line: no space, equals sign or control character.
func checkUnitext(s string) error {
	if !isParamValue(s, UTF8) {
		return errParamValue
	}
	return nil
}

// ParseChunk reads the argument of BDAT (RFC 3030 section 2): the size of the chunk in
// octets, and whether it is the last one. A size that does not fit an int64 is an error.
func ParseChunk(arg string) (size int64, last bool, err error) {
	digits, mark, marked := strings.Cut(arg, " ")
	if marked && !strings.EqualFold(mark, "LAST") || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, errChunk
	}
	if size, err = strconv.ParseInt(digits, 10, 64); err != nil {
		return 0, false, errChunk
	}
	return size, marked, nil
}
