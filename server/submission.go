package server

import (
	"bytes"
)

// missing are the header fields that a message at a server for submission gets if it
// lacks them (RFC 6409 section 8.1, 8.2): Date: and Message-ID:. They come last in the
// header, since it is known only there that they are missing.
type missing struct {
	date  string // value of Date:
	msgid string // value of Message-ID:

	inLine bool // the last piece did not end a line
	cr     bool // a CR at the begin of a line is held back: perhaps of the empty line
}

// newMissing is what the message of the transaction may lack; nil if this is no server for
// submission.
func (c *session) newMissing() *missing {
	if !c.srv.cfg.Flags.Submission {
		return nil
	}
	env := c.tx.env
	// The id of a transaction is unique at this host; the time makes up for a lost spool.
	id := env.Arrival.UTC().AppendFormat([]byte{'<'}, "20060102150405.")
	id = append(env.TA.Append(id), '@')
	return &missing{
		date:  env.Arrival.Format(receivedDate),
		msgid: string(append(append(id, c.srv.deps.Hostname...), '>')),
	}
}

// complete takes a piece of the header, and adds what is missing before the empty line at
// its end. A chunk of BDAT may end between CR and LF.
func (c *content) complete(p []byte) {
	m := c.missing
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

// endHeader adds what is missing to a message that is nothing but a header.
func (c *content) endHeader() {
	if c.missing != nil && !c.header.done && !c.missing.inLine {
		c.addMissing()
	}
}

// addMissing adds the fields that the header lacks. One with Received: is of mail that was
// relayed, which is not changed; nor is one with lines that are no fields.
func (c *content) addMissing() {
	m, h := c.missing, &c.header
	if m == nil || h.hops > 0 || h.odd {
		return
	}
	var b []byte
	if !h.date {
		b = append(append(append(b, "Date: "...), m.date...), "\r\n"...)
	}
	if !h.named {
		h.msgid = m.msgid
		b = append(append(append(b, "Message-ID: "...), m.msgid...), "\r\n"...)
	}
	c.keep(b)
}
