package control

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"meta1/mta/msg"
)

// A queue may have millions of entries, so pages of them are written and read by code for just that: it
// takes a tenth of the time of encoding/json, and next to no memory for an entry.

// chunk is how much of a page is put together before it is written, in bytes.
const chunk = 64 << 10

// writeJSON writes the page as encoding/json would, but for characters that only HTML wants escaped.
func (p *Page) writeJSON(w io.Writer) error {
	b := append(make([]byte, 0, chunk+8<<10), `{"entries":[`...)
	for i := range p.Entries {
		if i > 0 {
			b = append(b, ',')
		}
		if b = appendEntry(b, &p.Entries[i]); len(b) >= chunk {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	b = append(strconv.AppendBool(append(b, `],"more":`...), p.More), "}\n"...)
	_, err := w.Write(b)
	return err
}

func appendEntry(b []byte, e *Entry) []byte {
	b = AppendString(append(b, `{"rcpt_id":`...), e.RcptID)
	b = AppendString(append(b, `,"ss_ta":`...), e.TA)
	b = AppendString(append(b, `,"state":`...), string(e.State))
	b = appendTime(append(b, `,"arrival":`...), e.Arrival)
	b = strconv.AppendInt(append(b, `,"size":`...), e.Size, 10)
	b = AppendString(append(b, `,"sender":`...), e.Sender)
	b = AppendString(append(b, `,"rcpt":`...), e.Rcpt)
	if e.Dest != "" {
		b = AppendString(append(b, `,"dest":`...), e.Dest)
	}
	if !e.NextTry.IsZero() {
		b = appendTime(append(b, `,"next_try":`...), e.NextTry)
	}
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(e.Attempts), 10)
	if e.Reason != "" {
		b = AppendString(append(b, `,"reason":`...), e.Reason)
	}
	return append(b, '}')
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// AppendString adds s to b as a string of JSON. What is not UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0 // what is in front of it is in b
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		b = append(b, s[from:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, "\ufffd"...)
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

// errUnusual says that a text is not as writeJSON writes it. It may be JSON all the same.
var errUnusual = errors.New("not written by hand")

// readPage reads a page. The strings of its entries are parts of the text.
func readPage(text string) (p Page, err error) {
	r := pageReader{rest: text}
	if r.page(&p) == nil {
		return p, nil
	}
	p = Page{}
	return p, json.Unmarshal([]byte(text), &p)
}

// pageReader reads what writeJSON has written, and nothing else.
type pageReader struct{ rest string }

func (r *pageReader) page(p *Page) error {
	if !r.skip(`{"entries":[`) {
		return errUnusual
	}
	p.Entries = make([]Entry, 0, min(len(r.rest)/200, PageMax)) // an entry is rarely shorter
	for !r.skip(`]`) {
		if len(p.Entries) > 0 && !r.skip(`,`) {
			return errUnusual
		}
		p.Entries = append(p.Entries, Entry{})
		if err := r.entry(&p.Entries[len(p.Entries)-1]); err != nil {
			return err
		}
	}
	switch r.rest {
	case `,"more":true}` + "\n":
		p.More = true
	case `,"more":false}` + "\n":
	default:
		return errUnusual
	}
	return nil
}

// skip passes over s, if it comes next.
func (r *pageReader) skip(s string) (ok bool) {
	r.rest, ok = strings.CutPrefix(r.rest, s)
	return ok
}

func (r *pageReader) entry(e *Entry) error {
	var err error
	text := func(name string) (s string) {
		if !r.skip(name) {
			err = errUnusual
		} else if err == nil {
			s, err = r.text()
		}
		return s
	}
	number := func(name string) (n int64) {
		if !r.skip(name) {
			err = errUnusual
		} else if err == nil {
			n, err = r.number()
		}
		return n
	}
	e.RcptID = text(`{"rcpt_id":`)
	e.TA = text(`,"ss_ta":`)
	e.State = msg.QueueState(text(`,"state":`))
	arrival := text(`,"arrival":`)
	e.Size = number(`,"size":`)
	e.Sender = text(`,"sender":`)
	e.Rcpt = text(`,"rcpt":`)
	if strings.HasPrefix(r.rest, `,"dest":`) {
		e.Dest = text(`,"dest":`)
	}
	next := ""
	if strings.HasPrefix(r.rest, `,"next_try":`) {
		next = text(`,"next_try":`)
	}
	e.Attempts = int(number(`,"attempts":`))
	if strings.HasPrefix(r.rest, `,"reason":`) {
		e.Reason = text(`,"reason":`)
	}
	if err != nil || !r.skip(`}`) {
		return errUnusual
	}
	if e.Arrival, err = time.Parse(time.RFC3339, arrival); err == nil && next != "" {
		e.NextTry, err = time.Parse(time.RFC3339, next)
	}
	return err
}

// text reads a string.
func (r *pageReader) text() (string, error) {
	if !r.skip(`"`) {
		return "", errUnusual
	}
	end := strings.IndexByte(r.rest, '"')
	if end >= 0 && strings.IndexByte(r.rest[:end], '\\') < 0 {
		s := r.rest[:end]
		r.rest = r.rest[end+1:]
		return s, nil
	}
	for end = 0; end < len(r.rest) && r.rest[end] != '"'; end++ {
		if r.rest[end] == '\\' {
			end++
		}
	}
	if end >= len(r.rest) {
		return "", errUnusual
	}
	var s string
	err := json.Unmarshal([]byte(`"`+r.rest[:end+1]), &s)
	r.rest = r.rest[end+1:]
	return s, err
}

// number reads a number without a fraction.
func (r *pageReader) number() (int64, error) {
	end := 0
	for end < len(r.rest) && (r.rest[end] >= '0' && r.rest[end] <= '9' || r.rest[end] == '-') {
		end++
	}
	n, err := strconv.ParseInt(r.rest[:end], 10, 64)
	r.rest = r.rest[end:]
	return n, err
}
