package msg

import (
	"io"
	"net/netip"
	"time"

	"meta1/mta/smtp"
)

// Envelope is an accepted transaction: sender, recipients and where it came from.
// It does not change after Commit.
type Envelope struct {
	TA      smtp.ID // the transaction (ss_ta)
	Session smtp.ID // the session (ss_se); zero for mail that the queue made itself
	Arrival time.Time
	Client  Client
	Mail    Mail
	Rcpts   []Rcpt
	// Expanded: the recipients came out of an alias and are not looked up as one again.
	Expanded bool
}

// Client is what is known of the SMTP client of a session.
type Client struct {
	IP       netip.Addr // zero if the client came over a Unix socket
	Port     uint16
	Helo     string // argument of EHLO or HELO, as sent
	Name     string // verified host name with trailing dot, or "" (README 3.9.3)
	Resolve  string // ok, no, tempptr, tempa, or "" when not looked up
	Protocol string // SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA (RFC 3848)
}

// Mail is the MAIL command: the reverse-path and its parameters.
type Mail struct {
	From  smtp.Path
	Size  int64  // SIZE= as the client declared it (RFC 1870); 0 if absent
	Body  string // BODY=: "", "7BIT" or "8BITMIME" (RFC 6152)
	Ret   string // RET=: "", "FULL" or "HDRS" (RFC 3461)
	EnvID string // ENVID=, xtext as sent (RFC 3461)
	UTF8  bool   // SMTPUTF8 (RFC 6531)
	VERP  bool   // XVERP (README 3.14)
}

// Rcpt is a RCPT command: the forward-path and its parameters.
type Rcpt struct {
	To     smtp.Path
	Notify string // NOTIFY= as sent, upper case, or "" (RFC 3461)
	ORcpt  string // ORCPT= as sent, or "" (RFC 3461)
}

// Body is the content of a message: header and body with CRLF line ends, without
// dot-stuffing, and with our Received: header on top. It may be read by several
// goroutines at once.
type Body interface {
	// Size is the number of bytes.
	Size() int64
	// Bytes is the whole content if it is in memory, else nil. It must not be changed.
	Bytes() []byte
	// Open gives a reader over the content. The caller closes it.
	Open() (io.ReadCloser, error)
}

// ContentWriter takes the content of one transaction that is too large for memory.
type ContentWriter interface {
	io.Writer
	// Commit makes the content durable, and with it the envelope, from which it can be
	// sent if the databases are lost: the file is synced and closed, then its directory
	// is synced. After an error the content is gone, and nothing may be tried again on
	// the same file.
	Commit(e *Envelope) error
	// Abort removes what was written. It does nothing after Commit.
	Abort()
}

// ContentStore makes content files (the CDB). Create fails if ta has one already.
type ContentStore interface {
	Create(ta smtp.ID) (ContentWriter, error)
}
