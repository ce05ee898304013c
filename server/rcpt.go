package server

import (
	"log/slog"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
)

// seenFrom is the number of recipients from which on duplicates are found by a map.
const seenFrom = 8

// inVainMin is the least number of RCPT commands in a transaction that may add no
// recipient without being invalid.
const inVainMin = 1000

// rcpt is RCPT (RFC 5321 section 4.1.1.3).
func (c *session) rcpt(arg string) smtp.Reply {
	rcpt, r := c.parseRcpt(arg)
	if r.IsZero() {
		c.note.rcpt = rcpt.To
		c.count.rcpts++
		c.tx.rcpts++
		if r = c.rcptLimits(); !r.IsZero() {
			return r
		}
		r = c.addRcpt(rcpt)
	}
	switch {
	case r.Accepted():
		c.tx.taken++
	case r.Permanent() && !isBad(r.Code) && c.invalid():
		return replyTooInvalid
	case r.Temporary() && c.inVain():
		return replyTooManyRcpts
	}
	return r
}

// rcptLimits checks that there may be one more recipient. Only accepted ones count
// (README 3.10, items 15 and 16). A client that goes on long after it was told that
// there are too many is sent away.
func (c *session) rcptLimits() smtp.Reply {
	l := &c.srv.cfg.Limits
	if !exceeds(c.tx.accepted+1, l.RecipientsTransaction) && !exceeds(c.count.recipients+1, l.RecipientsSession) {
		return smtp.Reply{}
	}
	c.tx.surplus++
	if exceeds(c.tx.surplus, l.RecipientsTransaction) {
		return replyTooManyRcpts
	}
	return replyManyRcpts
}

// inVain counts a RCPT that added no recipient and is no invalid address: the reply was
// 4yz, or the recipient was in the envelope already. It reports whether there were too
// many; without that a transaction could go on forever.
func (c *session) inVain() bool {
	c.tx.inVain++
	return c.tx.inVain > max(inVainMin, c.srv.cfg.Limits.RecipientsTransaction)
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
		c.note.add(slog.String("input", arg))
		return rcpt, replySyntax
	}
	var err error
	if rcpt.To, rest, err = smtp.CutForwardPath(rest, c.tx.charset()); err != nil {
		c.note.add(slog.String("input", arg))
		return rcpt, badAddress(err, "5.1.3")
	}
	c.keepParams(rest)
	r = c.params(rest, c.tx.charset(), func(p smtp.Param) (bool, error) { return c.rcptParam(&rcpt, p) })
	if !r.IsZero() {
		c.note.add(slog.String("input", arg))
	}
	return rcpt, r
}

// rcptParam stores one parameter of RCPT.
func (c *session) rcptParam(rcpt *msg.Rcpt, p smtp.Param) (known bool, err error) {
	switch p.Name {
	case "NOTIFY":
		rcpt.Notify, err = smtp.ParseNotify(p.Value)
		return c.offers(extDSN), err
	case "ORCPT":
		rcpt.ORcpt, err = smtp.ParseORcpt(p.Value, c.tx.charset())
		return c.offers(extDSN), err
	}
	return false, nil
}

// addRcpt adds a recipient if SMAR lets it. One that is there already, with the same
// parameters, is accepted and not added again.
func (c *session) addRcpt(rcpt msg.Rcpt) smtp.Reply {
	tx := c.tx
	key := rcptKey(rcpt.To)
	if tx.has(key, rcpt) {
		if c.inVain() {
			return replyTooManyRcpts
		}
		c.tookRcpt(key, rcpt, true, false)
		return replyRecipient
	}
	if r := c.checkSections(condition.AtRcpt, rcpt.To, nil); !r.IsZero() {
		return r
	}
	r, discard := c.checkRcpt(rcpt)
	if !r.IsZero() {
		_, _ = c.filterRcpt(rcpt.To, r)
		return r
	}
	if len(c.filter.set.policies) > 0 && !discard {
		if r, discard = c.askPolicies(rcpt.To); !r.IsZero() {
			_, _ = c.filterRcpt(rcpt.To, r)
			return r
		}
	}
	r, unwanted := c.filterRcpt(rcpt.To, smtp.Reply{})
	if !r.IsZero() {
		return r
	}
	discard = discard || unwanted
	c.count.recipients++
	tx.accepted++
	if !discard {
		tx.add(key, rcpt)
	}
	c.tookRcpt(key, rcpt, false, discard)
	if c.phase != phaseRcpt {
		c.enter(phaseRcpt)
	}
	c.progress()
	return replyRecipient
}

// checkRcpt asks SMAR about a recipient; it always does, because SMAR decides on
// relaying. The reply is zero if it is accepted.
func (c *session) checkRcpt(rcpt msg.Rcpt) (r smtp.Reply, discard bool) {
	if c.isDoubleBounce(rcpt.To) {
		c.note.by = c.tx.refusal.by
		if c.tx.refusal.reply.IsZero() {
			c.logDiscard(msg.Step{Check: "double_bounce_address", Key: rcpt.To.Addr()}, msg.StageRcpt)
		}
		return c.tx.refusal.reply, true
	}
	v, err := c.check(msg.CheckQ{Stage: msg.StageRcpt, Rcpt: rcpt})
	if err != nil {
		return replyDown, false
	}
	switch {
	case v.Action == msg.Reject && v.Greylisted && c.srv.cfg.Flags.DelayGreylistingError:
		c.tx.greylist = refusal{v.Reply, v.Decision(), rcpt.To}
		return smtp.Reply{}, false // the recipient is accepted for the sake of callbacks
	case v.Action == msg.Reject:
		c.note.by = v.Decision()
		return v.Reply, false
	case !c.tx.refusal.reply.IsZero() && !v.Quick:
		// A delayed refusal can be overridden by quick:ok or quick:relay (README 3.9.3).
		c.note.by = c.tx.refusal.by
		return c.tx.refusal.reply, false
	case v.Action == msg.Discard:
		c.logDiscard(v.Decision(), msg.StageRcpt)
		c.tx.discard = c.tx.discard || v.Quick
		return smtp.Reply{}, true
	}
	return smtp.Reply{}, false
}

// isDoubleBounce reports a bounce to the double bounce address, which is discarded (README
// 3.8, item 6), or bounces of bounces could go round between two hosts. QMGR's own do not
// come this way.
func (c *session) isDoubleBounce(to smtp.Path) bool {
	d := &c.srv.deps.DoubleBounce
	return c.tx.env.Mail.From.IsNull() && strings.EqualFold(to.Local, d.Local) && to.LowerDomain() == d.LowerDomain()
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
