// Package verp makes and reads variable envelope return paths (README 3.8 item 18,
// 3.14): the sender of a message names the recipient to whom it goes, so that a
// bounce tells whom it is about. Mail from <lm@mail> to <lr@rcpt> has the sender
// <lm+lr=rcpt@mail>. It is pure: values in, values out.
package verp

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"meta1/mta/smtp"
)

// The delimiters of README 3.8, item 18, which "" stands for.
const (
	Delimiter1 = "+" // between the local parts of sender and recipient
	Delimiter2 = "=" // in place of the recipient's @
)

// Sender is the sender of a message from mail to rcpt. Quotes of the local parts are
// taken off, and put around the new one if it needs them.
//
// ok is false, and mail must be sent as it is, if there is no such sender: mail is
// the null sender (a bounce must not get a sender), one of the paths has no domain
// (<postmaster>), or the new address would break a limit that hosts on the way may
// insist on: 64 octets for the local part, 256 for the path (RFC 5321 section
// 4.5.3.1). Cutting it instead would send bounces to the wrong place.
func Sender(mail, rcpt smtp.Path, delimiter1, delimiter2 string) (sender smtp.Path, ok bool) {
	if mail.Local == "" || mail.Domain == "" || rcpt.Local == "" || rcpt.Domain == "" {
		return smtp.Path{}, false
	}
	local, ok := quote(unquote(mail.Local) + or(delimiter1, Delimiter1) +
		unquote(rcpt.Local) + or(delimiter2, Delimiter2) + rcpt.Domain)
	if !ok || !fits(local, mail.Domain) {
		return smtp.Path{}, false
	}
	return smtp.Path{Local: local, Domain: mail.Domain}, true
}

// Parse is the reverse of Sender: whose message it was and to whom it went. The
// first delimiter1 ends the sender's local part, since a list's is chosen without
// one and a recipient's may well have it (user+detail); the last delimiter2 begins
// the recipient's domain, in which it cannot occur unless it was chosen badly. Local
// parts come back quoted only where they need it. ok is false if verp is no such
// address; that it is one does not prove that we made it.
func Parse(verp smtp.Path, delimiter1, delimiter2 string) (mail, rcpt smtp.Path, ok bool) {
	d2 := or(delimiter2, Delimiter2)
	lm, rest, found := strings.Cut(unquote(verp.Local), or(delimiter1, Delimiter1))
	i := strings.LastIndex(rest, d2)
	if !found || lm == "" || i <= 0 || verp.Domain == "" {
		return smtp.Path{}, smtp.Path{}, false
	}
	mail.Domain, rcpt.Domain = verp.Domain, rest[i+len(d2):]
	if !isDomain(rcpt.Domain) {
		return smtp.Path{}, smtp.Path{}, false
	}
	mailLocal, ok1 := quote(lm)
	rcptLocal, ok2 := quote(rest[:i])
	if !ok1 || !ok2 || !fits(mailLocal, mail.Domain) || !fits(rcptLocal, rcpt.Domain) {
		return smtp.Path{}, smtp.Path{}, false
	}
	mail.Local, rcpt.Local = mailLocal, rcptLocal
	return mail, rcpt, true
}

// fits reports whether an address keeps the limits of RFC 5321.
func fits(local, domain string) bool {
	const brackets = len("<@>")
	return len(local) <= smtp.LocalMax && len(local)+len(domain)+brackets <= smtp.PathMax
}

// unquote is what a local part means: the text in its quotes, without backslashes.
func unquote(local string) string {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return local
	}
	local = local[1 : len(local)-1]
	if strings.IndexByte(local, '\\') < 0 {
		return local
	}
	b := make([]byte, 0, len(local))
	for i := 0; i < len(local); i++ {
		if local[i] == '\\' && i+1 < len(local) {
			i++
		}
		b = append(b, local[i])
	}
	return string(b)
}

// quote writes a local part with the meaning s: as a dot-string, or as a quoted
// string if it must be one (RFC 5321 section 4.1.2, RFC 6531 section 3.3). ok is
// false if no local part can mean s, because of a control character or bad UTF-8.
func quote(s string) (local string, ok bool) {
	if isDotString(s) {
		return s, true
	}
	b := append(make([]byte, 0, len(s)+8), '"')
	for i, r := range s {
		if unicode.IsControl(r) || r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) {
			return "", false
		}
		if r == '"' || r == '\\' {
			b = append(b, '\\')
		}
		b = utf8.AppendRune(b, r)
	}
	return string(append(b, '"')), true
}

// isDotString reports a local part that needs no quotes.
func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || !utf8.ValidString(atom) {
			return false
		}
		for _, r := range atom {
			if !isAtext(r) {
				return false
			}
		}
	}
	return true
}

// isAtext reports the characters of an atom (RFC 5322 section 3.2.3, RFC 6531
// section 3.3).
func isAtext(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return !unicode.IsControl(r)
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// isDomain reports a domain name, one in UTF-8 as well, or an address literal.
func isDomain(s string) bool {
	ascii := strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf && !unicode.IsControl(r) && r != utf8.RuneError {
			return 'x'
		}
		return r
	}, s)
	return smtp.CheckHelo(ascii) == nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
