package submit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/mail"
	"strings"

	"meta1/mta/smtp"
)

// headerMax bounds the header in bytes.
const headerMax = 16 << 20

// field is one header field with all its lines, each ended by CRLF.
type field []byte

// name is the field's name as written.
func (f field) name() string {
	name, _, _ := bytes.Cut(f, []byte{':'})
	return string(bytes.TrimRight(name, " \t"))
}

// is compares the name in any case.
func (f field) is(name string) bool { return strings.EqualFold(f.name(), name) }

// value is the unfolded value.
func (f field) value() string {
	_, v, _ := bytes.Cut(f, []byte{':'})
	return string(bytes.TrimSpace(bytes.ReplaceAll(v, []byte("\r\n"), nil)))
}

// message is a message that was read: its header fields and its body, with CRLF.
type message struct {
	header []field
	body   []byte
}

// read reads the input up to its end, or to a line of a single dot.
func read(o Options) (*message, error) {
	r := &lines{r: bufio.NewReaderSize(o.Input, 64<<10), left: o.SizeMax, dots: !o.IgnoreDots}
	m := &message{}
	size := 0
	for first := true; ; first = false {
		line, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return m, nil
		case err != nil:
			return nil, err
		case first && bytes.HasPrefix(line, []byte("From ")), first && bytes.HasPrefix(line, []byte(">From ")):
			continue
		case len(line) == 2: // CRLF
			return m, m.readBody(r)
		case isFolded(line) && len(m.header) > 0:
			last := len(m.header) - 1
			m.header[last] = append(m.header[last], line...)
		case isField(line):
			m.header = append(m.header, bytes.Clone(line))
		default: // no header any more: the body begins without an empty line
			m.body = bytes.Clone(line)
			return m, m.readBody(r)
		}
		if size += len(line); size > headerMax {
			return nil, fail(ExDataErr, "header is larger than %d bytes", headerMax)
		}
	}
}

func (m *message) readBody(r *lines) error {
	for {
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m.body = append(m.body, line...)
	}
}

func isFolded(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

// isField reports a line that begins a header field (RFC 5322 section 2.2).
func isField(line []byte) bool {
	for i, c := range line {
		switch {
		case c == ':':
			return i > 0
		case c == ' ' || c == '\t': // before the colon, as old mailers wrote it
			rest := bytes.TrimLeft(line[i:], " \t")
			return i > 0 && rest[0] == ':'
		case c < '!' || c > '~':
			return false
		}
	}
	return false
}

// lines reads lines that end in LF or CRLF.
type lines struct {
	r    *bufio.Reader
	left int64 // bytes that may still come
	dots bool  // a single dot ends the input
	dot  bool  // it has
	buf  []byte
}

// next returns a line with CRLF at its end, and a space for each bare CR. It is valid
// until the next call. The last line need not have an end.
func (l *lines) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		if l.left -= int64(len(part)); l.left < 0 {
			return nil, fail(ExDataErr, "message is too large")
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(l.buf) == 0:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fail(ExIOErr, "reading the message: %w", err)
		}
		break
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(l.buf, []byte{'\n'}), []byte{'\r'})
	if l.dots && string(line) == "." {
		l.dot = true
		return nil, io.EOF
	}
	for i, c := range line {
		if c == '\r' {
			line[i] = ' '
		}
	}
	l.buf = append(line, '\r', '\n')
	return l.buf, nil
}

// recipientFields are the fields that name recipients: the Resent- ones if there are
// any (RFC 5322 section 3.6.6).
func (m *message) recipientFields() []field {
	for _, prefix := range []string{"Resent-", ""} {
		var found []field
		for _, f := range m.header {
			if f.is(prefix+"To") || f.is(prefix+"Cc") || f.is(prefix+"Bcc") {
				found = append(found, f)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

func (m *message) has(name string) bool {
	for _, f := range m.header {
		if f.is(name) {
			return true
		}
	}
	return false
}

// complete drops what must not go out and adds what is missing.
func (m *message) complete(o Options, sender smtp.Path) {
	kept := m.header[:0]
	for _, f := range m.header {
		if !f.is("Bcc") && !f.is("Resent-Bcc") && !f.is("Return-Path") {
			kept = append(kept, f)
		}
	}
	m.header = kept
	if !m.has("From") {
		from := mail.Address{Name: o.FullName, Address: sender.Addr()}
		if sender.IsNull() {
			from.Address = "MAILER-DAEMON@" + o.Hostname
		}
		m.add("From", from.String())
	}
	if !m.has("Date") {
		m.add("Date", o.Now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	}
	if !m.has("Message-ID") {
		m.add("Message-ID", messageID(o.Now, o.Hostname))
	}
}

// add adds a field of our own making.
func (m *message) add(name, value string) {
	m.header = append(m.header, field(name+": "+strings.NewReplacer("\r", " ", "\n", " ").Replace(value)+"\r\n"))
}

// bytes is the whole message.
func (m *message) bytes() []byte {
	n := len(m.body) + 2
	for _, f := range m.header {
		n += len(f)
	}
	b := make([]byte, 0, n)
	for _, f := range m.header {
		b = append(b, f...)
	}
	return append(append(b, '\r', '\n'), m.body...)
}
