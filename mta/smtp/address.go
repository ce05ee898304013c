package smtp

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Limits of domain names, in octets. Local parts and paths have none of their own: the
// 64 and 256 octets of RFC 5321 section 4.5.3.1 are what every host must be able to take,
// and addresses of SRS and VERP are longer. What an address is read from, a command line
// or an entry of a map, is bounded.
const (
	DomainMax = 255 // domain name or address literal (RFC 5321 section 4.5.3.1.2)

	labelMax = 63 // one label of a domain name (RFC 1035 section 2.3.4)
)

// ErrNonASCII says that an address holds octets above 127, which need SMTPUTF8
// (RFC 6531). Callers branch on it: it has an enhanced code of its own.
var ErrNonASCII = errors.New("non-ASCII character in address")

// The mistakes of an address. Their texts hold nothing of the input, so that they
// can be sent to the client as they are.
var (
	errNoBracket    = errors.New("address is not in angle brackets")
	errNoEnd        = errors.New("closing angle bracket is missing")
	errTwoAts       = errors.New("more than one @")
	errLocalEmpty   = errors.New("local part is empty")
	errLocalSyntax  = errors.New("bad character in local part")
	errLocalDot     = errors.New("misplaced dot in local part")
	errLocalQuote   = errors.New("bad quoted string in local part")
	errNoDomain     = errors.New("domain is missing")
	errDomainLong   = errors.New("domain is longer than 255 octets")
	errDomainSyntax = errors.New("bad domain name")
	errDomainChar   = errors.New("bad character in domain name")
	errLiteral      = errors.New("bad address literal")
	errRoute        = errors.New("bad source route")
	errNullForward  = errors.New("null path is no recipient")
	errTrailing     = errors.New("text behind the address")
)

// CutReversePath reads the reverse-path of MAIL at the start of s: "<>" or a
// mailbox in angle brackets (RFC 5321 section 4.1.2). rest is what follows the
// closing bracket.
func CutReversePath(s string, cs Charset) (p Path, rest string, err error) {
	if strings.HasPrefix(s, "<>") {
		return Path{}, s[2:], nil
	}
	return cutPath(s, cs)
}

// CutForwardPath reads the forward-path of RCPT at the start of s. It is a mailbox
// in angle brackets, or "<postmaster>" in any case without a domain (RFC 5321
// section 4.1.1.3). rest is what follows the closing bracket.
func CutForwardPath(s string, cs Charset) (p Path, rest string, err error) {
	if strings.HasPrefix(s, "<>") {
		return Path{}, s, errNullForward
	}
	const bare = "<postmaster>"
	if len(s) >= len(bare) && strings.EqualFold(s[:len(bare)], bare) {
		return Path{Local: s[1 : len(bare)-1]}, s[len(bare):], nil
	}
	return cutPath(s, cs)
}

// ParseMailbox reads a whole address, local part and domain without angle
// brackets, as RFC 5321 section 4.1.2 defines Mailbox.
func ParseMailbox(s string, cs Charset) (Path, error) {
	p, n, err := scanMailbox(s, cs)
	switch {
	case err != nil:
		return Path{}, err
	case n == len(s):
		return p, nil
	case s[n] == '@':
		return Path{}, errTwoAts
	case strings.IndexByte(" \t,;>", s[n]) >= 0:
		return Path{}, errTrailing
	}
	return Path{}, errDomainChar
}

// cutPath reads "<" [source route] mailbox ">". The route is checked and dropped:
// RFC 5321 appendix C demands that it be accepted, and says to ignore it.
func cutPath(s string, cs Charset) (Path, string, error) {
	if s == "" || s[0] != '<' {
		return Path{}, s, errNoBracket
	}
	i := 1
	if i < len(s) && s[i] == '@' && strings.IndexByte(s, ':') > 0 {
		n, err := scanRoute(s[i:], cs)
		if err != nil {
			return Path{}, s, err
		}
		i += n
	}
	p, n, err := scanMailbox(s[i:], cs)
	if err != nil {
		return Path{}, s, err
	}
	i += n
	if i >= len(s) || s[i] != '>' {
		return Path{}, s, mailboxEnd(s[i:])
	}
	return p, s[i+1:], nil
}

// mailboxEnd says what is wrong with what follows a mailbox in place of ">".
func mailboxEnd(rest string) error {
	switch {
	case strings.IndexByte(rest, '>') < 0:
		return errNoEnd
	case rest[0] == '@':
		return errTwoAts
	}
	return errDomainChar
}

// scanRoute reads "@" domain *("," "@" domain) ":" and returns its length.
func scanRoute(s string, cs Charset) (int, error) {
	i := 0
	for {
		if i >= len(s) || s[i] != '@' {
			return 0, errRoute
		}
		n, err := scanDomain(s[i+1:], cs)
		if err != nil {
			return 0, err
		}
		i += 1 + n
		if i >= len(s) || (s[i] != ',' && s[i] != ':') {
			return 0, errRoute
		}
		if i++; s[i-1] == ':' {
			return i, nil
		}
	}
}

// scanMailbox reads local part, "@" and domain at the start of s.
func scanMailbox(s string, cs Charset) (p Path, n int, err error) {
	local, err := scanLocal(s, cs)
	if err != nil {
		return Path{}, 0, err
	}
	if local >= len(s) || s[local] != '@' {
		return Path{}, 0, localEnd(s[local:])
	}
	domain, err := scanDomain(s[local+1:], cs)
	if err != nil {
		return Path{}, 0, err
	}
	n = local + 1 + domain
	return Path{Local: s[:local], Domain: s[local+1 : n]}, n, nil
}

// localEnd says what is wrong with what follows a local part in place of "@".
func localEnd(rest string) error {
	switch {
	case rest == "" || rest[0] == '>':
		return errNoDomain
	case rest[0] >= 0x80:
		return ErrNonASCII
	}
	return errLocalSyntax
}

// scanLocal returns the length of the local part: a dot-string or a quoted string.
func scanLocal(s string, cs Charset) (int, error) {
	if s != "" && s[0] == '"' {
		return scanQuoted(s, cs)
	}
	return scanDotString(s, cs)
}

func scanDotString(s string, cs Charset) (int, error) {
	i := 0
	for i < len(s) && (isAtext(s[i]) || s[i] == '.' || s[i] >= utf8.RuneSelf && cs == UTF8) {
		n := 1
		switch {
		case s[i] >= utf8.RuneSelf:
			if n = beyond(s[i:]); n == 0 {
				return 0, errUTF8
			}
		case s[i] == '.' && (i == 0 || s[i-1] == '.'):
			return 0, errLocalDot
		}
		i += n
	}
	switch {
	case i == 0 && (s == "" || s[0] == '@' || s[0] == '>'):
		return 0, errLocalEmpty
	case i == 0 && s[0] < 0x80:
		return 0, errLocalSyntax
	case i == 0:
		return 0, ErrNonASCII
	case s[i-1] == '.':
		return 0, errLocalDot
	}
	return i, nil
}

// scanQuoted returns the length of a quoted string with both quotes: printable
// ASCII and spaces, where a backslash takes any such character literally, and UTF-8
// if that is allowed.
func scanQuoted(s string, cs Charset) (int, error) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1, nil
		case c >= utf8.RuneSelf && cs == UTF8:
			n := beyond(s[i:])
			if n == 0 {
				return 0, errUTF8
			}
			i += n - 1
		case c >= utf8.RuneSelf:
			return 0, ErrNonASCII
		case c < ' ' || c == 0x7f:
			return 0, errLocalQuote
		case c == '\\':
			if i++; i >= len(s) || s[i] < ' ' || s[i] > '~' {
				return 0, errLocalQuote
			}
		}
	}
	return 0, errLocalQuote
}

// scanDomain returns the length of the domain name or address literal at the
// start of s.
func scanDomain(s string, cs Charset) (int, error) {
	if s != "" && s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return 0, errLiteral
		}
		_, err := ParseAddressLiteral(s[:end+1])
		return end + 1, err
	}
	i, ascii := 0, true
	for i < len(s) && (isLetDig(s[i]) || s[i] == '-' || s[i] == '.' || s[i] >= utf8.RuneSelf && cs == UTF8) {
		ascii = ascii && s[i] < utf8.RuneSelf
		i++
	}
	switch {
	case i < len(s) && s[i] >= utf8.RuneSelf:
		return 0, ErrNonASCII
	case !ascii:
		_, err := ASCIIDomain(s[:i])
		return i, err
	case i == 0 && s != "" && s[0] != '>' && s[0] != '@':
		return 0, errDomainChar
	}
	return i, CheckDomain(s[:i])
}

// CheckDomain says what is wrong with s as a domain name of RFC 5321 section
// 4.1.2: labels of letters, digits and inner hyphens, separated by dots, without
// a dot at the end. A single label is enough.
func CheckDomain(s string) error {
	if s == "" {
		return errNoDomain
	}
	if len(s) > DomainMax {
		return errDomainLong
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if !isLetDig(s[i]) && s[i] != '-' {
				return errDomainSyntax
			}
			continue
		}
		if i == start || i-start > labelMax || s[start] == '-' || s[i-1] == '-' {
			return errDomainSyntax
		}
		start = i + 1
	}
	return nil
}

// ParseAddressLiteral reads an address literal with its brackets (RFC 5321 section
// 4.1.3): "[192.0.2.1]" or "[IPv6:2001:db8::1]". The General-address-literal has
// no registered tags and is refused.
func ParseAddressLiteral(s string) (netip.Addr, error) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, errLiteral
	}
	text, want6 := s[1:len(s)-1], false
	const tag = "IPv6:"
	if len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag) {
		text, want6 = text[len(tag):], true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is6() != want6 {
		return netip.Addr{}, errLiteral
	}
	return addr, nil
}

// AppendAddressLiteral adds the address literal of addr to b.
func AppendAddressLiteral(b []byte, addr netip.Addr) []byte {
	b = append(b, '[')
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		b = append(b, "IPv6:"...)
	}
	return append(addr.AppendTo(b), ']')
}

// CheckHelo says what is wrong with s as the argument of EHLO or HELO: it must be
// a domain name or an address literal (RFC 5321 section 4.1.1.1).
func CheckHelo(s string) error {
	if s != "" && s[0] == '[' {
		_, err := ParseAddressLiteral(s)
		return err
	}
	return CheckDomain(s)
}

func isLetDig(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isAtext reports the characters of an atom (RFC 5322 section 3.2.3).
func isAtext(c byte) bool {
	return isLetDig(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
