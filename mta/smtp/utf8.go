package smtp

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Charset says which characters an address may have.
type Charset uint8

// The character sets.
const (
	ASCII Charset = iota // RFC 5321
	UTF8                 // RFC 6531: of mail that was sent with SMTPUTF8
)

var (
	errUTF8 = errors.New("bad UTF-8 or control character in address")
	errIDN  = errors.New("bad internationalized domain name")
)

// uDomainMax bounds a domain name in UTF-8 before it is converted, in octets. The
// result is what DomainMax holds for; no name within that is longer in UTF-8.
const uDomainMax = 4 * DomainMax

// IsASCII reports octets below 128.
func IsASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// IsASCII reports an address that needs no SMTPUTF8.
func (p Path) IsASCII() bool { return IsASCII(p.Local) && IsASCII(p.Domain) }

// ASCIIDomain is a domain in the form in which domains are compared and looked up:
// in lower case, and labels beyond ASCII as A-labels (RFC 5890 section 2.3.2.1). An
// address literal stays as it is, but for its case. The error holds nothing of the input.
func ASCIIDomain(domain string) (string, error) {
	if IsASCII(domain) {
		return strings.ToLower(domain), nil
	}
	if len(domain) > uDomainMax {
		return "", errDomainLong
	}
	a, err := idna.Lookup.ToASCII(domain)
	if err != nil || !utf8.ValidString(domain) { // idna passes over what is no UTF-8
		return "", errIDN
	}
	return strings.ToLower(a), CheckDomain(a)
}

// beyond is the length of the character at the start of s, 0 if that is none that may stand
// in an address: no UTF-8, a control character (C1), or one that
// separates lines.
func beyond(s string) int {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
		return 0
	}
	return n
}

// ASCIIORcpt is a value of ORCPT= in ASCII: an address of type utf-8 that goes beyond
// becomes utf-8-addr-xtext (RFC 6533 section 3), any other value stays as it is.
func ASCIIORcpt(v string) string {
	kind, addr, ok := strings.Cut(v, ";")
	if !ok || IsASCII(addr) || !strings.EqualFold(kind, "utf-8") {
		return v
	}
	var b strings.Builder
	b.WriteString(kind + ";")
	for _, r := range addr {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return b.String()
}
