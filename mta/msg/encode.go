package msg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"meta1/mta/smtp"
)

// The versions of an encoded envelope, its first byte. A reader refuses any other, so that
// a newer spool is never misread. Version 2 has flags that a program must not pass over; an
// envelope without them is written as version 1, which earlier programs read, too.
const (
	envelopeVersion      = 1
	envelopeVersionFlags = 2
)

// maxRcpts bounds the recipients of a decoded envelope.
const maxRcpts = 1 << 24

// Flags of a stored envelope.
const (
	flagUTF8 = 1 << iota
	flagVERP
	flagExpanded
	flagRequireTLS
	flagTLSOptional
	flagBinary // the body is BINARYMIME: who does not know it would send it by DATA

	flagsV1 = flagRequireTLS - 1
	flagsV2 = flagBinary<<1 - 1
)

var (
	errShort  = errors.New("envelope record is cut short")
	errBinary = errors.New("envelope record contradicts itself about BINARYMIME")
	errFlags  = errors.New("envelope record has flags that its version does not know")
)

// AppendEnvelope adds the envelope's stored form to b: the value that the
// envelope databases keep.
func AppendEnvelope(b []byte, e *Envelope) []byte {
	version := byte(envelopeVersion)
	if e.Mail.RequireTLS || e.Mail.TLSOptional || e.Mail.Binary() {
		version = envelopeVersionFlags
	}
	b = append(b, version)
	b = appendID(b, e.TA)
	b = appendID(b, e.Session)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Arrival.UnixNano()))
	b = appendClient(b, &e.Client)
	b = appendMail(b, &e.Mail, e.Expanded)
	b = binary.AppendUvarint(b, uint64(len(e.Rcpts)))
	for i := range e.Rcpts {
		b = AppendRcpt(b, &e.Rcpts[i])
	}
	return b
}

func appendID(b []byte, id smtp.ID) []byte {
	return append(binary.BigEndian.AppendUint64(b, id.Counter), id.Process)
}

func appendClient(b []byte, c *Client) []byte {
	var buf [32]byte
	ip, _ := c.IP.AppendBinary(buf[:0]) // never fails
	b = append(binary.AppendUvarint(b, uint64(len(ip))), ip...)
	b = binary.BigEndian.AppendUint16(b, c.Port)
	b = appendString(b, c.Helo)
	b = appendString(b, c.Name)
	b = appendString(b, c.Resolve)
	return appendString(b, c.Protocol)
}

func appendMail(b []byte, m *Mail, expanded bool) []byte {
	b = appendPath(b, m.From)
	b = binary.AppendUvarint(b, uint64(m.Size))
	b = appendString(b, m.Body)
	b = appendString(b, m.Ret)
	b = appendString(b, m.EnvID)
	var flags byte
	if m.UTF8 {
		flags |= flagUTF8
	}
	if m.VERP {
		flags |= flagVERP
	}
	if expanded {
		flags |= flagExpanded
	}
	if m.RequireTLS {
		flags |= flagRequireTLS
	}
	if m.TLSOptional {
		flags |= flagTLSOptional
	}
	if m.Binary() {
		flags |= flagBinary
	}
	return append(b, flags)
}

// AppendRcpt adds the stored form of one recipient to b.
func AppendRcpt(b []byte, r *Rcpt) []byte {
	return appendString(appendString(appendPath(b, r.To), r.Notify), r.ORcpt)
}

func appendPath(b []byte, p smtp.Path) []byte {
	return appendString(appendString(b, p.Local), p.Domain)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeEnvelope reads what AppendEnvelope wrote.
func DecodeEnvelope(b []byte) (*Envelope, error) {
	e := new(Envelope)
	if err := DecodeEnvelopeInto(e, b); err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeEnvelopeInto is DecodeEnvelope into e, whatever e was, with the memory of its recipients. After an
// error e means nothing.
func DecodeEnvelopeInto(e *Envelope, b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	var known byte
	switch b[0] {
	case envelopeVersion:
		known = flagsV1
	case envelopeVersionFlags:
		known = flagsV2
	default:
		return fmt.Errorf("envelope record has version %d; this program reads versions up to %d", b[0], envelopeVersionFlags)
	}
	d := decoder{b: b[1:], text: string(b[1:]), flags: known}
	*e = Envelope{TA: d.id(), Session: d.id(), Rcpts: e.Rcpts[:0]}
	e.Arrival = time.Unix(0, int64(d.uint64()))
	e.Client = d.client()
	e.Mail, e.Expanded = d.mail()
	n := d.uvarint()
	if n > maxRcpts || n > uint64(len(d.b)) {
		return errShort // each recipient takes at least a byte
	}
	if e.Rcpts == nil || uint64(cap(e.Rcpts)) < n { // a list, also if it is empty
		e.Rcpts = make([]Rcpt, n)
	}
	e.Rcpts = e.Rcpts[:n]
	for i := range e.Rcpts {
		e.Rcpts[i] = d.rcpt()
	}
	return d.end()
}

// decoder takes values off the front of b. The first failure sticks.
type decoder struct {
	b     []byte
	text  string // what b was at first: all strings are parts of it, so that they take one piece of memory
	flags byte   // those that the version knows
	err   error
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		return fmt.Errorf("envelope record has %d bytes too many", len(d.b))
	}
	return d.err
}

func (d *decoder) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.b)) {
		d.err, d.b = errShort, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err, d.b = errShort, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) string() string {
	n := d.uvarint()
	from := len(d.text) - len(d.b)
	return d.text[from : from+len(d.take(n))]
}

func (d *decoder) id() smtp.ID     { return smtp.ID{Counter: d.uint64(), Process: d.byte()} }
func (d *decoder) path() smtp.Path { return smtp.Path{Local: d.string(), Domain: d.string()} }
func (d *decoder) rcpt() Rcpt      { return Rcpt{To: d.path(), Notify: d.string(), ORcpt: d.string()} }
func (d *decoder) uint16() uint16  { return uint16(d.byte())<<8 | uint16(d.byte()) }
func (d *decoder) addr() (a netip.Addr) {
	if err := a.UnmarshalBinary(d.take(d.uvarint())); err != nil && d.err == nil {
		d.err = fmt.Errorf("envelope record: client address: %w", err)
	}
	return a
}

func (d *decoder) client() Client {
	return Client{
		IP: d.addr(), Port: d.uint16(), Helo: d.string(), Name: d.string(),
		Resolve: d.string(), Protocol: d.string(),
	}
}

func (d *decoder) mail() (Mail, bool) {
	m := Mail{From: d.path(), Size: int64(d.uvarint()), Body: d.string(), Ret: d.string(), EnvID: d.string()}
	flags := d.byte()
	if flags&^d.flags != 0 && d.err == nil {
		d.err = errFlags
	}
	m.UTF8, m.VERP = flags&flagUTF8 != 0, flags&flagVERP != 0
	m.RequireTLS, m.TLSOptional = flags&flagRequireTLS != 0, flags&flagTLSOptional != 0
	if m.Binary() != (flags&flagBinary != 0) && d.err == nil {
		d.err = errBinary
	}
	return m, flags&flagExpanded != 0
}
