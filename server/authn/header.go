package authn

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FieldName is the name of the field.
const FieldName = "Authentication-Results"

// Bounds of what Append writes: values come from strangers.
const (
	valueMax = 256 // bytes of a value, reason or comment
	foldAt   = 78  // RFC 5322 section 2.1.1
)

// Append adds an Authentication-Results: field with its line end: who evaluated (the authserv-id),
// and what. No result at all is said by none (RFC 8601 section 2.2).
func Append(b []byte, id string, results []Result) []byte {
	w := folder{b: b, line: len(b)}
	w.raw(FieldName + ":")
	w.word(value(id))
	if len(results) == 0 {
		w.raw(";")
		w.word("none")
		return append(w.b, "\r\n"...)
	}
	for i := range results {
		r := &results[i]
		w.raw(";")
		w.fold()
		method := string(r.Method)
		if r.Version > 0 {
			method += "/" + strconv.Itoa(r.Version)
		}
		w.word(method + "=" + r.Value)
		if r.Comment != "" {
			w.word("(" + comment(r.Comment) + ")")
		}
		if r.Reason != "" {
			w.word("reason=" + quoted(r.Reason))
		}
		for _, p := range r.Props {
			if p.Value != "" {
				w.word(p.Type + "." + p.Name + "=" + pvalue(p.Value))
			}
		}
	}
	return append(w.b, "\r\n"...)
}

// folder writes words with blanks between them, and begins a new line before one that would be
// beyond foldAt.
type folder struct {
	b    []byte
	line int  // where the line begins
	at   bool // the line has begun anew, and needs no blank
}

func (f *folder) raw(s string) { f.b = append(f.b, s...) }

func (f *folder) fold() {
	f.raw("\r\n\t")
	f.line, f.at = len(f.b)-1, true
}

func (f *folder) word(s string) {
	switch {
	case f.at:
	case len(f.b)-f.line+1+len(s) > foldAt:
		f.fold()
	default:
		f.raw(" ")
	}
	f.at = false
	f.raw(s)
}

// clean is text without what has no place in a header: control characters and what is no UTF-8
// become "?". It has max bytes at most.
func clean(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) { // s is UTF-8 now
		max--
	}
	return s[:max]
}

// comment is text within a comment (RFC 5322 section 3.2.2).
func comment(s string) string {
	return strings.NewReplacer("(", "[", ")", "]", `\`, "/").Replace(clean(s, valueMax))
}

// quoted is a quoted string (RFC 5322 section 3.2.4).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(clean(s, valueMax)) + `"`
}

// value is a token of RFC 2045, or else a quoted string.
func value(s string) string {
	if isToken(s) {
		return s
	}
	return quoted(s)
}

// pvalue is a value of a property (RFC 8601 section 2.2): also an address or a part of one,
// which stands as it is.
func pvalue(s string) string {
	local, domain, found := strings.Cut(s, "@")
	if found && (local == "" || isDotAtom(local)) && isToken(domain) && len(s) <= valueMax {
		return s
	}
	return value(s)
}

func isToken(s string) bool {
	if s == "" || len(s) > valueMax {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return false
		}
	}
	return true
}

func isDotAtom(s string) bool {
	for _, atom := range strings.Split(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if c := atom[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0 {
				return false
			}
		}
	}
	return true
}

// Removed is a header without some of its fields.
type Removed struct {
	Header []byte // what is left
	Fields int    // how many were removed
}

// RemoveFields removes fields Authentication-Results: from a header: those for whose value claims
// returns true. Every line that begins so counts, also behind one that is no field, and whatever
// blanks stand before the colon.
func RemoveFields(header []byte, claims func(value string) bool) Removed {
	out := Removed{Header: make([]byte, 0, len(header))}
	for len(header) > 0 {
		n := fieldLength(header)
		field := header[:n]
		header = header[n:]
		if name, v, found := bytes.Cut(field, []byte{':'}); found && strings.EqualFold(string(bytes.TrimRight(name, " \t")), FieldName) && claims(string(v)) {
			out.Fields++
			continue
		}
		out.Header = append(out.Header, field...)
	}
	return out
}

// fieldLength is how long the first field is, with its folded lines.
func fieldLength(header []byte) int {
	for i := 0; ; {
		j := bytes.IndexByte(header[i:], '\n')
		if j < 0 {
			return len(header)
		}
		i += j + 1
		if i >= len(header) || header[i] != ' ' && header[i] != '\t' {
			return i
		}
	}
}

// ServID is the authserv-id in the value of a field, the version behind it left out.
func ServID(value string) (string, error) {
	f, err := Parse(value)
	return f.ID, err
}
