package confparse

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// format writes a value of o in the syntax of the configuration file.
func (o *Option) format(v any) string {
	switch v := v.(type) {
	case bool:
		return onOff(v)
	case int64:
		if o.isSize() {
			return formatSize(v)
		}
		return strconv.FormatInt(v, 10)
	case time.Duration:
		return formatTime(v)
	case netip.Addr:
		return v.String()
	case string:
		if o.Type == Expr {
			return v
		}
		return quote(v)
	case []string:
		return formatList(v, quote)
	case []netip.Addr:
		return formatList(v, netip.Addr.String)
	}
	return quote(fmt.Sprint(v))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func formatList[T any](list []T, item func(T) string) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = item(v)
	}
	if len(words) == 0 {
		return "{ }"
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// formatSize gives the largest unit that divides n.
func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// formatTime gives a sequence such as 1h5m12s. What is below a millisecond cannot
// be written and is cut.
func formatTime(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	rest := int64(d)
	for _, u := range timeUnits {
		if n := rest / u.factor; n > 0 {
			b.WriteString(strconv.FormatInt(n, 10) + u.name)
			rest -= n * u.factor
		}
	}
	return b.String()
}

// quote writes a string so that it is read again as it is: as a bare word if it
// can be.
func quote(s string) string {
	bare := s != ""
	for i := 0; i < len(s) && bare; i++ {
		c := s[i]
		bare = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("_-./:@+", c) >= 0
	}
	if bare {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch i := strings.IndexByte("\a\b\f\n\r\t\v\\\"", s[0]); {
		case i >= 0:
			b.WriteString("\\" + `abfnrtv\"`[i:i+1])
		case n == 1 && (r == utf8.RuneError || isControl(r)):
			fmt.Fprintf(&b, "\\%03o", s[0])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}
