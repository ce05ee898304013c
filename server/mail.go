package server

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
	"meta1/server/content"
)

// mail is MAIL (RFC 5321 section 4.1.1.2).
func (c *session) mail(arg string) smtp.Reply {
	m, r := c.parseMail(arg)
	if r.IsZero() {
		r = c.checkTLS()
	}
	if r.IsZero() {
		r = c.needAuth()
	}
	if r.IsZero() {
		r = c.begin(m)
	}
	if r.IsZero() {
		r = c.authenticateSender()
	}
	if r.IsZero() {
		r = c.filterMail()
	}
	if r.IsZero() {
		c.enter(phaseMail)
		c.progress()
		c.logMail()
		return replySender
	}
	if r.Code != 421 && !isBad(r.Code) && c.fruitless() {
		r = replyTooIdle
	}
	c.endTransaction()
	return r
}

// mailArgs is the argument of MAIL.
type mailArgs struct {
	msg.Mail
	prdr bool // PRDR, which is not a matter of the envelope
}

// parseMail reads the argument of MAIL.
func (c *session) parseMail(arg string) (m mailArgs, r smtp.Reply) {
	rest, ok := smtp.CutKeyword(arg, "FROM:", c.srv.cfg.Flags.AllowSpaceAfterColon)
	if !ok || rest == "" || rest[0] != '<' {
		c.note.add(slog.String("input", arg))
		return m, replySyntax
	}
	var err error
	if m.From, rest, err = smtp.CutReversePath(rest, c.charset()); err != nil {
		c.note.add(slog.String("input", arg))
		return m, badAddress(err, "5.1.7")
	}
	c.keepParams(rest)
	r = c.params(rest, smtp.ASCII, func(p smtp.Param) (bool, error) { return c.mailParam(&m, p) })
	if r.IsZero() && !m.UTF8 && !m.From.IsASCII() {
		r = badAddress(smtp.ErrNonASCII, "5.1.7")
	}
	if !r.IsZero() {
		c.note.add(slog.String("input", arg))
	}
	return m, r
}

// keepParams keeps the parameters of a command as they came, for filters.
func (c *session) keepParams(s string) {
	if c.filter.session != nil || c.filter.policy != nil {
		c.filter.params = strings.Fields(s)
	}
}

// charset is that of the address of MAIL, of which only its parameters tell whether it
// may go beyond ASCII.
func (c *session) charset() smtp.Charset {
	if c.offers(extUTF8) {
		return smtp.UTF8
	}
	return smtp.ASCII
}

// charset is that of addresses in the transaction.
func (tx *transaction) charset() smtp.Charset {
	if tx.env.Mail.UTF8 {
		return smtp.UTF8
	}
	return smtp.ASCII
}

// logMail logs a transaction that has begun (README 10.4), and the name by which the
// client called itself.
func (c *session) logMail() {
	if !c.log.Handler().Enabled(c.asks.parent, slog.LevelInfo) {
		return
	}
	env := c.tx.env
	attrs := append(make([]slog.Attr, 0, 8), slog.Any("ss_ta", &env.TA), slog.Any("mail", &env.Mail.From),
		slog.Int("stat", 0), slog.String("ehlo", c.client.Helo))
	if user := c.client.Auth.User; user != "" {
		attrs = append(attrs, slog.String("user", user))
	}
	if word := c.tx.authn.Fact("spf_result"); word != "" {
		attrs = append(attrs, slog.String("spf", word), slog.String("spf_domain", c.tx.authn.Fact("spf_domain")))
		if reason := c.tx.authn.SPF.Reason; reason != "" {
			attrs = append(attrs, slog.String("spf_reason", reason))
		}
	}
	c.emit(slog.LevelInfo, "mail", c.from.forward.attrs(attrs)...)
}

// badAddress is the reply to an address with a syntax error.
func badAddress(err error, code string) smtp.Reply {
	if errors.Is(err, smtp.ErrNonASCII) {
		code = "5.6.7" // RFC 6531 section 3.5
	}
	return smtp.NewReply(553, code, "Bad address: "+err.Error())
}

// params reads the parameters of MAIL or RCPT. set stores one and says whether it
// knows it. Without EHLO there are none.
func (c *session) params(s string, cs smtp.Charset, set func(smtp.Param) (known bool, err error)) smtp.Reply {
	var seen [16]string
	for n := 0; s != ""; n++ {
		p, rest, err := smtp.NextParam(s, cs)
		if err != nil || n == len(seen) {
			return replyParam
		}
		for _, name := range seen[:n] {
			if name == p.Name {
				return replyTwice
			}
		}
		known := false
		if c.esmtp {
			known, err = set(p)
		}
		if !known {
			return replyNoParam
		}
		if err != nil {
			return replyParam
		}
		seen[n], s = p.Name, rest
	}
	return smtp.Reply{}
}

// mailParam stores one parameter of MAIL.
func (c *session) mailParam(m *mailArgs, p smtp.Param) (known bool, err error) {
	switch p.Name {
	case "SIZE":
		m.Size, err = smtp.ParseSize(p.Value)
		return c.offers(extSize), err
	case "BODY":
		if smtp.IsBinary(p.Value) && c.offers(extBinary) {
			m.Body = smtp.BodyBinary
			return true, nil
		}
		m.Body, err = smtp.ParseBody(p.Value)
		return c.offers(extEightBit), err
	case "RET":
		m.Ret, err = smtp.ParseRet(p.Value)
		return c.offers(extDSN), err
	case "ENVID":
		m.EnvID, err = smtp.ParseEnvID(p.Value)
		return c.offers(extDSN), err
	case "AUTH":
		if !c.offers(extAuth) {
			return false, nil
		}
		m.Auth, err = c.mailAuth(p.Value)
		return true, err
	case "XVERP":
		m.VERP = true
		return c.offers(extXVERP) && p.Value == "", nil
	case "SMTPUTF8":
		m.UTF8 = true
		return c.offers(extUTF8) && p.Value == "", nil
	case "PRDR":
		m.prdr = true
		return c.offers(extPRDR) && p.Value == "", nil
	case "REQUIRETLS":
		m.RequireTLS = true
		return c.offers(extRequireTLS) && p.Value == "", nil
	}
	return false, nil
}

// begin starts a transaction, if the limits, QMGR and SMAR let it. The reply is zero
// then.
func (c *session) begin(m mailArgs) smtp.Reply {
	s := c.srv
	tx := &transaction{
		discard: c.policy.discard, refusal: c.policy.refusal,
		env:  &msg.Envelope{Session: c.id, Arrival: time.Now(), Client: c.client, Mail: m.Mail},
		prdr: m.prdr,
	}
	if m.UTF8 { // RFC 6531 section 4.3: UTF8SMTP, UTF8SMTPS, UTF8SMTPA, UTF8SMTPSA
		tx.env.Client.Protocol = "UTF8" + strings.TrimPrefix(c.client.Protocol, "E")
	}
	c.note.tx = tx
	if s.cfg.MessageSizeMax > 0 && m.Size > s.cfg.MessageSizeMax {
		return content.ReplyTooBig
	}
	c.count.transactions++
	if exceeds(c.count.transactions, s.cfg.Limits.Transactions) {
		return replyTooManyTransacts
	}
	a, err := ask(&c.asks, s.deps.Ports.Admit, s.cfg.ModuleTimeout, msg.AdmitQ{
		Kind: msg.NewTransaction, Server: s.cfg.ID, Client: c.client.IP, Session: c.id, Size: m.Size,
		Relay: c.policy.relays,
	})
	if err != nil {
		c.emit(slog.LevelWarn, "transaction not admitted", slog.Any("error", err))
		return replyDown
	}
	if !a.Reply.IsZero() {
		return a.Reply
	}
	tx.env.TA, tx.inlineMax = a.ID, a.InlineMax
	c.tx = tx
	if r := c.checkSections(condition.AtMail, smtp.Path{}, nil); !r.IsZero() {
		return r
	}
	return c.checkMail()
}

// checkMail asks SMAR about the sender, unless it is <> or the session was checked
// with quick: (README 3.12.2).
func (c *session) checkMail() smtp.Reply {
	tx := c.tx
	if r := c.checkSender(); !r.IsZero() || tx.env.Mail.From.IsNull() || c.policy.quick {
		return r
	}
	v, err := c.check(msg.CheckQ{Stage: msg.StageMail})
	if err != nil {
		return replyDown
	}
	tx.marks = v.Marks
	switch v.Action {
	case msg.Reject:
		if c.srv.cfg.Flags.DelayChecks && !v.Quick {
			if tx.refusal.reply.IsZero() {
				tx.refusal = refusal{reply: v.Reply, by: v.Decision()}
			}
			return smtp.Reply{}
		}
		c.note.by = v.Decision()
		return v.Reply
	case msg.Discard:
		tx.discard = true
		c.logDiscard(v.Decision(), msg.StageMail)
	case msg.Accept:
		if v.Quick {
			tx.refusal = refusal{} // quick:ok for the sender overrides (README 3.9.3)
		}
	}
	return smtp.Reply{}
}
