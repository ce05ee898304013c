package logfmt

import (
	"log/slog"
	"math"
	"strconv"
	"unicode/utf8"
)

// appendJSONValue adds an attribute's value as JSON: numbers and booleans as
// such, all else as a string.
func appendJSONValue(b []byte, v slog.Value) []byte {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindBool, slog.KindDuration:
		return appendScalar(b, v)
	case slog.KindFloat64:
		if f := v.Float64(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return appendScalar(b, v)
		}
		return append(appendScalar(append(b, '"'), v), '"')
	case slog.KindString:
		return appendJSONText(b, v.String())
	case slog.KindTime:
		return append(appendScalar(append(b, '"'), v), '"')
	default:
		return appendJSONText(b, anyText(v.Any()))
	}
}

// appendJSONText adds s as a JSON string (RFC 8259, section 7). Characters that
// are not printable are escaped, bytes that are not UTF-8 become U+FFFD. The handler of
// log/slog leaves characters such as U+202E, which turns the direction of what follows in a
// terminal, as they are, and does not bound a value.
func appendJSONText(b []byte, s string) []byte {
	cut := len(s) > maxValue
	if cut {
		s = s[:maxValue]
	}
	b = append(b, '"')
	for i := 0; i < len(s); {
		size, plain := plainAt(s, i)
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case plain:
			b = append(b, s[i:i+size]...)
		default:
			r, _ := utf8.DecodeRuneInString(s[i:])
			b = appendJSONEscape(b, r)
		}
		i += size
	}
	if cut {
		b = append(b, "..."...)
	}
	return append(b, '"')
}

func appendJSONEscape(b []byte, r rune) []byte {
	if r > 0xffff { // a surrogate pair
		r -= 0x10000
		b = appendJSONEscape(b, 0xd800+r>>10)
		return appendJSONEscape(b, 0xdc00+r&0x3ff)
	}
	hex := strconv.FormatUint(uint64(r), 16)
	b = append(b, `\u0000`[:6-len(hex)]...)
	return append(b, hex...)
}
