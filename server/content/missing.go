package content

import "bytes"

// Missing are the header fields that a message at a server for submission gets if it
// lacks them (RFC 6409 section 8.1, 8.2): Date: and Message-ID:. They come last in the
// header, since it is known only there that they are missing.
type Missing struct {
	Date      string // value of Date:
	MessageID string // value of Message-ID:

	inLine bool // the last piece did not end a line
	cr     bool // a CR at the begin of a line is held back: perhaps of the empty line
}

// complete takes a piece of the header, and adds what is missing before the empty line at
// its end. A chunk of BDAT may end between CR and LF.
func (c *Content) complete(p []byte) {
	m := c.cfg.Missing
	for len(p) > 0 && !c.header.done {
		if !m.inLine && !m.cr && p[0] == '\r' {
			m.cr, p = true, p[1:]
			continue
		}
		if m.cr {
			if p[0] == '\n' {
				c.addMissing()
			}
			c.pass([]byte{'\r'})
			m.cr = false
		}
		n := bytes.IndexByte(p, '\n') + 1
		if m.inLine = n == 0; m.inLine {
			n = len(p)
		}
		c.pass(p[:n])
		p = p[n:]
	}
	if len(p) > 0 {
		c.pass(p)
	}
}

// EndHeader adds what is missing to a message that is nothing but a header. It is called when all has come.
func (c *Content) EndHeader() {
	if c.cfg.Missing != nil && !c.header.done && !c.cfg.Missing.inLine {
		c.addMissing()
	}
}

// addMissing adds the fields that the header lacks. One with Received: is of mail that was
// relayed, which is not changed; nor is one with lines that are no fields.
func (c *Content) addMissing() {
	m, h := c.cfg.Missing, &c.header
	if m == nil || h.hops > 0 || h.odd {
		return
	}
	var b []byte
	if !h.date {
		b = append(append(append(b, "Date: "...), m.Date...), "\r\n"...)
	}
	if !h.named {
		h.msgid = m.MessageID
		b = append(append(append(b, "Message-ID: "...), m.MessageID...), "\r\n"...)
	}
	c.keep(b)
}
