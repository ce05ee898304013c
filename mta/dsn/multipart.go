package dsn

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"meta1/mta/sevenbit"
)

// part is one part of a multipart message.
type part struct {
	kind        string // Content-Type
	description string
	encoding    string // Content-Transfer-Encoding
	body        []byte // encoded so
	utf8        bool   // of a type that needs SMTPUTF8
}

// multipart makes the formats MIME and RFC.
func (n *Notification) multipart() Message {
	original, hasOriginal := n.returned()
	parts := []part{n.textPart(original)}
	kind := "multipart/mixed"
	if n.Format == RFC {
		kind = "multipart/report; report-type=delivery-status"
		parts = append(parts, n.statusPart())
	}
	if hasOriginal {
		parts = append(parts, original)
	}
	m := Message{UTF8: n.utf8()}
	size, eightBit := 2048, false
	for i := range parts {
		eightBit = eightBit || parts[i].encoding == "8bit"
		m.UTF8 = m.UTF8 || parts[i].utf8
		size += len(parts[i].body) + 256
	}
	sep := boundary(parts)
	w := writer{b: make([]byte, 0, size)}
	n.writeHeader(&w)
	w.field("MIME-Version", "1.0")
	w.field("Content-Type", kind+";", `boundary="`+sep+`"`)
	w.field("Content-Transfer-Encoding", encoding(eightBit))
	w.line("")
	w.line("This is a message in parts, in the format of MIME.")
	for i := range parts {
		w.line("") // its CRLF belongs to the boundary (RFC 2046 section 5.1.1)
		w.line("--", sep)
		parts[i].write(&w)
	}
	w.line("")
	w.line("--", sep, "--")
	m.Content, m.EightBit = w.b, eightBit || m.UTF8
	return m
}

// write writes the header and the body of the part, the latter as it is.
func (p *part) write(w *writer) {
	w.field("Content-Type", p.kind)
	w.field("Content-Description", p.description)
	w.field("Content-Transfer-Encoding", p.encoding)
	w.line("")
	w.b = append(w.b, p.body...)
}

func encoding(eightBit bool) string {
	if eightBit {
		return "8bit"
	}
	return "7bit"
}

// boundary is a line that occurs in no part. It is a digest of the parts, so that
// nobody can have put it into one beforehand.
func boundary(parts []part) string {
	h := sha256.New()
	for i := range parts {
		h.Write(parts[i].body)
	}
	for {
		// "=_" cannot occur in quoted-printable or base64 (RFC 2045 section 6.7).
		b := "=_" + hex.EncodeToString(h.Sum(nil)[:16])
		if !slices.ContainsFunc(parts, func(p part) bool { return bytes.Contains(p.body, []byte(b)) }) {
			return b
		}
		h.Write([]byte{0})
	}
}

// textPart is the part for people.
func (n *Notification) textPart(original part) part {
	var w writer
	n.writeText(&w, true)
	switch original.description {
	case descMessage:
		w.line("")
		w.line("Your mail is attached.")
	case descHeader:
		w.line("")
		w.line("The header of your mail is attached.")
	}
	p := part{kind: "text/plain; charset=" + sevenbit.Charset(w.b), description: "Notification", encoding: "7bit", body: w.b}
	switch {
	case isASCII(w.b):
	case n.utf8():
		p.encoding = "8bit"
	default:
		p.encoding, p.body = "quoted-printable", sevenbit.QuotedPrintable(w.b)
	}
	return p
}

// statusPart is the part for programs.
func (n *Notification) statusPart() part {
	p := part{kind: "message/delivery-status", description: "Delivery report", encoding: "7bit"}
	w := writer{ascii: !n.utf8()}
	n.writeStatus(&w)
	p.body = w.b
	if !isASCII(p.body) {
		p.kind, p.encoding, p.utf8 = "message/global-delivery-status", "8bit", true
	}
	return p
}

// The descriptions of what is returned.
const (
	descMessage = "Undelivered mail"
	descHeader  = "Header of the mail"
)

// original is what is returned of the message, and whether that is all of it.
func (n *Notification) original() (content []byte, whole bool) {
	if n.HeaderOnly || !n.failed() || len(n.Original) > ReturnMax {
		return Header(n.Original, HeaderMax), false
	}
	return n.Original, true
}

// returned is the part with the message that the DSN is about. ok is false if there
// is none.
//
// A message/rfc822 may not be encoded (RFC 2046 section 5.2.1): its parts are, since the
// way back may lack 8BITMIME, and one that is beyond repair is replaced by its header. A
// message/global may be (RFC 6532 section 3.7), and is, for recipients that do not take
// SMTPUTF8.
func (n *Notification) returned() (p part, ok bool) {
	content, whole := n.original()
	if len(content) == 0 {
		return part{}, false
	}
	ascii, lines := isASCII(content), linesFit(content)
	global := n.UTF8 && !ascii
	if whole && !global {
		fits := lines
		if lines && !ascii && !n.utf8() {
			var converted []byte
			if converted, fits = sevenbit.Convert(content); fits {
				content, ascii = converted, true
			}
		}
		if !fits {
			content, whole = Header(content, HeaderMax), false
			ascii, lines = isASCII(content), linesFit(content)
		}
	}
	switch {
	case whole && global:
		p = part{kind: "message/global", description: descMessage, encoding: "base64"}
	case whole:
		p = part{kind: "message/rfc822", description: descMessage, encoding: encoding(!ascii)}
	case global:
		p = part{kind: "message/global-headers", description: descHeader, encoding: "quoted-printable"}
	case ascii:
		p = part{kind: "text/rfc822-headers", description: descHeader, encoding: "7bit"}
	default: // without a charset, for the type has no parameters (RFC 6522 section 4)
		p = part{kind: "text/rfc822-headers", description: descHeader, encoding: "quoted-printable"}
	}
	if global && lines && n.utf8() {
		p.encoding, p.utf8 = "8bit", true
	}
	if !lines && p.encoding == "7bit" {
		p.encoding = "quoted-printable"
	}
	p.body = encode(p.encoding, content)
	return p, len(content) > 0
}

// linesFit reports whether content can be sent without encoding: lines of at most
// 998 octets, no NUL, CR and LF only together (RFC 2045 section 2.8).
func linesFit(content []byte) bool {
	for line := range bytes.Lines(content) {
		body, ended := bytes.CutSuffix(line, []byte("\r\n"))
		if len(body) > lineLimit || bytes.IndexByte(body, '\r') >= 0 || bytes.IndexByte(body, 0) >= 0 {
			return false
		}
		if !ended && bytes.IndexByte(body, '\n') >= 0 {
			return false
		}
	}
	return true
}

func encode(encoding string, content []byte) []byte {
	switch encoding {
	case "base64":
		return sevenbit.Base64(content)
	case "quoted-printable":
		return sevenbit.QuotedPrintable(content)
	default:
		return content
	}
}
