// Package dsn builds delivery status notifications: it says for which recipient
// one is due (Due, Success, Expand), which recipients share one (Merge), and makes
// the message (Build). It is pure: values in, bytes out.
//
// There are three formats (README 3.8, item 5b): MeTA1's plain text (README 10.6),
// the same text with the returned mail as a MIME part, and the report of RFC 3464
// in the multipart/report of RFC 6522, with RFC 6533's forms for SMTPUTF8.
//
// Replies, addresses and names in a notification come from outside. They reach the
// message only through a writer that makes control characters harmless and breaks
// long lines, so that none of them can forge a line, a field or a part.
//
// # Sources
//
// The wire details were compared with the texts of RFC 3461, 3464, 6522, 6533 and
// 3834 and with IANA's registries of DSN types and of enhanced status codes. Where
// they leave a choice:
//
//   - From: is README 10.6's Mailer-Daemon, not a person (RFC 3464 section 2).
//   - A recipient whose time is over is reported as failed with the 4.x code of the
//     last reply, as RFC 3464 section 2.3.3 and Postfix have it.
//   - RFC 6533's 8-bit forms are used only for a sender whose address needs SMTPUTF8;
//     for any other the 7-bit forms get through everywhere (its section 4.5).
//   - report-type is delivery-status also with message/global-delivery-status, which
//     RFC 6533 section 4.4 calls equivalent, for the sake of readers that look for it.
//
// Programs of others read what is built here, and each field that Postfix's DSN of
// the same failure has is compared with ours: TestDSNParsers and TestDSNBesidePostfix
// of e2e.
package dsn

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"meta1/mta/sevenbit"
	"meta1/mta/smtp"
)

// Format is the form of a notification (README 3.8, item 5b).
type Format uint8

// The formats.
const (
	Plain Format = iota // README 10.6
	MIME                // MIME_Format: multipart/mixed, text and the returned mail
	RFC                 // RFC_Format: multipart/report of RFC 3464
)

// Failure is one recipient and what became of it: a failure, unless Kind says
// otherwise.
type Failure struct {
	Kind  Kind
	Rcpt  smtp.Path
	ORcpt string // ORCPT= as sent (RFC 3461), or ""
	// Reply is the last reply for the recipient, all its lines.
	Reply smtp.Reply
	// During names the step that failed, for example "RCPT" (README 10.6); "" if
	// there was none.
	During string
	// Remote is the host that gave the reply: a host name, an address literal or the
	// path of a socket. "" if the reply is our own.
	Remote      string
	LastAttempt time.Time // of a delivery; zero if there was none
	RetryUntil  time.Time // Delayed: when the recipient is given up; zero if unknown
	// Expired says that the recipient was given up only because its time was over.
	// Reply is then the last one, as a rule a temporary one, and its code is told:
	// RFC 3464 section 2.3.3 has a failure with the status 4.x for this, and RFC 3463
	// section 3.5 wants the code of the actual problem rather than x.4.7.
	Expired bool
}

// End is why the recipient was given up, for the log: the last reply, or that its time was
// over (RFC 3463 section 3.5: X.4.7).
func (f *Failure) End() smtp.Reply {
	if !f.Expired {
		return f.Reply
	}
	return smtp.NewReply(550, "5.4.7", "maximum time in queue exceeded; the last reply was: "+f.Reply.String())
}

// Notification is all that a DSN tells.
type Notification struct {
	Format   Format
	Hostname string    // of this MTA
	ID       string    // transaction id of the DSN itself
	Now      time.Time // for Date:
	To       smtp.Path // sender of the message it is about
	TA       string    // transaction id of that message
	EnvID    string    // ENVID= as sent (RFC 3461), or ""
	Arrival  time.Time // when the message arrived; zero if unknown
	// ReceivedFrom and ReceivedIP are the client's HELO name and address, if known.
	ReceivedFrom string
	ReceivedIP   netip.Addr
	// Failures are the recipients, at least one. Merge says which share a DSN.
	Failures []Failure
	// Original is the message as far as it is to be returned, nil for nothing.
	Original []byte
	// HeaderOnly says that only the header of the message is returned. If no
	// recipient has failed that is so in any case (RFC 3461 section 4.3), and also
	// if the message is larger than ReturnMax, or has in it what no MIME part may
	// have: lines of more than 998 octets, NUL, CR or LF alone.
	HeaderOnly bool
	// UTF8 says that the message came with SMTPUTF8, so that its header is in UTF-8.
	// That does not make a notification one that needs SMTPUTF8: only a To that is
	// not ASCII does. To any other the way back may lack it, and then what is not
	// ASCII must be encoded (RFC 6533 section 4.5). Nobody can know that beforehand.
	UTF8 bool
}

// Limits of what a notification returns, in octets.
const (
	ReturnMax = 1 << 20  // a whole message
	HeaderMax = 64 << 10 // a header
)

// Message is a notification ready to be sent.
type Message struct {
	Content []byte
	// EightBit: it may have 8-bit lines, so send it with BODY=8BITMIME. That is so only
	// with UTF8, for hosts with SMTPUTF8 have 8BITMIME, too (RFC 6531 section 3.1); all
	// else is encoded, because the hosts on the way back are not known.
	EightBit bool
	UTF8     bool // has addresses or headers in UTF-8: send it with SMTPUTF8
}

var (
	// ErrNullSender says that a DSN was asked for a message without a sender, which
	// is most often a DSN itself. There must be none (RFC 5321 section 6.1).
	ErrNullSender = errors.New("no notification for the null sender")
	// ErrNoRecipient says that there is nothing to notify of.
	ErrNoRecipient = errors.New("no recipient to notify of")
)

// Build makes the message in the format that n asks for. Errors: ErrNullSender,
// ErrNoRecipient.
func Build(n Notification) (Message, error) {
	switch {
	case n.To.IsNull():
		return Message{}, ErrNullSender
	case len(n.Failures) == 0:
		return Message{}, ErrNoRecipient
	case n.Format == Plain:
		return n.plain(), nil
	}
	return n.multipart(), nil
}

// utf8 reports whether the notification may hold UTF-8 outside of encoded parts.
func (n *Notification) utf8() bool { return !isASCII(n.To.Addr()) }

// writeHeader writes the fields that all formats share.
func (n *Notification) writeHeader(w *writer) {
	w.field("From", "Mailer-Daemon@"+n.Hostname)
	w.field("To", n.To.String())
	w.field("Date", n.Now.Format(time.RFC1123Z))
	w.field("Message-Id", "<"+n.ID+"@"+n.Hostname+">")
	w.field("Subject", n.subject())
	w.field("Auto-Submitted", "auto-replied")
}

// plain makes the format of README 10.6. That has no MIME fields; they are added
// only if something in it is not ASCII, for without them it would be undefined.
func (n *Notification) plain() Message {
	var body writer
	original, whole := n.original()
	n.writeText(&body, false)
	if len(original) > 0 {
		body.line("")
		if whole {
			body.line("Your mail follows.")
		} else {
			body.line("The header of your mail follows.")
		}
		body.line("")
		body.raw(original)
	}
	m := Message{UTF8: n.utf8(), EightBit: n.utf8()}
	w := writer{b: make([]byte, 0, len(body.b)+1024)}
	n.writeHeader(&w)
	text := body.b
	if !isASCII(text) {
		w.field("MIME-Version", "1.0")
		w.field("Content-Type", "text/plain; charset="+sevenbit.Charset(text))
		encoding := "8bit"
		if !m.UTF8 {
			encoding = "quoted-printable"
		}
		w.field("Content-Transfer-Encoding", encoding)
		text = encode(encoding, text)
	}
	w.line("")
	m.Content = append(w.b, text...)
	return m
}

// Header is the header of a message: everything before its first empty line, that
// line excluded, at most limit bytes, cut at the end of a line.
func Header(content []byte, limit int) []byte {
	if bytes.HasPrefix(content, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(content, []byte("\r\n\r\n")); i >= 0 {
		content = content[:i+2]
	}
	if len(content) <= limit {
		return content
	}
	return content[:bytes.LastIndexByte(content[:limit], '\n')+1]
}
