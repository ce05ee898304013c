package dsn

import (
	"cmp"
	"time"

	"meta1/mta/smtp"
)

// Bounds of what is kept of a reply.
const (
	replyLinesMax = 100
	replyTextMax  = 8 << 10 // octets
)

// subject says what the DSN is about: the first of failure, delay and success that
// it tells.
func (n *Notification) subject() string {
	return [...]string{"Undeliverable mail", "Delayed mail", "Delivery report"}[n.class()]
}

func (n *Notification) class() int {
	c := Delivered.class()
	for _, f := range n.Failures {
		c = min(c, f.Kind.class())
	}
	return c
}

// failed reports whether a recipient has failed for good.
func (n *Notification) failed() bool { return n.class() == Failed.class() }

// writeText writes the part for people as README 10.6 shows it. rich adds, in the
// MIME formats, what a person may want to know beyond it.
func (n *Notification) writeText(w *writer, rich bool) {
	switch n.class() {
	case Failed.class():
		w.line("A mail from you could not be delivered. See below for details.")
	case Delayed.class():
		w.line("A mail from you could not be delivered yet. See below for details.")
		w.line("It is still being tried: you need not send it again.")
	default:
		w.line("A mail from you was delivered or handed on, as you asked to be told.")
		w.line("See below for details.")
	}
	w.line("The mail had the id ", n.TA, " at ", n.Hostname, ".")
	for i := range n.Failures {
		w.line("")
		n.Failures[i].writeText(w, rich)
	}
}

// writeText writes one recipient and the reason.
func (f *Failure) writeText(w *writer, rich bool) {
	rcpt := f.Rcpt.String() + "... "
	switch f.Kind {
	case Delivered:
		w.line(rcpt, "delivered")
		return
	case Relayed:
		w.line(rcpt, "handed on to ", cmp.Or(f.Remote, "another host"), ", which will not report whether it is delivered")
		return
	case Expanded:
		w.line(rcpt, "handed on to the addresses for which it stands")
		return
	}
	code, lines := codeText(f), keptLines(f.Reply)
	w.line(code, " ", rcpt, lines[0])
	for _, l := range lines[1:] {
		w.line(code, " ", l)
	}
	if f.During != "" {
		w.line("during ", f.During)
	}
	if f.Expired {
		w.line("given up: maximum time in queue exceeded")
	}
	if rich && f.Remote != "" {
		w.line("according to ", f.Remote)
	}
	if why := explain(f.status()); rich && why != "" {
		w.line(why)
	}
	if f.Kind == Delayed && !f.RetryUntil.IsZero() {
		w.line("will be tried until ", f.RetryUntil.Format(time.RFC1123Z))
	}
}

// codeText is the reply's code, or the status if there was no reply.
func codeText(f *Failure) string {
	if f.Reply.IsZero() {
		return f.status().String()
	}
	return smtp.Reply{Code: f.Reply.Code, Enhanced: f.Reply.Enhanced}.String()
}

// keptLines are the lines of a reply, at least one, as far as they are kept. If
// some are left out the last one says so.
func keptLines(r smtp.Reply) []string {
	if len(r.Lines) == 0 {
		return []string{""}
	}
	size := 0
	for i, l := range r.Lines {
		if i == replyLinesMax || size+len(l) > replyTextMax {
			kept := append([]string(nil), r.Lines[:i]...)
			if i == 0 {
				kept = []string{l[:cut(l, replyTextMax)]}
			}
			return append(kept, "(the rest of this reply is left out)")
		}
		size += len(l)
	}
	return r.Lines
}

// status is the recipient's enhanced code (RFC 3463): that of the reply, or, if it
// has none, the class of its code. The class must fit the kind: a reply such as
// "550 4.2.1" is wrong in its enhanced code, and a delay cannot be permanent.
func (f *Failure) status() smtp.EnhancedCode {
	class := uint16(5)
	switch {
	case f.Kind == Delayed:
		class = 4
	case f.Kind != Failed:
		class = 2
	case f.Reply.Temporary(), f.Reply.IsZero() && f.Reply.Enhanced[0] == 4:
		class = 4
	}
	e := f.Reply.Enhanced
	if class == 2 && e[0] != 2 {
		e = smtp.EnhancedCode{}
	}
	e[0] = class
	return e
}

// explain says in plain words what a code of RFC 3463 means, or "" if the code
// says too little.
func explain(e smtp.EnhancedCode) string {
	switch [2]uint16{e[1], e[2]} {
	case [2]uint16{1, 1}, [2]uint16{1, 3}, [2]uint16{1, 6}:
		return "There is no such address, or not any more. Please check how it is written."
	case [2]uint16{1, 2}, [2]uint16{1, 10}:
		return "The domain behind the @ does not exist, or takes no mail. Please check how it is written."
	case [2]uint16{2, 1}:
		return "The mailbox is switched off."
	case [2]uint16{2, 2}:
		return "The recipient's mailbox is full."
	case [2]uint16{2, 3}, [2]uint16{3, 4}:
		return "The mail is larger than the recipient may receive."
	case [2]uint16{4, 1}, [2]uint16{4, 2}:
		return "The recipient's host does not answer, or the connection broke."
	case [2]uint16{4, 3}, [2]uint16{4, 4}:
		return "It could not be found out which host takes mail for the recipient."
	case [2]uint16{4, 6}:
		return "The mail went in a circle: the hosts for the recipient are set up wrongly."
	case [2]uint16{4, 7}:
		return "The time in which the mail was to be delivered is over."
	}
	if e[1] == 7 {
		return "The mail was refused by a rule of the recipient's host, or its sender was."
	}
	return ""
}
