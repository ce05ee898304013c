package server

import (
	"errors"
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// mail is MAIL (RFC 5321 section 4.1.1.2).
func (c *session) mail(arg string) smtp.Reply {
	m, r := c.parseMail(arg)
	if r.IsZero() {
		r = c.begin(m)
	}
	if r.IsZero() {
		c.enter(phaseMail)
		return replySender
	}
	if r.Code != 421 && !isBad(r.Code) && c.fruitless() {
		r = replyTooIdle
	}
	c.endTransaction()
	return r
}

// parseMail reads the argument of MAIL.
func (c *session) parseMail(arg string) (m msg.Mail, r smtp.Reply) {
	rest, ok := smtp.CutKeyword(arg, "FROM:", c.srv.cfg.Flags.AllowSpaceAfterColon)
	if !ok || rest == "" || rest[0] != '<' {
		c.emit(slog.LevelInfo, "mail", slog.String("stat", replySyntax.String()), slog.String("input", arg))
		return m, replySyntax
	}
	var err error
	if m.From, rest, err = smtp.CutReversePath(rest); err != nil {
		c.emit(slog.LevelInfo, "mail", slog.Any("error", err), slog.String("input", arg))
		return m, badAddress(err, "5.1.7")
	}
	return m, c.params(rest, func(p smtp.Param) (bool, error) { return c.mailParam(&m, p) })
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
func (c *session) params(s string, set func(smtp.Param) (known bool, err error)) smtp.Reply {
	var seen [16]string
	for n := 0; s != ""; n++ {
		p, rest, err := smtp.NextParam(s)
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
func (c *session) mailParam(m *msg.Mail, p smtp.Param) (known bool, err error) {
	switch p.Name {
	case "SIZE":
		m.Size, err = smtp.ParseSize(p.Value)
	case "BODY":
		if !c.srv.cfg.Flags.EightBitMIME {
			return false, nil
		}
		m.Body, err = smtp.ParseBody(p.Value)
	case "RET":
		m.Ret, err = smtp.ParseRet(p.Value)
	case "ENVID":
		m.EnvID, err = smtp.ParseEnvID(p.Value)
	case "XVERP":
		m.VERP = true
		return c.srv.cfg.Flags.XVERP && p.Value == "", nil
	default:
		return false, nil
	}
	return true, err
}

// begin starts a transaction, if the limits, QMGR and SMAR let it. The reply is zero
// then.
func (c *session) begin(m msg.Mail) smtp.Reply {
	s := c.srv
	if s.cfg.MessageSizeMax > 0 && m.Size > s.cfg.MessageSizeMax {
		return replyTooBig
	}
	c.count.transactions++
	if exceeds(c.count.transactions, s.cfg.Limits.Transactions) {
		return replyTooManyTransacts
	}
	a, err := ask(&c.asks, s.deps.Ports.Admit, s.cfg.ModuleTimeout, msg.AdmitQ{
		Kind: msg.NewTransaction, Server: s.cfg.ID, Client: c.client.IP, Size: m.Size,
	})
	if err != nil {
		c.emit(slog.LevelWarn, "transaction not admitted", slog.Any("error", err))
		return replyDown
	}
	if !a.Reply.IsZero() {
		c.emit(slog.LevelInfo, "mail", slog.Any("mail", m.From), slog.String("reply", a.Reply.String()))
		return a.Reply
	}
	c.tx = &transaction{
		inlineMax: a.InlineMax, discard: c.policy.discard, refusal: c.policy.refusal,
		env: &msg.Envelope{
			TA: a.ID, Session: c.id, Arrival: time.Now(), Client: c.client, Mail: m,
		},
	}
	return c.checkMail()
}

// checkMail asks SMAR about the sender, unless it is <> or the session was checked
// with quick: (README 3.12.2).
func (c *session) checkMail() smtp.Reply {
	tx := c.tx
	if tx.env.Mail.From.IsNull() || c.policy.quick {
		return smtp.Reply{}
	}
	v, err := c.check(msg.CheckQ{Stage: msg.StageMail})
	if err != nil {
		return replyDown
	}
	tx.marks = v.Marks
	switch v.Action {
	case msg.Reject:
		if c.srv.cfg.Flags.DelayChecks && !v.Quick {
			if tx.refusal.IsZero() {
				tx.refusal = v.Reply
			}
			return smtp.Reply{}
		}
		c.emit(slog.LevelInfo, "mail", slog.Any("ss_ta", tx.env.TA),
			slog.Any("mail", tx.env.Mail.From), slog.String("reply", v.Reply.String()))
		return v.Reply
	case msg.Discard:
		tx.discard = true
	case msg.Accept:
		if v.Quick {
			tx.refusal = smtp.Reply{} // quick:ok for the sender overrides (README 3.9.3)
		}
	}
	return smtp.Reply{}
}
