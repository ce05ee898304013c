package server

import (
	"strings"
	"unicode/utf8"

	"meta1/mta/smtp"
)

// The commands that need no other module.

// rset is RSET (RFC 5321 section 4.1.1.5).
func (c *session) rset(arg string) smtp.Reply {
	if arg != "" {
		return replyNoArg
	}
	c.endTransaction()
	return replyReset
}

// noop is NOOP (4.1.1.9). Its argument is ignored.
func (c *session) noop(string) smtp.Reply { return replyNoop }

// vrfy is VRFY (4.1.1.6). It tells nothing about users (7.3). What goes beyond ASCII
// needs the parameter SMTPUTF8 (RFC 6531 section 3.7.4.2).
func (c *session) vrfy(arg string) smtp.Reply {
	word := " SMTPUTF8"
	at := len(arg) - len(word)
	declared := at > 0 && strings.EqualFold(arg[at:], word) && c.offers(extUTF8)
	if declared {
		arg = arg[:at]
	}
	switch {
	case arg == "", !utf8.ValidString(arg):
		return replySyntax
	case !declared && !smtp.IsASCII(arg):
		return badAddress(smtp.ErrNonASCII, "5.1.3")
	}
	return replyVrfy
}

// expn is EXPN (4.1.1.7), which would show the members of a list.
func (c *session) expn(string) smtp.Reply { return replyExpn }

// help is HELP (4.1.1.8).
func (c *session) help(string) smtp.Reply { return replyHelp }

// quit is QUIT (4.1.1.10).
func (c *session) quit(arg string) smtp.Reply {
	if arg != "" {
		return replyNoArg
	}
	c.enter(phaseClosed)
	return replyQuit
}

// foreign is a word of another protocol. It ends the session.
func (c *session) foreign(string) smtp.Reply {
	c.enter(phaseClosed)
	return replyForeign
}

// unknown is whatever is in no row.
func (c *session) unknown(string) smtp.Reply { return replyUnknown }
