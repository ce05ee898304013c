package smtp

import (
	"errors"
	"strings"
)

var errXtext = errors.New("bad xtext")

// DecodeXtext decodes the xtext of RFC 3461 section 4: printable ASCII in which
// "+" and two upper-case hexadecimal digits stand for one octet. What is encoded
// must be printable ASCII or a space too, as RFC 3461 demands of ENVID and ORCPT,
// so that the result can go into a header.
func DecodeXtext(s string) (string, error) {
	if err := CheckXtext(s); err != nil {
		return "", err
	}
	if strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		b = append(b, c)
	}
	return string(b), nil
}

// CheckXtext says whether DecodeXtext can decode s.
func CheckXtext(s string) error {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < '!' || c > '~' || c == '=' {
			return errXtext
		}
		if c != '+' {
			continue
		}
		if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
			return errXtext
		}
		if c = unhex(s[i+1])<<4 | unhex(s[i+2]); c < ' ' || c > '~' {
			return errXtext
		}
		i += 2
	}
	return nil
}

func isUpperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

func unhex(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}
