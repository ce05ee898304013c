// Package dsn builds delivery status notifications. It is pure: values in, the
// bytes of a message out.
package dsn

import (
	"bytes"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// Failure is one recipient that could not be delivered.
type Failure struct {
	Rcpt  smtp.Path
	Reply smtp.Reply
	// During names the step that failed, for example "RCPT" (README 10.6); "" if
	// there was none.
	During string
}

// Notification is all that a DSN tells.
type Notification struct {
	Hostname string
	ID       string    // transaction id of the DSN itself
	Now      time.Time // for Date:
	To       smtp.Path // sender of the message that failed
	TA       string    // transaction id of that message
	Failures []Failure
	// Original is the message as far as it is to be returned.
	Original []byte
	// HeaderOnly says that only the header of the message is returned.
	HeaderOnly bool
}

// Text builds a DSN in MeTA1's plain format (README 10.6).
func Text(n Notification) []byte {
	var b bytes.Buffer
	line := func(parts ...string) {
		for _, p := range parts {
			b.WriteString(p)
		}
		b.WriteString("\r\n")
	}
	line("From: Mailer-Daemon@", n.Hostname)
	line("To: ", clean(n.To.String()))
	line("Date: ", n.Now.Format(time.RFC1123Z))
	line("Message-Id: <", n.ID, "@", n.Hostname, ">")
	line("Subject: Undeliverable mail")
	line("Auto-Submitted: auto-replied")
	line("")
	line("A mail from you could not be delivered. See below for details.")
	line("The mail had the id ", n.TA, " at ", n.Hostname, ".")
	for _, f := range n.Failures {
		line("")
		writeFailure(line, f)
	}
	line("")
	if n.HeaderOnly {
		line("The header of your mail follows.")
	} else {
		line("Your mail follows.")
	}
	line("")
	b.Write(n.Original)
	return b.Bytes()
}

// writeFailure prints a recipient and the reason as README 10.6 shows them. All
// lines of the reply are kept.
func writeFailure(line func(...string), f Failure) {
	code := clean(smtp.Reply{Code: f.Reply.Code, Enhanced: f.Reply.Enhanced}.String())
	first, rest := "", []string(nil)
	if len(f.Reply.Lines) > 0 {
		first, rest = f.Reply.Lines[0], f.Reply.Lines[1:]
	}
	line(code, " ", clean(f.Rcpt.String()), "... ", clean(first))
	for _, l := range rest {
		line(code, " ", clean(l))
	}
	if f.During != "" {
		line("during ", f.During)
	}
}

// lineMax keeps lines within RFC 5322's 998 characters, with room for a prefix.
const lineMax = 900

// clean makes foreign text fit for a line of the message: control characters
// become '?', and too long text is cut.
func clean(s string) string {
	if len(s) > lineMax {
		s = s[:lineMax] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// Header is the header of a message: everything before its first empty line, that
// line excluded, at most limit bytes, cut at the end of a line.
func Header(content []byte, limit int) []byte {
	if i := bytes.Index(content, []byte("\r\n\r\n")); i >= 0 {
		content = content[:i+2]
	}
	if len(content) <= limit {
		return content
	}
	return content[:bytes.LastIndexByte(content[:limit], '\n')+1]
}
