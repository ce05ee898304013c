package server

import (
	"strconv"

	"meta1/mta/smtp"
)

// extension is one row of the table of extensions: a number below 32, so that a set of
// them is a word.
type extension uint8

// The extensions in the order in which EHLO names them.
const (
	extPipelining extension = iota // RFC 2920
	extSize                        // RFC 1870
	extEnhanced                    // RFC 2034
	extDSN                         // RFC 3461
	extEightBit                    // RFC 6152
	extXVERP                       // README 3.10 item 4p
	extUTF8                        // SMTPUTF8, RFC 6531
	extSTARTTLS                    // RFC 3207
	extChunking                    // RFC 3030
	extBinary                      // BINARYMIME, RFC 3030
	extAuth                        // RFC 4954
	extPRDR                        // README 3.10 item 17
	extRequireTLS                  // RFC 8689
	extLimits                      // RFC 9422
	extXClient                     // XCLIENT_README of Postfix
	extXForward                    // XFORWARD_README of Postfix
	extHelp
	extCount // how many there are
)

// extensionSet is a set of extensions.
type extensionSet uint32

func (s extensionSet) has(e extension) bool { return s&(1<<e) != 0 }

// extensionRow says when an extension is there, and what EHLO says of it.
type extensionRow struct {
	// keyword of EHLO. In lower case it is the name by which session_features can turn the
	// extension off, or on.
	keyword string
	// flag reports whether section smtps asks for it; nil: it need not. session_features goes
	// before it.
	flag func(*Flags) bool
	// when reports whether a session can have it; nil: always. It is asked anew each time,
	// so that it may look at the state of the session.
	when func(*session) bool
	// args is what follows the keyword, with its space before it; nil: nothing.
	args func(*session) string
}

// extensionTable is the one place that says which extension a session has: the reply to
// EHLO is made of it, and a parameter or a command of an extension is known only if
// session.offers says so.
func extensionTable() [extCount]extensionRow {
	return [extCount]extensionRow{
		extPipelining: {keyword: "PIPELINING"},
		extSize:       {keyword: "SIZE", args: (*session).sizeArgs},
		extEnhanced:   {keyword: "ENHANCEDSTATUSCODES"},
		extDSN:        {keyword: "DSN"},
		extEightBit:   {keyword: "8BITMIME", flag: func(f *Flags) bool { return f.EightBitMIME }},
		extXVERP:      {keyword: "XVERP", flag: func(f *Flags) bool { return f.XVERP }},
		extUTF8:       {keyword: "SMTPUTF8", flag: func(f *Flags) bool { return f.UTF8 }, when: (*session).takesUTF8},
		extSTARTTLS:   {keyword: verbStartTLS, when: (*session).lacksTLS},
		extChunking:   {keyword: "CHUNKING", flag: func(f *Flags) bool { return f.Chunking }},
		extBinary:     {keyword: smtp.BodyBinary, flag: func(f *Flags) bool { return f.Binary }, when: (*session).takesChunks},
		extAuth:       {keyword: verbAuth, when: (*session).hasAuth, args: (*session).authArgs},
		extPRDR:       {keyword: "PRDR", flag: func(f *Flags) bool { return f.PRDR }},
		extRequireTLS: {keyword: "REQUIRETLS", flag: func(f *Flags) bool { return f.RequireTLS }, when: func(c *session) bool { return c.client.TLS != nil }},
		extLimits:     {keyword: "LIMITS", when: func(c *session) bool { return c.limitArgs() != "" }, args: (*session).limitArgs},
		extXClient:    {keyword: "XCLIENT", when: (*session).mayXClient, args: (*session).xclientArgs},
		extXForward:   {keyword: "XFORWARD", when: (*session).mayXForward, args: (*session).xforwardArgs},
		extHelp:       {keyword: "HELP"},
	}
}

// offers reports whether the client may use an extension: it has said EHLO, and the
// session has the extension.
func (c *session) offers(e extension) bool { return c.esmtp && c.has(e) }

// has reports whether the reply to EHLO names an extension.
func (c *session) has(e extension) bool {
	row, asked := &c.srv.extensions[e], true
	if row.flag != nil {
		asked = row.flag(&c.srv.cfg.Flags)
	}
	if k := c.policy.class; k != nil && k.granted.has(e) {
		asked = true
	}
	return asked && !c.policy.denies(e) && (row.when == nil || row.when(c))
}

// ehloReply is the reply to EHLO (RFC 5321 section 4.1.1.1).
func (c *session) ehloReply() smtp.Reply {
	lines := make([]string, 1, 1+int(extCount))
	lines[0] = c.srv.deps.Hostname
	for e := range extCount {
		if !c.has(e) {
			continue
		}
		row := &c.srv.extensions[e]
		line := row.keyword
		if row.args != nil {
			line += row.args(c)
		}
		lines = append(lines, line)
	}
	return smtp.Reply{Code: 250, Lines: lines}
}

// takesUTF8: RFC 6531 section 3.1 demands 8BITMIME beside SMTPUTF8.
func (c *session) takesUTF8() bool { return c.has(extEightBit) }

// takesChunks: RFC 3030 section 3 demands CHUNKING beside BINARYMIME.
func (c *session) takesChunks() bool { return c.has(extChunking) }

// sizeArgs is the largest message that is taken, if there is a limit.
func (c *session) sizeArgs() string {
	if c.srv.cfg.MessageSizeMax <= 0 {
		return ""
	}
	return " " + strconv.FormatInt(c.srv.cfg.MessageSizeMax, 10)
}

// limitArgs are the limits that LIMITS has a word for (RFC 9422 section 4).
func (c *session) limitArgs() (args string) {
	l := &c.srv.cfg.Limits
	if l.Transactions > 0 {
		args = " MAILMAX=" + strconv.Itoa(l.Transactions)
	}
	if l.RecipientsTransaction > 0 {
		args += " RCPTMAX=" + strconv.Itoa(l.RecipientsTransaction)
	}
	return args
}
