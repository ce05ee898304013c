package smtp

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsSRS reports whether a local part begins as an address of the Sender Rewriting Scheme does: SRS0 or SRS1
// in any case, and one of = + - behind it.
func IsSRS(local string) bool {
	local = UnquoteLocal(local)
	return len(local) > len("SRS0=") && (strings.EqualFold(local[:4], "SRS0") || strings.EqualFold(local[:4], "SRS1")) && strings.IndexByte("=+-", local[4]) >= 0
}

// UnquoteLocal is what a local part means: the text in its quotes, without backslashes.
func UnquoteLocal(local string) string {
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

// QuoteLocal writes a local part with the meaning s: as a dot-string, or as a quoted
// string if it must be one (RFC 5321 section 4.1.2, RFC 6531 section 3.3). ok is
// false if no local part can mean s, because of a control character or bad UTF-8.
func QuoteLocal(s string) (local string, ok bool) {
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
			if !isAtextRune(r) {
				return false
			}
		}
	}
	return true
}

// isAtextRune reports the characters of an atom (RFC 5322 section 3.2.3, RFC 6531
// section 3.3).
func isAtextRune(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return !unicode.IsControl(r)
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}
