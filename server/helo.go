package server

import (
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// ehlo is EHLO (RFC 5321 section 4.1.1.1).
func (c *session) ehlo(arg string) smtp.Reply {
	if r := c.hello(arg, "ESMTP"); !r.IsZero() {
		return r
	}
	return c.ehloReply()
}

// helo is HELO.
func (c *session) helo(arg string) smtp.Reply {
	if r := c.hello(arg, "SMTP"); !r.IsZero() {
		return r
	}
	return c.srv.heloReply
}

// hello begins the session anew. The reply is zero if it may go on.
func (c *session) hello(arg, protocol string) smtp.Reply {
	arg = strings.Trim(arg, " \t")
	c.note.helo = arg
	if r := c.checkHelo(arg); !r.IsZero() {
		return r
	}
	before, esmtp := c.client, c.esmtp
	c.esmtp = protocol == "ESMTP"
	c.client.Helo, c.client.Protocol = arg, c.protocol()
	if c.srv.cfg.Flags.Access {
		if r := c.checkSession(msg.StageEhlo); !r.IsZero() {
			c.client, c.esmtp = before, esmtp
			return r
		}
	}
	c.dropTransaction() // EHLO resets (RFC 5321 section 4.1.4)
	if r := c.filterHelo(); !r.IsZero() {
		c.client, c.esmtp = before, esmtp
		return r
	}
	c.received = c.received[:0]
	c.enter(phaseReady)
	if before.Helo == "" { // the first: repeating it leads nowhere
		c.progress()
	}
	return smtp.Reply{}
}

// checkHelo checks the argument of EHLO and HELO. Without strict_EHLO_checks it may
// be any word of printable ASCII, since much software sends underscores and worse.
func (c *session) checkHelo(arg string) smtp.Reply {
	if arg == "" {
		return replyNeedHelo
	}
	if c.srv.cfg.Flags.StrictEHLO && smtp.CheckHelo(arg) != nil {
		return replyBadHelo
	}
	if len(arg) > smtp.DomainMax {
		return replyBadHelo
	}
	for _, b := range []byte(arg) {
		if b <= ' ' || b > '~' {
			return replyBadHelo
		}
	}
	if strings.EqualFold(arg, c.srv.deps.Hostname) && !c.from.local && !c.policy.quick {
		c.note.stat = "Identity_Theft"
		return replyTheft
	}
	return smtp.Reply{}
}
