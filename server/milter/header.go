package milter

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
)

// Header is one field of a message's header.
type Header struct {
	Name  string
	Value string // what follows the colon, with its folds, without the line end behind it
	raw   string // the field as it came; "" for one that a filter has made
}

// Raw is the field as it came, with its line end; "" for one that a filter has made.
func (h *Header) Raw() string { return h.raw }

// ErrHeaderLarge says that a header is larger than its reader lets it be.
var ErrHeaderLarge = errors.New("the header is too large")

// ReadHeader reads the header of a message, most bytes of it. size is where the body begins:
// behind the header, and behind the empty line if there is one. A line that is no field ends
// the header and is of the body. The error is ErrHeaderLarge or one of r.
func ReadHeader(r *bufio.Reader, most int) (fields []Header, empty bool, size int, err error) {
	var field []byte
	finish := func() {
		if len(field) > 0 {
			fields = append(fields, parseField(string(field)))
			field = field[:0]
		}
	}
	for {
		line, err := readLine(r, most-size)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, false, 0, err
		}
		switch text := bytes.TrimSuffix(line, []byte("\r\n")); {
		case len(line) == 0:
			finish()
			return fields, false, size, nil
		case len(text) == 0:
			finish()
			return fields, true, size + len(line), nil
		case (text[0] == ' ' || text[0] == '\t') && len(field) > 0:
		case isField(text):
			finish()
		default:
			finish()
			return fields, false, size, nil
		}
		field, size = append(field, line...), size+len(line)
	}
}

// readLine reads a line with its end; the last one may have none.
func readLine(r *bufio.Reader, most int) (line []byte, err error) {
	for {
		piece, err := r.ReadSlice('\n')
		if len(line)+len(piece) > most {
			return nil, ErrHeaderLarge
		}
		if line = append(line, piece...); !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// isField reports whether a line begins a field: a name and a colon (RFC 5322 section 2.2),
// blanks before the colon as old mailers write them.
func isField(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte{':'})
	return found && validName(string(bytes.TrimRight(name, " \t")))
}

func parseField(raw string) Header {
	name, value, _ := strings.Cut(raw, ":")
	return Header{Name: strings.TrimRight(name, " \t"), Value: strings.TrimSuffix(value, "\r\n"), raw: raw}
}

// AppendHeader adds the fields to b as they stand in a message. Those that no filter has made
// are as they came.
func AppendHeader(b []byte, fields []Header) []byte {
	for i := range fields {
		f := &fields[i]
		if f.raw != "" {
			b = append(b, f.raw...)
			if !strings.HasSuffix(f.raw, "\r\n") { // the message was nothing but a header, cut short
				b = append(b, "\r\n"...)
			}
			continue
		}
		b = append(append(b, f.Name...), ':')
		b = append(append(b, f.Value...), "\r\n"...)
	}
	return b
}

// Apply makes the changes of a header, in their order. Those of the envelope are passed over.
// changed is false if nothing is different; fields itself is not changed.
func Apply(fields []Header, list []Change) (out []Header, changed bool) {
	out = slices.Clone(fields)
	for i := range list {
		ch := &list[i]
		field := Header{Name: ch.Name, Value: ch.Value}
		switch ch.Kind {
		case AddHeader:
			out = append(out, field)
		case InsertHeader:
			out = slices.Insert(out, min(max(ch.Index-1, 0), len(out)), field)
		case ChangeHeader:
			at := find(out, ch.Name, ch.Index)
			switch {
			case at < 0 && ch.Value == "":
				continue
			case at < 0:
				out = append(out, field)
			case ch.Value == "":
				out = slices.Delete(out, at, at+1)
			default:
				field.Name = out[at].Name
				out[at] = field
			}
		default:
			continue
		}
		changed = true
	}
	return out, changed
}

// find is where the field of that name stands which is number n of them, from 1; -1 if it is
// nowhere.
func find(fields []Header, name string, n int) int {
	for i := range fields {
		if strings.EqualFold(fields[i].Name, name) {
			if n--; n == 0 {
				return i
			}
		}
	}
	return -1
}

// ReadBlock reads the header of a message as it is, with the empty line at its end if there is
// one, most bytes of it. It ends where ReadHeader has it end. The error is ErrHeaderLarge or one
// of r.
func ReadBlock(r *bufio.Reader, most int) (block []byte, err error) {
	for {
		line, err := readLine(r, most-len(block))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		text := bytes.TrimSuffix(line, []byte("\r\n"))
		switch {
		case len(line) == 0:
			return block, nil
		case len(text) == 0:
			return append(block, line...), nil
		case (text[0] == ' ' || text[0] == '\t') && len(block) > 0, isField(text):
		default:
			return block, nil
		}
		block = append(block, line...)
	}
}

// OneField is a field with its line end as a list; nothing is an empty one.
func OneField(raw []byte) []Header {
	if len(raw) == 0 {
		return nil
	}
	return []Header{parseField(string(raw))}
}
