package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxSignature bounds one DKIM-Signature: field in bytes. README 8.5 has 1000, which the names
// of a usual header fill already if all are signed.
const maxSignature = 8 << 10

var (
	errLongHeader = errors.New("its header is longer than total_header_len")
	errLongField  = errors.New("a header field is longer than header_val_len_max")
	errLongNames  = errors.New("it has too many header fields to sign them")
)

// Error says why a message cannot be signed.
type Error struct {
	Err error
	// Temporary: it is not the message's fault.
	Temporary bool
}

func (e *Error) Error() string { return "the message cannot be signed: " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Message takes the content of one message. It is not safe for concurrent use.
type Message struct {
	of     *loaded
	now    time.Time
	header []byte
	fields Header
	body   *BodyHash
	keys   []key
	ended  bool // the header has ended
	err    error
}

// Write takes the next piece of the content, with the header that is to be signed first. It
// never fails.
func (m *Message) Write(p []byte) (int, error) {
	n := len(p)
	for !m.ended && m.err == nil && len(p) > 0 {
		piece := p[:min(len(p), headPiece)] // no more of the body is copied
		rest := m.head(piece)
		p = p[len(piece)-len(rest):]
	}
	if m.body != nil && len(p) > 0 {
		_, _ = m.body.Write(p) // it never fails
	}
	return n, nil
}

// headPiece is how much is taken for the header at a time.
const headPiece = 4 << 10

// More reports whether the rest of the content matters: it does not once it is known that the
// message is not signed.
func (m *Message) More() bool { return m.err == nil && (!m.ended || m.body != nil) }

// Held is how many bytes of the content are held in memory.
func (m *Message) Held() int { return cap(m.header) }

// head takes a piece of the header, and returns what belongs to the body.
func (m *Message) head(p []byte) []byte {
	before := len(m.header)
	m.header = append(m.header, p...)
	end := headerEnd(m.header, before)
	if over := end < 0 && int64(len(m.header)) > m.of.TotalHeaderLen || int64(end) > m.of.TotalHeaderLen; over {
		m.header, m.err = nil, errLongHeader
		return nil
	}
	if end < 0 {
		return nil
	}
	rest := p[end-before:]
	m.header = m.header[:end]
	m.endHeader()
	return rest
}

// headerEnd is where the empty line ends of a header of which the first bytes are known to
// have none; -1 if there is none.
func headerEnd(b []byte, known int) int {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return 2
	}
	from := max(0, known-3)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	return -1
}

// endHeader chooses the keys.
func (m *Message) endHeader() {
	m.ended = true
	fields, err := ParseHeader(m.header)
	m.fields = fields
	from, fromErr := fields.From()
	if errors.Is(fromErr, errNoFrom) {
		return // no signature may leave From: out (RFC 6376 section 5.4)
	}
	m.err = err
	m.keys, err = m.of.choose(Address(from), m.now)
	switch {
	case m.err != nil:
	case err != nil:
		m.err = err
	case fromErr != nil:
		m.err = fromErr
	}
	if len(m.keys) == 0 && !errors.Is(m.err, errNoKey) {
		m.err = nil // it is not to be signed
		return
	}
	for _, f := range fields {
		if m.err == nil && int64(len(f.Raw)-len(f.Name)) > m.of.HeaderValLenMax {
			m.err = errLongField
		}
	}
	if m.err == nil {
		m.body = NewBodyHash(Canon(m.of.BodyCanon))
	}
}

// Signature is one that was made.
type Signature struct{ Domain, Selector, Algorithm string }

// Sign ends the message, and gives the header fields that go on top of it; nil if no key is
// for its From: address. The error is an *Error. It may be called once.
func (m *Message) Sign() ([]byte, error) {
	head, _, err := m.SignAll()
	return head, err
}

// SignAll is Sign that says, too, which signatures it made.
func (m *Message) SignAll() (head []byte, made []Signature, err error) {
	if !m.ended && m.err == nil { // it is nothing but a header
		m.endHeader()
	}
	if m.err != nil {
		return nil, nil, &Error{Err: m.err, Temporary: errors.Is(m.err, errNoKey)}
	}
	if len(m.keys) == 0 {
		return nil, nil, nil
	}
	list := m.of.names.list(m.fields)
	signed := CanonicalFields(Canon(m.of.HeaderCanon), m.fields, list)
	bodyHash := base64.StdEncoding.EncodeToString(m.body.Sum())
	for i := range m.keys {
		k := &m.keys[i]
		field, err := m.of.sign(k, list, signed, bodyHash, m.now)
		if err != nil {
			return nil, nil, err
		}
		head = append(head, field...)
		made = append(made, Signature{k.Domain, k.Selector, k.kind + "-sha256"})
	}
	return head, made, nil
}

// CanonicalFields are the fields that the names of h= stand for, in canonical form.
func CanonicalFields(c Canon, h Header, list []string) []byte {
	var b []byte
	p := newPicker(h)
	for _, name := range list {
		if f, ok := p.pick(name); ok {
			b = AppendCanonical(b, c, f.Raw)
		}
	}
	return b
}

// sign makes the signature of one key.
func (l *loaded) sign(k *key, list []string, signed []byte, bodyHash string, now time.Time) ([]byte, error) {
	b := fmt.Appendf(nil, "DKIM-Signature: v=1; a=%s-sha256; c=%s/%s;\r\n\td=%s; s=%s;\r\n\tt=%d; h=",
		k.kind, l.HeaderCanon, l.BodyCanon, k.Domain, k.Selector, now.Unix())
	b = Fold(b, list)
	b = append(b, ";\r\n\tbh="+bodyHash+";\r\n\tb="...)
	if len(b) > maxSignature {
		return nil, &Error{Err: errLongNames}
	}
	sum := sha256.New()
	sum.Write(signed)
	sum.Write(bytes.TrimSuffix(AppendCanonical(nil, Canon(l.HeaderCanon), append(bytes.Clone(b), "\r\n"...)), []byte("\r\n")))
	sig, err := SignHash(k.private, sum.Sum(nil))
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("key of %s: %w", strconv.Quote(k.Selector), err), Temporary: true}
	}
	return append(FoldValue(b, base64.StdEncoding.EncodeToString(sig)), "\r\n"...), nil
}

// FoldValue appends text in base64, in lines.
func FoldValue(b []byte, text string) []byte {
	for {
		n := min(len(text), lineMax-4)
		b = append(b, text[:n]...)
		if text = text[n:]; text == "" {
			return b
		}
		b = append(b, "\r\n\t "...)
	}
}

// lineMax is how long the lines of a signature become.
const lineMax = 76

// Fold appends names with colons between them, in lines.
func Fold(b []byte, list []string) []byte {
	line := len(b) - bytes.LastIndexByte(b, '\n')
	for i, name := range list {
		if i > 0 {
			b = append(b, ':')
			line++
		}
		if line+len(name) > lineMax && i > 0 {
			b = append(b, "\r\n\t "...)
			line = 2
		}
		b = append(b, name...)
		line += len(name)
	}
	return b
}

// Algorithms of a list of signatures, for logs.
func Algorithms(made []Signature) string {
	words := make([]string, len(made))
	for i, s := range made {
		words[i] = s.Selector + "._domainkey." + s.Domain + " " + s.Algorithm
	}
	return strings.Join(words, " ")
}
