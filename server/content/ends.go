package content

import "bytes"

// LineEnds makes CR LF of all line ends of a new body: filters are not always exact about
// them, and nothing else may end a line. The zero value is at its beginning.
type LineEnds struct {
	cr   bool // the last octet was a CR
	open bool // the last line has no end yet
}

// Write passes the next piece of a new body on to c. The error is why c has failed.
func (l *LineEnds) Write(c *Content, p []byte) error {
	out := make([]byte, 0, len(p)+len(p)/8)
	for _, b := range p {
		if l.cr && b != '\n' || b == '\n' {
			out = append(out, "\r\n"...)
			l.open = false
		}
		l.cr = b == '\r'
		if b != '\r' && b != '\n' {
			out = append(out, b)
			l.open = true
		}
	}
	c.addBody(out)
	if !c.failed.IsZero() {
		return c.failed
	}
	return nil
}

// End ends the last line.
func (l *LineEnds) End(c *Content) {
	if l.cr || l.open {
		c.addBody([]byte("\r\n"))
	}
}

// addBody takes a piece of a new body, after what Config.NUL says. It is not looked for a header.
func (c *Content) addBody(p []byte) {
	if bytes.IndexByte(p, 0) >= 0 {
		switch c.cfg.NUL {
		case RejectNUL:
			c.Fail(replyNUL)
		case StripNUL:
			p = bytes.ReplaceAll(p, []byte{0}, nil)
		}
	}
	if c.size += int64(len(p)); c.cfg.SizeMax > 0 && c.size > c.cfg.SizeMax {
		c.Fail(ReplyTooBig)
	}
	c.keep(p)
}
