package logfmt

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"meta1/mta/smtp"
)

// maxValue is how many bytes of a value are shown, before escaping.
const maxValue = 1024

const upperHex = "0123456789ABCDEF"

// appendValue adds an attribute's value, which is resolved and of that kind, in the format of
// README 10.4.
func appendValue(b []byte, v slog.Value, kind slog.Kind) []byte {
	switch kind {
	case slog.KindString:
		return appendText(b, v.String())
	case slog.KindAny:
		return appendAny(b, v.Any())
	default:
		return appendScalar(b, v)
	}
}

// appendScalar adds a value that can hold neither a comma nor a percent sign.
func appendScalar(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindFloat64:
		return strconv.AppendFloat(b, v.Float64(), 'g', -1, 64)
	case slog.KindDuration:
		return appendSeconds(b, v.Duration())
	case slog.KindTime:
		return v.Time().UTC().AppendFormat(b, timeLayout)
	default:
		return b
	}
}

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// appendSeconds adds a duration in seconds, with milliseconds if there are any.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Milliseconds())/1000, 'f', -1, 64)
}

// appendAny adds a value of a type that slog does not know. The types of the hot
// path come first and allocate nothing; as pointers they need no memory in the line either.
func appendAny(b []byte, v any) []byte {
	switch v := v.(type) {
	case *smtp.ID:
		return v.Append(b)
	case smtp.ID:
		return v.Append(b)
	case smtp.Path:
		return appendPath(b, v)
	case *smtp.Path:
		return appendPath(b, *v)
	case *smtp.Reply:
		return appendReply(b, *v)
	case smtp.Reply:
		return appendReply(b, v)
	case netip.Addr:
		if v.Zone() != "" { // the name of an interface may hold any byte
			return appendText(b, v.String())
		}
		return v.AppendTo(b)
	case netip.AddrPort:
		if v.Addr().Zone() != "" {
			return appendText(b, v.String())
		}
		return v.AppendTo(b)
	default:
		return appendText(b, anyText(v))
	}
}

func appendPath(b []byte, p smtp.Path) []byte {
	b = appendText(append(b, '<'), p.Local)
	if p.Domain != "" {
		b = appendText(append(b, '@'), p.Domain)
	}
	return append(b, '>')
}

// appendReply adds a reply, as a rule without a copy: few have what must be escaped.
func appendReply(b []byte, r smtp.Reply) []byte {
	start := len(b)
	b = r.Append(b)
	if len(b)-start <= maxValue && !slices.ContainsFunc(b[start:], escaped) {
		return b
	}
	return appendText(b[:start], string(b[start:]))
}

// escaped reports whether a byte may have to be escaped.
func escaped(c byte) bool { return c < ' ' || c >= 0x7f || c == ',' || c == '%' }

// anyText is the text of a value of another type.
func anyText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case netip.Addr:
		if !v.IsValid() {
			return ""
		}
		return v.String()
	case fmt.Stringer:
		return v.String()
	case error:
		return v.Error()
	case []byte:
		return string(v)
	case []string:
		return strings.Join(v, " ")
	default:
		return fmt.Sprint(v)
	}
}

// appendText adds s with everything escaped that could end the field or the line.
func appendText(b []byte, s string) []byte {
	cut := len(s) > maxValue
	if cut {
		s = s[:maxValue]
	}
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if !escaped(c) { // nearly every byte
			i++
			continue
		}
		size, plain := plainAt(s, i)
		if plain && c >= utf8.RuneSelf {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		for end := i + size; i < end; i++ {
			b = append(b, '%', upperHex[s[i]>>4], upperHex[s[i]&15])
		}
		start = i
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, "..."...)
	}
	return b
}

// plainAt reports whether the character at s[i] is printable, and its length.
func plainAt(s string, i int) (size int, plain bool) {
	if c := s[i]; c < utf8.RuneSelf {
		return 1, c >= ' ' && c != 0x7f
	}
	r, size := utf8.DecodeRuneInString(s[i:])
	return size, (r != utf8.RuneError || size > 1) && unicode.IsPrint(r)
}
