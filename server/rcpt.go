package server

import (
	"log/slog"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// seenFrom is the number of recipients from which on duplicates are found by a map.
const seenFrom = 8

// rcpt is RCPT (RFC 5321 section 4.1.1.3).
func (c *session) rcpt(arg string) smtp.Reply {
	if r := c.rcptLimits(); !r.IsZero() {
		return r
	}
	rcpt, r := c.parseRcpt(arg)
	if r.IsZero() {
		r = c.addRcpt(rcpt)
	}
	if r.Permanent() && !isBad(r.Code) && c.invalid() {
		return replyTooInvalid
	}
	return r
}

// rcptLimits counts a RCPT command against the limits on recipients. A client that
// goes on long after it was told that there are too many is sent away.
func (c *session) rcptLimits() smtp.Reply {
	l := &c.srv.cfg.Limits
	c.tx.attempts++
	if exceeds(c.tx.attempts, 2*l.RecipientsTransaction) {
		return replyTooManyRcpts
	}
	if exceeds(c.tx.attempts, l.RecipientsTransaction) ||
		exceeds(c.count.recipients+1, l.RecipientsSession) {
		return replyManyRcpts
	}
	return smtp.Reply{}
}

// invalid counts a refused recipient and reports whether there were too many.
func (c *session) invalid() bool {
	l := &c.srv.cfg.Limits
	c.count.invalid++
	c.tx.invalid++
	return exceeds(c.count.invalid, l.InvalidSession) || exceeds(c.tx.invalid, l.InvalidTransaction)
}

// parseRcpt reads the argument of RCPT.
func (c *session) parseRcpt(arg string) (rcpt msg.Rcpt, r smtp.Reply) {
	rest, ok := smtp.CutKeyword(arg, "TO:", c.srv.cfg.Flags.AllowSpaceAfterColon)
	if !ok || rest == "" || rest[0] != '<' {
		c.emit(slog.LevelInfo, "rcpt", slog.String("stat", replySyntax.String()), slog.String("input", arg))
		return rcpt, replySyntax
	}
	var err error
	if rcpt.To, rest, err = smtp.CutForwardPath(rest); err != nil {
		c.emit(slog.LevelInfo, "rcpt", slog.Any("error", err), slog.String("input", arg))
		return rcpt, badAddress(err, "5.1.3")
	}
	return rcpt, c.params(rest, func(p smtp.Param) (known bool, err error) {
		switch p.Name {
		case "NOTIFY":
			rcpt.Notify, err = smtp.ParseNotify(p.Value)
		case "ORCPT":
			rcpt.ORcpt, err = smtp.ParseORcpt(p.Value)
		default:
			return false, nil
		}
		return true, err
	})
}

// addRcpt adds a recipient if SMAR lets it. One that is there already, with the same
// parameters, is accepted and not added again.
func (c *session) addRcpt(rcpt msg.Rcpt) smtp.Reply {
	tx := c.tx
	key := rcptKey(rcpt.To)
	if tx.has(key, rcpt) {
		return replyRecipient
	}
	r, discard := c.checkRcpt(rcpt)
	if !r.IsZero() {
		c.emit(slog.LevelInfo, "rcpt", slog.Any("ss_ta", tx.env.TA),
			slog.Any("rcpt", rcpt.To), slog.String("reply", r.String()))
		return r
	}
	c.count.recipients++
	tx.accepted++
	if !discard {
		tx.add(key, rcpt)
	}
	if c.phase != phaseRcpt {
		c.enter(phaseRcpt)
	}
	return replyRecipient
}

// checkRcpt asks SMAR about a recipient; it always does, because SMAR decides on
// relaying. The reply is zero if it is accepted.
func (c *session) checkRcpt(rcpt msg.Rcpt) (r smtp.Reply, discard bool) {
	if c.isDoubleBounce(rcpt.To) {
		return c.tx.refusal, true
	}
	v, err := c.check(msg.CheckQ{Stage: msg.StageRcpt, Rcpt: rcpt})
	if err != nil {
		return replyDown, false
	}
	if v.Action == msg.Reject && v.Greylisted && c.srv.cfg.Flags.DelayGreylistingError {
		c.tx.greylist = v.Reply // the recipient is accepted for the sake of callbacks
		return smtp.Reply{}, false
	}
	if v.Action == msg.Reject {
		return v.Reply, false
	}
	// A delayed refusal can be overridden by quick:ok or quick:relay (README 3.9.3).
	if !c.tx.refusal.IsZero() && !v.Quick {
		return c.tx.refusal, false
	}
	if v.Action == msg.Discard && v.Quick {
		c.tx.discard = true
	}
	return smtp.Reply{}, v.Action == msg.Discard
}

// isDoubleBounce reports a bounce to the default double bounce address, which is
// discarded (README 3.8, item 6). Our own QMGR does not even send it.
func (c *session) isDoubleBounce(to smtp.Path) bool {
	return c.tx.env.Mail.From.IsNull() && strings.EqualFold(to.Local, "doublebounce") &&
		strings.EqualFold(to.Domain, c.srv.deps.Hostname)
}

// has reports whether the same recipient was given before. key is its address with
// the domain in lower case.
func (tx *transaction) has(key string, rcpt msg.Rcpt) bool {
	same := func(old *msg.Rcpt) bool { return old.Notify == rcpt.Notify && old.ORcpt == rcpt.ORcpt }
	if tx.seen != nil {
		i, ok := tx.seen[key]
		return ok && same(&tx.env.Rcpts[i])
	}
	for i := range tx.env.Rcpts {
		old := &tx.env.Rcpts[i]
		if same(old) && rcptKey(old.To) == key {
			return true
		}
	}
	return false
}

// add adds a recipient to the envelope.
func (tx *transaction) add(key string, rcpt msg.Rcpt) {
	rcpts := append(tx.env.Rcpts, rcpt)
	tx.env.Rcpts = rcpts
	switch {
	case len(rcpts) == seenFrom:
		tx.seen = make(map[string]int, 2*seenFrom)
		for i := range rcpts {
			tx.seen[rcptKey(rcpts[i].To)] = i
		}
	case len(rcpts) > seenFrom:
		tx.seen[key] = len(rcpts) - 1
	}
}

func rcptKey(p smtp.Path) string { return p.Local + "@" + p.LowerDomain() }
