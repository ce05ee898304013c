package msg

import (
	"net"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// Operation is something that an operator does to recipients in the queue.
type Operation string

// The operations.
const (
	OpHold    Operation = "hold"    // keep it until it is released
	OpRelease Operation = "release" // let what is held go on
	OpFlush   Operation = "flush"   // try it now
	OpRequeue Operation = "requeue" // forget its attempts and try it now
	OpRemove  Operation = "remove"  // drop it without a notice
	OpExpire  Operation = "expire"  // give it up: the sender gets a bounce
	// OpReroute has the routes of what is not held looked up anew and tried now, also of what waits
	// in the active queue for a host. It is not for operators: a drain needs it.
	OpReroute Operation = "reroute"
)

// OperateQ asks QMGR to do something to all recipients that Select matches.
type OperateQ struct {
	Op     Operation
	Select Selection
}

// OperateA answers OperateQ.
type OperateA struct {
	// Done is the number of recipients to which it was done.
	Done int
	// Busy is the number of matching recipients that were left alone, because an
	// attempt for them runs or they are being written down.
	Busy int
	// Err says why it ended early; "" if it did not.
	Err string
}

// Selection chooses recipients: all given criteria must match. The zero Selection
// matches all.
type Selection struct {
	TA     smtp.ID       // of this transaction
	RcptID string        // with TA: only its recipient of this id (smtp.RcptID)
	Sender string        // address, or @domain, compared without regard to case; "<>" for the null sender
	Rcpt   string        // the same for the recipient
	Domain string        // domain of the recipient
	Hop    string        // destination of the last route as mailq shows it, or the host, address or domain in it
	MinAge time.Duration // at least this long in the queue
	MaxAge time.Duration // at most this long; 0: no limit
	Reason string        // a part of why it waits, such as the last reply, without regard to case
	Held   bool          // only what is held
	Unheld bool          // only what is not
}

// Standing is what the queue knows of a recipient besides its envelope.
type Standing struct {
	Dest   string // destination of its last route
	Reason string // last reply, or why there was no attempt
	Held   bool
}

// Matches tells whether a recipient is chosen. now is the time against which its
// age counts.
func (s *Selection) Matches(e *Envelope, index int, at Standing, now time.Time) bool {
	age := max(now.Sub(e.Arrival), 0) // the clock may have been set back
	r := e.Rcpts[index].To
	return (s.TA.IsZero() || s.TA == e.TA) &&
		(s.RcptID == "" || s.RcptID == smtp.RcptID(e.TA, index)) &&
		(s.Sender == "" || sameAddress(s.Sender, e.Mail.From)) &&
		(s.Rcpt == "" || sameAddress(s.Rcpt, r)) &&
		(s.Domain == "" || sameDomain(s.Domain, r)) &&
		(s.Hop == "" || sameHop(s.Hop, at.Dest)) &&
		age >= s.MinAge && (s.MaxAge == 0 || age <= s.MaxAge) &&
		(s.Reason == "" || strings.Contains(strings.ToLower(at.Reason), strings.ToLower(s.Reason))) &&
		(!s.Held || at.Held) && (!s.Unheld || !at.Held)
}

func sameAddress(want string, p smtp.Path) bool {
	want = strings.TrimSuffix(strings.TrimPrefix(want, "<"), ">")
	if domain, ok := strings.CutPrefix(want, "@"); ok {
		return sameDomain(domain, p)
	}
	if at := strings.LastIndexByte(want, '@'); at >= 0 {
		return strings.EqualFold(want[:at], p.Local) && sameDomain(want[at+1:], p)
	}
	return strings.EqualFold(want, p.Addr())
}

// sameDomain compares by A-labels, so that both spellings of a domain name it.
func sameDomain(want string, p smtp.Path) bool {
	return smtp.Path{Domain: want}.LowerDomain() == p.LowerDomain()
}

// sameHop compares with a destination such as mx:example.org or esmtp:[192.0.2.1]:26, or
// with a part of it: what follows the protocol, with or without port and brackets.
func sameHop(want, dest string) bool {
	_, place, _ := strings.Cut(dest, ":")
	host := place
	if h, _, err := net.SplitHostPort(place); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return strings.EqualFold(want, dest) || strings.EqualFold(want, place) || strings.EqualFold(want, host)
}
