package server

import (
	"log/slog"
	"strconv"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// ehlo is EHLO (RFC 5321 section 4.1.1.1).
func (c *session) ehlo(arg string) smtp.Reply {
	return c.hello(arg, "ESMTP", c.srv.ehloReply)
}

// helo is HELO.
func (c *session) helo(arg string) smtp.Reply {
	return c.hello(arg, "SMTP", c.srv.heloReply)
}

func (c *session) hello(arg, protocol string, ok smtp.Reply) smtp.Reply {
	arg = strings.Trim(arg, " \t")
	if r := c.checkHelo(arg); !r.IsZero() {
		return r
	}
	before := c.client
	c.client.Helo, c.client.Protocol = arg, protocol
	if c.srv.cfg.Flags.Access {
		if r := c.checkSession(msg.StageEhlo); !r.IsZero() {
			c.emit(slog.LevelInfo, "ehlo", slog.String("ehlo", arg), slog.String("reply", r.String()))
			c.client = before
			return r
		}
	}
	c.esmtp = protocol == "ESMTP"
	c.received = c.received[:0]
	c.tx = nil // EHLO resets (RFC 5321 section 4.1.4)
	c.enter(phaseReady)
	return ok
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
	if strings.EqualFold(arg, c.srv.deps.Hostname) && !c.local && !c.policy.quick {
		c.emit(slog.LevelInfo, "ehlo", slog.String("ehlo", arg), slog.String("stat", "Identity_Theft"))
		return replyTheft
	}
	return smtp.Reply{}
}

// extensions is the reply to EHLO.
func (s *Server) extensions() smtp.Reply {
	size := "SIZE"
	if s.cfg.MessageSizeMax > 0 {
		size += " " + strconv.FormatInt(s.cfg.MessageSizeMax, 10)
	}
	lines := []string{s.deps.Hostname, "PIPELINING", size, "ENHANCEDSTATUSCODES", "DSN"}
	if s.cfg.Flags.EightBitMIME {
		lines = append(lines, "8BITMIME")
	}
	if s.cfg.Flags.XVERP {
		lines = append(lines, "XVERP")
	}
	return smtp.Reply{Code: 250, Lines: append(lines, "HELP")}
}
