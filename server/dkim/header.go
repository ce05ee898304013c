package dkim

import (
	"bytes"
	"errors"
	"strings"
)

// What is wrong with a header.
var (
	errNoField = errors.New("a line of the header is no header field")
	errNoFrom  = errors.New("it has no From: header field")
	errManyFr  = errors.New("it has several From: header fields")
)

// Field is one header field as it stands in a message.
type Field struct {
	Name string // in lower case, without the blanks that old mailers put before the colon
	Raw  []byte // all of it, with the line ends
}

// Value is what follows the colon, folded as it is, without the line end.
func (f Field) Value() string {
	_, value, _ := bytes.Cut(f.Raw, []byte{':'})
	return strings.TrimSuffix(string(value), "\r\n")
}

// Header are the fields of a message from top to bottom.
type Header []Field

// ParseHeader takes the lines of a header apart, with or without the empty line at its end.
// Fields refer to block, which must not be changed. A last line without a line end gets one.
func ParseHeader(block []byte) (Header, error) {
	h := make(Header, 0, 16)
	for start := 0; start < len(block); {
		end := fieldEnd(block, start)
		raw := block[start:end]
		start = end
		if string(raw) == "\r\n" {
			break
		}
		if !bytes.HasSuffix(raw, []byte("\r\n")) {
			raw = append(bytes.Clone(raw), "\r\n"...)
		}
		name, ok := fieldName(raw)
		if !ok {
			return h, errNoField
		}
		h = append(h, Field{Name: name, Raw: raw})
	}
	return h, nil
}

// fieldEnd is where the field that begins at start ends: behind the first line end that no
// white space follows. Only CR LF is one.
func fieldEnd(block []byte, start int) int {
	for i := start; ; {
		j := bytes.Index(block[i:], []byte("\r\n"))
		if j < 0 {
			return len(block)
		}
		i += j + 2
		if i == start+2 || i >= len(block) || block[i] != ' ' && block[i] != '\t' {
			return i
		}
	}
}

func fieldName(raw []byte) (string, bool) {
	name, _, found := bytes.Cut(raw, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c < '!' || c > '~' {
			return "", false
		}
	}
	return strings.ToLower(string(name)), found && len(name) > 0
}

// From is the only From: field of the header.
func (h Header) From() (Field, error) {
	var from Field
	for _, f := range h {
		if f.Name != "from" {
			continue
		}
		if from.Raw != nil {
			return from, errManyFr
		}
		from = f
	}
	if from.Raw == nil {
		return from, errNoFrom
	}
	return from, nil
}

// picker gives the fields of a header for the names in h=: those of one name from the bottom
// up, each once (RFC 6376 section 5.4.2).
type picker map[string][]Field

func newPicker(h Header) picker {
	p := picker{}
	for _, f := range h {
		p[f.Name] = append(p[f.Name], f)
	}
	return p
}

// pick gives the next field of a name in lower case; ok is false if there is none left.
func (p picker) pick(name string) (f Field, ok bool) {
	left := p[name]
	if len(left) == 0 {
		return Field{}, false
	}
	p[name] = left[:len(left)-1]
	return left[len(left)-1], true
}

// AppendCanonical appends a field in canonical form (RFC 6376 section 3.4.1, 3.4.2).
func AppendCanonical(b []byte, c Canon, raw []byte) []byte {
	if c != Relaxed {
		return append(b, raw...)
	}
	name, value, _ := bytes.Cut(raw, []byte{':'})
	b = append(b, bytes.ToLower(bytes.TrimRight(name, " \t"))...)
	b = append(b, ':')
	start, wsp := len(b), false
	for i, c := range value {
		switch {
		case c == '\r' && i+1 < len(value) && value[i+1] == '\n', c == '\n' && i > 0 && value[i-1] == '\r':
		case c == ' ', c == '\t':
			wsp = true
		default:
			if wsp && len(b) > start {
				b = append(b, ' ')
			}
			b, wsp = append(b, c), false
		}
	}
	return append(b, "\r\n"...)
}
