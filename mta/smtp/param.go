package smtp

import (
	"errors"
	"strconv"
	"strings"
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
// and returns what follows it.
func NextParam(s string) (p Param, rest string, err error) {
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
	if hasValue && !isParamValue(value) {
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

// isParamValue: esmtp-value = 1*(%d33-60 / %d62-126).
func isParamValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < '!' || c > '~' || c == '=' {
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

// ParseBody reads the value of BODY= (RFC 6152): "7BIT" or "8BITMIME".
func ParseBody(v string) (string, error) { return oneOf(v, "7BIT", "8BITMIME") }

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
// semicolon and xtext, and returns it as sent.
func ParseORcpt(v string) (string, error) {
	kind, addr, ok := strings.Cut(v, ";")
	if !ok || len(v) > ORcptMax || !isParamName(kind) || addr == "" {
		return "", errParamValue
	}
	return v, CheckXtext(addr)
}
