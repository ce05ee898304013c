package syntax

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Quoted writes s in double quotes.
func Quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch i := strings.IndexByte("\a\b\f\n\r\t\v\\\"", s[0]); {
		case i >= 0:
			b.WriteString("\\" + `abfnrtv\"`[i:i+1])
		case n == 1 && (r == utf8.RuneError || IsControl(r)):
			fmt.Fprintf(&b, "\\%03o", s[0])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}

func IsControl(r rune) bool { return r < ' ' || r == 0x7f }
