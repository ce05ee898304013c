package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"meta1/mta/smtp"
)

// What a peer does against the rules of the dialogue.
var (
	// ErrNotAReply: what came is no reply, or hides a second one.
	ErrNotAReply = errors.New("peer sent something that is not an SMTP reply")
	// ErrUnfit is for who uses the connection: the code of a reply is none that its command has.
	ErrUnfit = errors.New("peer's reply does not fit the command")
	// ErrEarly: something was there to be read before we had asked.
	ErrEarly = errors.New("peer sent a reply before its command")
	// ErrInjected is for who uses the connection: something follows the reply to STARTTLS that came
	// without TLS (CVE-2011-0411).
	ErrInjected = errors.New("peer sent something behind its reply to STARTTLS")

	errLineLong  = errors.New("peer sent a reply line that is too long")
	errReplyLong = errors.New("peer sent a reply that is too long")
)

// Fault is the temporary reply for mail whose fate is open when the conversation with a host ended in
// err, and whether the host is to blame. doing says what we were doing. The connection is broken
// from then on.
func (c *Conn) Fault(host, doing string, err error) (r smtp.Reply, hostFailed bool) {
	c.Broken = true
	where := host + " while " + doing
	switch {
	case c.Aborted():
		return smtp.NewReply(451, "4.3.2", "delivery was stopped: conversation with "+where), false
	case IsTimeout(err):
		return smtp.NewReply(451, "4.4.2", "conversation with "+where+" timed out"), true
	case errors.Is(err, ErrUnfit):
		return smtp.NewReply(451, "4.5.0", "protocol error: unexpected reply "+c.Reply.SMTP().String()+" of "+where), true
	case errors.Is(err, ErrNotAReply), errors.Is(err, ErrEarly), errors.Is(err, ErrInjected), errors.Is(err, errLineLong), errors.Is(err, errReplyLong):
		return smtp.NewReply(451, "4.5.0", "protocol error: "+err.Error()+": "+where), true
	}
	return smtp.NewReply(451, "4.4.2", "lost connection with "+where), true
}

// IsTimeout reports that a deadline has passed.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// IsClosed reports that the peer has closed the connection.
func IsClosed(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
