package server

import (
	"bytes"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/smtp"
	"meta1/server/wire"
)

// Lengths of command lines with CR LF (RFC 5321 section 4.5.3.1.4), and what the
// extensions' parameters add to them.
const (
	commandMax = 512
	// SIZE (RFC 1870: 26), BODY (RFC 6152: 17), RET and ENVID (RFC 3461: 9 and 107),
	// XVERP (6), AUTH (RFC 4954: 500), SMTPUTF8 (RFC 6531: 10).
	mailMax = commandMax + 26 + 17 + 9 + 107 + 6 + 500 + 10
	// NOTIFY and ORCPT (RFC 3461: 500 and, since ORCPT may be that long alone, 35).
	rcptMax = commandMax + 500 + 35
)

// verbFlags say how the loop treats a command.
type verbFlags uint8

const (
	// lastInGroup: the client must wait for the reply (RFC 2920 section 3.1).
	lastInGroup verbFlags = 1 << iota
	// maySync: what the client sends behind it does not matter.
	maySync
	// nop: makes no progress toward a message; limited in a transaction and between them.
	nop
	// nopOfSession: the same, but it ends a transaction, and so counts between them.
	nopOfSession
	// payload: octets that are no commands follow the command line.
	payload
)

// The names of rows that the program itself refers to.
const (
	verbMail     = "MAIL"
	verbQuit     = "QUIT"
	verbData     = "DATA"
	verbBdat     = "BDAT"
	verbStartTLS = "STARTTLS"
	verbAuth     = "AUTH"
	verbOther    = "other" // whatever is in no row
)

const (
	anyPhase   = 1<<phaseConnected | 1<<phaseReady | 1<<phaseMail | 1<<phaseRcpt | 1<<phaseChunk
	idlePhases = 1<<phaseConnected | 1<<phaseReady
	txPhases   = 1<<phaseMail | 1<<phaseRcpt
)

// verb is one row of the command table.
type verb struct {
	name    string
	phases  int // set of phases in which it is allowed
	lineMax int // bytes with CR LF
	flags   verbFlags
	handle  func(c *session, arg string) smtp.Reply
	replies [6]prometheus.Counter // by class
}

// verbTable is the protocol. Rows that an extension adds come with it.
func verbTable(f Flags, withAuth bool) []verb {
	mailPhases := idlePhases
	if f.RequireEHLO {
		mailPhases = 1 << phaseReady
	}
	var extensions []verb
	if withAuth {
		extensions = append(extensions, verb{name: verbAuth, phases: 1 << phaseReady, lineMax: authCommandMax, flags: lastInGroup, handle: (*session).auth})
	}
	return append(extensions, []verb{
		{name: "EHLO", phases: anyPhase, lineMax: commandMax, flags: lastInGroup | nopOfSession, handle: (*session).ehlo},
		{name: "HELO", phases: anyPhase, lineMax: commandMax, flags: lastInGroup | nopOfSession, handle: (*session).helo},
		{name: verbMail, phases: mailPhases, lineMax: mailMax, handle: (*session).mail},
		{name: "RCPT", phases: txPhases, lineMax: rcptMax, handle: (*session).rcpt},
		{name: verbData, phases: txPhases, lineMax: commandMax, flags: lastInGroup, handle: (*session).data},
		{name: verbStartTLS, phases: 1 << phaseReady, lineMax: commandMax, flags: lastInGroup, handle: (*session).starttls},
		{name: verbBdat, phases: anyPhase, lineMax: commandMax, flags: maySync | payload, handle: (*session).bdat},
		{name: "XCLIENT", phases: idlePhases, lineMax: wire.LineMax, flags: lastInGroup | nopOfSession, handle: (*session).xclient},
		{name: "XFORWARD", phases: idlePhases, lineMax: wire.LineMax, flags: nopOfSession, handle: (*session).xforward},
		{name: "RSET", phases: anyPhase, lineMax: commandMax, flags: nopOfSession, handle: (*session).rset},
		{name: "NOOP", phases: anyPhase, lineMax: commandMax, flags: lastInGroup | nop, handle: (*session).noop},
		{name: "VRFY", phases: anyPhase, lineMax: commandMax + 10, flags: lastInGroup | nop, handle: (*session).vrfy},
		{name: "EXPN", phases: anyPhase, lineMax: commandMax, flags: lastInGroup | nop, handle: (*session).expn},
		{name: "HELP", phases: anyPhase, lineMax: commandMax, flags: nop, handle: (*session).help},
		{name: verbQuit, phases: anyPhase, lineMax: commandMax, flags: maySync, handle: (*session).quit},
		// Words of HTTP: a browser was made to speak to us. The session ends, so that
		// the body of its request is not taken for commands.
		{name: "GET", phases: anyPhase, lineMax: wire.LineMax, flags: maySync, handle: (*session).foreign},
		{name: "POST", phases: anyPhase, lineMax: wire.LineMax, flags: maySync, handle: (*session).foreign},
		{name: "CONNECT", phases: anyPhase, lineMax: wire.LineMax, flags: maySync, handle: (*session).foreign},
		{name: verbOther, phases: anyPhase, lineMax: commandMax, flags: maySync, handle: (*session).unknown},
	}...)
}

// verbNameMax is the length of the longest name in the table.
const verbNameMax = 8

// indexVerbs makes the table, in which rows are found by name.
func (s *Server) indexVerbs() {
	s.verbs = map[string]*verb{}
	rows := verbTable(s.cfg.Flags, s.auth != nil)
	for i := range rows {
		rows[i].replies = s.metrics.replyCounters(rows[i].name)
		s.verbs[rows[i].name] = &rows[i]
	}
}

// verb is the row of that name, which must be one of the constants.
func (s *Server) verb(name string) *verb { return s.verbs[name] }

// find splits a command line into its row and its argument. White space at the end
// of the line is dropped (RFC 5321 section 4.1.1).
func (s *Server) find(line []byte) (v *verb, arg []byte) {
	line = bytes.TrimRight(line, " \t")
	word := line
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		word, arg = line[:i], line[i+1:]
	}
	var upper [verbNameMax]byte
	if len(word) > len(upper) {
		return s.verbs[verbOther], arg
	}
	for i, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	if v = s.verbs[string(upper[:len(word)])]; v == nil {
		v = s.verbs[verbOther]
	}
	return v, arg
}
