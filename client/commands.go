package client

import (
	"io"
	"strconv"

	"meta1/client/content"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// prepare refuses what cannot be sent over this connection, before anything is said,
// and opens the content. It reports whether there is something to send.
func (t *transaction) prepare() bool {
	q := t.q
	local, odd := scan(q.Mail.From)
	if odd {
		t.answerAll(smtp.NewReply(553, "5.1.7", "sender address has control characters"))
		return false
	}
	t.utf8 = q.Mail.UTF8 || local
	for i := range q.Rcpts {
		beyond, odd := scan(q.Rcpts[i].To)
		switch {
		case odd:
			t.answer(i, smtp.NewReply(553, "5.1.3", "recipient address has control characters"))
		case beyond && !t.ext.UTF8:
			t.answer(i, t.noUTF8())
		case beyond:
			t.utf8 = true
		}
	}
	if t.utf8 && !t.ext.UTF8 {
		t.utf8 = false
		if local || headerNeedsUTF8(q.Body) {
			t.answerAll(t.noUTF8())
		}
	}
	if t.open == 0 || !t.openContent() || !t.fitContent() || !t.fitSize() {
		return false
	}
	t.postpone()
	t.prdr = t.ext.PRDR && t.open > 1 && t.hop.Protocol == msg.ProtoSMTP
	t.bdat = t.byChunks()
	return true
}

// fitSize refuses content that is larger than the host takes (RFC 1870 section 6.1).
func (t *transaction) fitSize() bool {
	if t.ext.SizeMax == 0 || t.size() <= t.ext.SizeMax {
		return true
	}
	t.answerAll(smtp.NewReply(552, "5.3.4", "message size "+strconv.FormatInt(t.size(), 10)+
		" exceeds size limit "+strconv.FormatInt(t.ext.SizeMax, 10)+" of host "+t.hop.String()))
	return false
}

// byChunks decides between BDAT and DATA. BDAT saves the search for dots, which counts for
// large content, and one round trip with a host without PIPELINING. Otherwise DATA is as
// good, and every host has long learnt it. A binary body can go by BDAT alone.
func (t *transaction) byChunks() bool {
	return t.binary || t.ext.Chunking && t.class.chunking && (t.size() > content.SmallMax || !t.ext.Pipelining)
}

// noUTF8 is the reply for mail that needs SMTPUTF8 where the peer lacks it (RFC 6531
// section 3.2, RFC 3463 with RFC 6531's 5.6.7).
func (t *transaction) noUTF8() smtp.Reply {
	return smtp.NewReply(553, "5.6.7", "SMTPUTF8 is required, but was not offered by host "+t.hop.String())
}

// openContent takes content that is in memory, and opens other content. The queue may give up
// its memory at any time, so it is asked for it once.
func (t *transaction) openContent() bool {
	t.shape = t.q.Body.Shape()
	if t.body = t.q.Body.Bytes(); t.body != nil || t.q.Body.Size() == 0 {
		return true
	}
	var err error
	if t.content, err = t.q.Body.Open(); err != nil {
		t.contentError()
		return false
	}
	return true
}

// contentError answers for content that we cannot read. The host is not to blame.
func (t *transaction) contentError() {
	t.answerAll(smtp.NewReply(451, "4.3.0", "cannot read the content of the message from the queue"))
}

// appendCommand adds one command of the envelope to what is to be written. It
// reports false for a recipient that was refused already.
func (t *transaction) appendCommand(cmd int) bool {
	switch {
	case cmd == cmdReset:
		t.Out = append(t.Out, "RSET\r\n"...)
	case cmd == cmdMail:
		t.appendMail()
	case cmd == len(t.q.Rcpts): // not with BDAT
		t.Out = append(t.Out, "DATA\r\n"...)
	case !t.a.Rcpts[cmd].IsZero():
		return false
	default:
		t.appendRcpt(&t.q.Rcpts[cmd])
	}
	return true
}

func (t *transaction) appendMail() {
	m := &t.q.Mail
	b := appendPath(append(t.Out, "MAIL FROM:"...), t.path(m.From))
	if t.ext.Size {
		b = strconv.AppendInt(append(b, " SIZE="...), t.size(), 10)
	}
	switch {
	case t.binary:
		b = append(b, " BODY=BINARYMIME"...)
	case t.ext.EightBit && (m.Body == smtp.Body8Bit || !t.shape.ASCII && smtp.Has8Bit(t.body)):
		b = append(b, " BODY=8BITMIME"...)
	}
	if t.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if m.RequireTLS && t.ext.RequireTLS && t.tls.on() {
		b = append(b, " REQUIRETLS"...)
	}
	if t.mechanism != "" {
		b = append(b, " AUTH=<>"...) // RFC 4954 section 5: we do not vouch for who wrote it
	}
	if t.prdr {
		b = append(b, " PRDR"...)
	}
	if t.ext.DSN {
		b = appendParam(b, " RET=", m.Ret)
		b = appendParam(b, " ENVID=", m.EnvID)
	}
	t.Out = append(b, "\r\n"...)
}

func (t *transaction) appendRcpt(r *msg.Rcpt) {
	b := appendPath(append(t.Out, "RCPT TO:"...), t.path(r.To))
	if t.ext.DSN {
		orcpt := r.ORcpt
		if !t.utf8 {
			orcpt = smtp.ASCIIORcpt(orcpt)
		}
		b = appendParam(b, " NOTIFY=", r.Notify)
		b = appendParam(b, " ORCPT=", orcpt)
	}
	t.Out = append(b, "\r\n"...)
}

// path is an address as it is sent: without SMTPUTF8 a domain beyond ASCII goes as A-labels,
// which name the same.
func (t *transaction) path(p smtp.Path) smtp.Path {
	if t.utf8 {
		return p
	}
	return p.ToASCII()
}

func appendPath(b []byte, p smtp.Path) []byte {
	b = append(append(b, '<'), p.Local...)
	if p.Domain != "" {
		b = append(append(b, '@'), p.Domain...)
	}
	return append(b, '>')
}

// appendParam adds a parameter of RFC 3461 as it was received. A value that could
// begin something else on the line is left out.
func appendParam(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	for i := 0; i < len(value); i++ {
		if value[i] <= ' ' || value[i] == 0x7f {
			return b
		}
	}
	return append(append(b, name...), value...)
}

// scan reports whether an address needs SMTPUTF8, which it does not for its domain alone,
// and whether it has bytes that may not stand in a command.
func scan(p smtp.Path) (beyond, odd bool) {
	p = p.ToASCII()
	for _, s := range [...]string{p.Local, p.Domain} {
		for i := 0; i < len(s); i++ {
			c := s[i]
			beyond = beyond || c >= 0x80
			odd = odd || c < ' ' || c == 0x7f
		}
	}
	return beyond, odd
}

// headerNeedsUTF8 reports a header beyond ASCII. Content in a file is looked at for
// its first part only; what cannot be read is found out when it is sent.
func headerNeedsUTF8(body msg.Body) bool {
	b := body.Bytes()
	if b == nil && body.Size() > 0 {
		r, err := body.Open()
		if err != nil {
			return false
		}
		defer r.Close() // it was only read
		b = make([]byte, 64<<10)
		n, _ := io.ReadFull(r, b) // as far as it can be read
		b = b[:n]
	}
	if i := indexHeaderEnd(b); i >= 0 {
		b = b[:i]
	}
	return smtp.Has8Bit(b)
}
