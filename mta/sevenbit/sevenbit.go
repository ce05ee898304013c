// Package sevenbit says in 7 bits what a message says in 8, for hosts without 8BITMIME, and in
// lines what it says in any octets, for hosts without BINARYMIME. It is pure: bytes in, bytes
// out.
package sevenbit

import (
	"bytes"
	"encoding/base64"
	"mime"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"
)

// depthMax bounds parts within parts of a message that is returned.
const depthMax = 20

// Convert makes a message of 7-bit lines that says the same as content, by encoding
// the parts that are not ASCII (RFC 6152 section 3, as hosts do that must hand 8-bit mail
// to one without 8BITMIME). A message/rfc822 may not be encoded as a whole (RFC 2046
// section 5.2.1). ok is false if that cannot be done: a header is not ASCII, or a part is
// of a kind or in an encoding that is unknown or has no business to have 8 bits.
func Convert(content []byte) (message []byte, ok bool) {
	out, ok := toASCII.appendEntity(make([]byte, 0, len(content)+len(content)/4), content, true, 0)
	return out, ok
}

// appendEntity adds a message, if top is set, or a part of one, in the form.
func (f form) appendEntity(out, content []byte, top bool, depth int) (all []byte, ok bool) {
	fits, closed := f.fits(content), f.closed(content)
	if fits && closed && !(f.lines && mentionsBinary(content)) {
		return append(out, content...), true
	}
	header, body := splitHeader(content)
	if !f.fits(header) || depth > depthMax {
		return nil, false
	}
	h := readMIMEFields(header)
	kind, params, err := mime.ParseMediaType(h.contentType)
	if h.contentType == "" {
		kind, err = "text/plain", nil
	}
	composite := strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/")
	switch h.encoding {
	case "", "7bit", "8bit", "binary":
	default: // encoded, and must not be so twice (RFC 3030 section 3)
		if !fits && f.lines && h.encoding == "base64" {
			return appendRewrapped(out, header, body)
		}
		return append(out, content...), fits
	}
	if err != nil {
		return append(out, content...), fits
	}
	unlabelled := fits && h.encoding != "binary"
	encoding, charset := f.plain(body), Charset(body)
	switch {
	case composite && !(unlabelled && len(body) == 0):
	case unlabelled && (closed || composite):
		return append(out, content...), true
	case f.fits(body) && closed: // of a message that does not fit
	case strings.HasPrefix(kind, "text/"):
		encoding, body = "quoted-printable", f.close(QuotedPrintable(body))
	default:
		encoding, body = "base64", Base64(body)
	}
	if composite && unlabelled {
		out = append(append(out, header...), "\r\n"...)
	} else {
		out = append(out, h.rest...)
		if top && !h.hasVersion {
			out = append(out, "MIME-Version: 1.0\r\n"...)
		}
		if top && h.contentType == "" {
			out = append(out, "Content-Type: text/plain; charset="+charset+"\r\n"...)
		}
		out = append(out, "Content-Transfer-Encoding: "+encoding+"\r\n\r\n"...)
	}
	switch {
	case !composite:
		return append(out, body...), true
	case kind == "message/rfc822":
		return f.appendEntity(out, body, true, depth+1)
	case params["boundary"] != "":
		return f.appendParts(out, body, []byte("--"+params["boundary"]), depth)
	}
	return append(out, body...), fits
}

// appendParts adds the body of a multipart, part by part (RFC 2046 section 5.1.1).
// What stands before and behind the parts is not for anybody: there every byte that is
// not ASCII becomes '?', and what is no text is left out.
func (f form) appendParts(out, body, delimiter []byte, depth int) (all []byte, ok bool) {
	outside := true // of the parts
	for {
		part, line, rest := cutDelimiter(body, delimiter)
		if outside {
			out = f.appendAside(out, part)
		} else if out, ok = f.within(line != nil).appendEntity(out, part, false, depth+1); !ok {
			return nil, false
		}
		if line == nil {
			return out, true
		}
		out = appendASCII(out, line)
		outside = bytes.HasPrefix(bytes.TrimLeft(line, "\r\n")[len(delimiter):], []byte("--"))
		if body = rest; outside {
			return f.appendAside(out, body), true
		}
	}
}

// cutDelimiter returns what stands before the first line of delimiter, that line with
// the line ends around it, and the rest. line is nil if there is none.
func cutDelimiter(body, delimiter []byte) (part, line, rest []byte) {
	for from := 0; ; {
		i := bytes.Index(body[from:], delimiter)
		if i < 0 {
			return body, nil, nil
		}
		start := from + i
		from = start + len(delimiter)
		if start > 0 && !bytes.HasSuffix(body[:start], []byte("\r\n")) {
			continue
		}
		tail, rest, ended := bytes.Cut(body[from:], []byte("\r\n"))
		if len(bytes.Trim(bytes.TrimPrefix(tail, []byte("--")), " \t")) > 0 {
			continue
		}
		end := from + len(tail)
		if ended {
			end += 2
		}
		if start > 0 {
			start -= 2
		}
		return body[:start], body[start:end], rest
	}
}

// appendASCII adds b with '?' for what is not ASCII.
func appendASCII(out, b []byte) []byte {
	start := len(out)
	out = append(out, b...)
	for i, c := range out[start:] {
		if c >= 0x80 {
			out[start+i] = '?'
		}
	}
	return out
}

// splitHeader splits a message or a part behind the line end of its last header field;
// the empty line belongs to neither.
func splitHeader(content []byte) (header, body []byte) {
	if body, ok := bytes.CutPrefix(content, []byte("\r\n")); ok {
		return nil, body
	}
	header, body, found := bytes.Cut(content, []byte("\r\n\r\n"))
	if !found {
		return content, nil
	}
	return content[:len(header)+2], body
}

// mimeFields is what the header of a message or of a part says of its form.
type mimeFields struct {
	contentType string // unfolded
	encoding    string // in lower case
	hasVersion  bool
	rest        []byte // the header without Content-Transfer-Encoding
}

// readMIMEFields reads a header whose lines end with CRLF. Of several fields of a name
// the first counts.
func readMIMEFields(header []byte) (h mimeFields) {
	h.rest = make([]byte, 0, len(header))
	for len(header) > 0 {
		n := fieldLen(header)
		field := header[:n]
		header = header[n:]
		name, value, _ := strings.Cut(string(field), ":")
		value = strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "mime-version":
			h.hasVersion = true
		case "content-type":
			if h.contentType == "" {
				h.contentType = value
			}
		case "content-transfer-encoding":
			if h.encoding == "" {
				h.encoding = strings.ToLower(value)
			}
			continue
		}
		h.rest = append(h.rest, field...)
	}
	return h
}

// fieldLen is the length of the first field of a header with its continuation lines.
func fieldLen(header []byte) int {
	for n := 0; ; {
		i := bytes.Index(header[n:], []byte("\r\n"))
		if i < 0 {
			return len(header)
		}
		n += i + 2
		if n == len(header) || header[n] != ' ' && header[n] != '\t' {
			return n
		}
	}
}

// QuotedPrintable encodes text. If a CR or LF stands alone in it the line ends are
// encoded as well, so that it comes back as it was.
func QuotedPrintable(content []byte) []byte {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	w.Binary = bytes.Count(content, []byte("\r\n")) != bytes.Count(content, []byte{'\r'}) ||
		bytes.Count(content, []byte("\r\n")) != bytes.Count(content, []byte{'\n'})
	w.Write(content) // a bytes.Buffer does not fail
	w.Close()
	return b.Bytes()
}

// Base64 encodes content in lines of 76 characters.
func Base64(content []byte) []byte {
	const perLine = 57
	b := make([]byte, 0, (len(content)/perLine+1)*78)
	for len(content) > 0 {
		n := min(len(content), perLine)
		b = base64.StdEncoding.AppendEncode(b, content[:n])
		b = append(b, "\r\n"...)
		content = content[n:]
	}
	return b
}

// Charset names what text is written in. RFC 1428 made the last name for text of
// which nothing is known.
func Charset(b []byte) string {
	switch {
	case isASCII(b):
		return "us-ascii"
	case utf8.Valid(b):
		return "utf-8"
	default:
		return "unknown-8bit"
	}
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
