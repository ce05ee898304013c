package sevenbit

import (
	"bytes"
	"encoding/base64"
)

// lineLimit is the longest line that hosts take by DATA, in octets without CR LF (RFC 5321
// section 4.5.3.1.6).
const lineLimit = 998

// form is what becomes of a message.
type form struct {
	eightBit bool // octets beyond ASCII may stay
	lines    bool // it had any octets, and gets lines
	inner    bool // a line end follows that is no part of it
}

var (
	toASCII       = form{}
	binaryToLines = form{eightBit: true, lines: true}
	binaryToASCII = form{lines: true}
)

// BinaryToLines makes a message of lines, for DATA and a host with 8BITMIME, of one that came
// with BODY=BINARYMIME (RFC 3030 section 3): parts of such lines stay as they are, others are
// encoded, and none is said to be binary any more. ok is false if that cannot be done: a
// header is not made of lines, or a part is in an encoding already and has none, or is of a
// kind that must not be encoded. What it returns can go by DATA whatever the content was: it
// has no CR, LF or NUL by itself, and ends with CR LF.
func BinaryToLines(content []byte) (message []byte, ok bool) { return binaryToLines.convert(content) }

// BinaryToASCII does the same for a host without 8BITMIME, as Convert does.
func BinaryToASCII(content []byte) (message []byte, ok bool) { return binaryToASCII.convert(content) }

func (f form) convert(content []byte) (message []byte, ok bool) {
	out, ok := f.appendEntity(make([]byte, 0, len(content)+len(content)/2), content, true, 0)
	if ok && len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out, ok && f.fits(out) // whatever the structure of the message was
}

// fits reports whether content has the form already.
func (f form) fits(content []byte) bool {
	if !f.eightBit && !isASCII(content) {
		return false
	}
	return !f.lines || hasLines(content)
}

// hasLines reports whether content can be sent by DATA without a change: CR and LF stand
// together alone, no line is too long, and there is no NUL (RFC 2045 section 2.8).
func hasLines(content []byte) bool {
	if bytes.IndexByte(content, 0) >= 0 {
		return false
	}
	for len(content) > 0 {
		i := bytes.IndexByte(content, '\n')
		line := content
		switch {
		case i == 0, i > 0 && content[i-1] != '\r':
			return false
		case i > 0:
			line, content = content[:i-1], content[i+1:]
		default:
			content = nil
		}
		if len(line) > lineLimit || bytes.IndexByte(line, '\r') >= 0 {
			return false
		}
	}
	return true
}

// mentionsBinary reports whether the word is anywhere in content, so that a part may be said
// to be binary.
func mentionsBinary(content []byte) bool {
	for word := []byte("inary"); ; {
		i := bytes.IndexAny(content, "bB")
		if i < 0 {
			return false
		}
		content = content[i+1:]
		if len(content) >= len(word) && bytes.EqualFold(content[:len(word)], word) {
			return true
		}
	}
}

// plain is the encoding of a body that needs none, or is made of parts.
func (f form) plain(body []byte) string {
	if f.eightBit && !isASCII(body) {
		return "8bit"
	}
	return "7bit"
}

// closed reports whether content stays what it is if a line end is put behind it.
func (f form) closed(content []byte) bool {
	return !f.lines || f.inner || bytes.HasSuffix(content, []byte("\r\n"))
}

// close makes quoted-printable text stay what it is if a line end is put behind it.
func (f form) close(text []byte) []byte {
	if f.closed(text) {
		return text
	}
	return append(text, "=\r\n"...)
}

// within is the form of a part of a multipart. Behind one that is followed by a boundary comes
// a line end that does not belong to it (RFC 2046 section 5.1.1).
func (f form) within(followed bool) form {
	f.inner = f.inner || followed
	return f
}

// appendRewrapped adds a message or a part in base64 that is not in lines, as bare LF make it:
// what is encoded is the same in other lines.
func appendRewrapped(out, header, body []byte) (all []byte, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(body, []byte{' '}, nil)))
	if err != nil {
		return nil, false
	}
	out = append(append(out, header...), "\r\n"...)
	return append(out, Base64(raw)...), true
}

// appendAside adds what stands beside the parts of a multipart.
func (f form) appendAside(out, b []byte) []byte {
	switch {
	case f.lines && !hasLines(b):
		return out
	case f.eightBit:
		return append(out, b...)
	}
	return appendASCII(out, b)
}
