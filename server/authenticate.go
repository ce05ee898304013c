package server

import (
	"bufio"
	"bytes"
	"errors"
	"log/slog"

	"meta1/mta/smtp"
	"meta1/server/authn"
	"meta1/server/authn/verify"
	"meta1/server/content"
	"meta1/server/milter"
)

// replyNotVerified: the message could not be read to verify it.
var replyNotVerified = smtp.NewReply(451, "4.3.0", "Message cannot be verified at present")

// makeVerifier makes the verifier of section authentication.
func (s *Server) makeVerifier() {
	if !s.cfg.AuthenticationPresent {
		return
	}
	for _, m := range [...]authn.Method{authn.SPF, authn.DKIM, authn.DMARC, authn.ARC} { // they show before they happen
		s.metrics.authentication.WithLabelValues(string(m), "pass")
	}
	s.verifier = verify.New(s.cfg.Authentication, verify.Deps{
		DNS: s.deps.Ports.DNS, Hostname: s.deps.Hostname, Reports: s.deps.DMARCReports,
		Count: func(m authn.Method, word string) { s.metrics.authentication.WithLabelValues(string(m), word).Inc() },
	})
}

// authenticateSender checks the sender of a transaction that has begun. The reply is zero if it
// may go on.
func (c *session) authenticateSender() smtp.Reply {
	v := c.srv.verifier
	if v == nil || c.tx.discard {
		return smtp.Reply{}
	}
	begun := c.stages.begin()
	m, d := v.Begin(c.asks.parent, verify.Sender{
		TA: c.tx.env.TA, Client: c.client, From: c.tx.env.Mail.From, Trusted: c.relaying() || c.policy.quick || c.from.local,
	})
	c.tx.authn = m
	c.stages.end("authenticate ", "mail", begun, d.Reply)
	return c.heed(&d)
}

// heed does what the results demand.
func (c *session) heed(d *verify.Decision) smtp.Reply {
	if d.Hold != "" && c.tx.hold == "" {
		c.tx.hold = d.Hold
	}
	if !d.Reply.IsZero() {
		c.note.by = d.Step
	}
	return d.Reply
}

// authenticateMessage verifies a message that has come in, before anybody else decides on it, and
// puts the results on top of it in place of those that somebody else claims to be ours. The reply
// is zero if it may go on.
func (c *session) authenticateMessage(body *content.Content) smtp.Reply {
	m := c.tx.authn
	if m == nil || body.Discarded() || !body.Failed().IsZero() {
		return body.Failed()
	}
	d, err := m.Message(c.asks.parent, body.Reader(body.Received()), body.Take)
	if err != nil || !body.Failed().IsZero() {
		body.Blame(err)
		return replyNotVerified
	}
	if r := c.heed(&d); !r.IsZero() {
		return r
	}
	return c.reportResults(body)
}

// reportResults puts our Authentication-Results: on top of the message, and removes those that
// claim to be ours.
func (c *session) reportResults(body *content.Content) smtp.Reply {
	r := bufio.NewReaderSize(body.Reader(body.Received()), headerPiece)
	header, err := milter.ReadBlock(r, headerMax)
	switch {
	case errors.Is(err, milter.ErrHeaderLarge):
		return content.ReplyHeaderLarge
	case err != nil:
		body.FailStore(err)
		return body.Failed()
	case !body.Memory().Take(int64(len(header))):
		body.FailMemory()
		return body.Failed()
	}
	defer body.Memory().Give(int64(len(header)))
	// A line that is no field ends the header for us, but not for all who read on. An empty line
	// says so to everybody: behind it nothing counts, whoever it claims to be from.
	open := !endsHeader(header) && body.Written() > body.Received()+int64(len(header))
	results := c.tx.authn.Field()
	body.SetResults(results)
	left := c.tx.authn.Remove(header)
	if left.Fields == 0 && !open {
		body.Prepend(results)
		return body.Failed()
	}
	if left.Fields > 0 {
		c.emit(slog.LevelInfo, "forged Authentication-Results removed", slog.Any("ss_ta", c.tx.env.TA), slog.Int("fields", left.Fields))
	}
	text := append(append([]byte(nil), results...), c.trace()...)
	text = append(text, left.Header...)
	if open {
		text = append(text, "\r\n"...)
	}
	body.SetHead(body.Received()+int64(len(header)), text)
	return body.Failed()
}

// endsHeader reports whether a header ends with its empty line.
func endsHeader(header []byte) bool {
	return string(header) == "\r\n" || bytes.HasSuffix(header, []byte("\r\n\r\n"))
}
