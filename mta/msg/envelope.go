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
	Resolve  string // ok, no, tempptr, tempa, or "" when not looked up; before StageConnect: of XCLIENT
	Protocol string // SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA (RFC 3848)
	// TLS is nil on a connection in plain text. It is not stored with an envelope: who reads
	// one that was stored does not know it.
	TLS *TLS
	// Auth is who the client is by AUTH (RFC 4954). It is not stored with an envelope.
	Auth Auth
}

// Auth is the result of AUTH; the zero value says that there was none.
type Auth struct {
	Mechanism string // such as "PLAIN" (auth_type of README 8.5.1)
	User      string // the account (auth_authen)
}

// Mail is the MAIL command: the reverse-path and its parameters.
type Mail struct {
	From  smtp.Path
	Size  int64  // SIZE= as the client declared it (RFC 1870); 0 if absent
	Body  string // BODY=: "", smtp.Body7Bit, smtp.Body8Bit (RFC 6152) or smtp.BodyBinary (RFC 3030)
	Ret   string // RET=: "", "FULL" or "HDRS" (RFC 3461)
	EnvID string // ENVID=, xtext as sent (RFC 3461)
	UTF8  bool   // SMTPUTF8 (RFC 6531)
	VERP  bool   // XVERP (README 3.14)
	// RequireTLS: REQUIRETLS was given: the message goes on by TLS alone (RFC 8689).
	RequireTLS bool
	// TLSOptional is the sender's wish that no policy of the recipient's side keep the
	// message from going out without TLS (RFC 8689 section 3); not with RequireTLS.
	TLSOptional bool
	// Auth is AUTH= of a client that was trusted to say so, decoded, or "<>" (RFC 4954
	// section 5; auth_author of README 8.5.1); "" if it was not given. It is not stored.
	Auth string
}

// Binary reports whether the body of the message is any octets, not lines (RFC 3030 section
// 3). Such content must never be sent by DATA as it is: where its lines end, and where it
// ends itself, is for nobody to say. Its header has lines all the same.
func (m *Mail) Binary() bool { return m.Body == smtp.BodyBinary }

// Rcpt is a RCPT command: the forward-path and its parameters.
type Rcpt struct {
	To     smtp.Path
	Notify string // NOTIFY= as sent, upper case, or "" (RFC 3461)
	ORcpt  string // ORCPT= as sent, or "" (RFC 3461)
}

// Body is the content of a message: header and body with CRLF line ends, except in the body
// if Mail.Binary says so, without dot-stuffing, and with our Received: header on top. It may be read by several
// goroutines at once.
type Body interface {
	// Size is the number of bytes.
	Size() int64
	// Bytes is the whole content if it is in memory, else nil. It must not be changed. The
	// next call may give nil, because the memory was given up; what was given stays valid.
	Bytes() []byte
	// Open gives a reader over the content. The caller closes it.
	Open() (io.ReadCloser, error)
	// Shape is what is known of the content; of what was read from the disk that is nothing.
	Shape() Shape
}

// ContentWriter takes the content of one transaction that is too large for memory.
type ContentWriter interface {
	io.Writer
	// Top has readers find head in place of the first drop bytes of what is written, which
	// must be written by the time of Commit; head is not changed afterwards. What is known
	// only at the end of a message comes so before it: its signature, for one. At most
	// MaxTop bytes; only the last call before Commit counts.
	Top(drop int64, head []byte) error
	// ReadAt reads what was written so far.
	io.ReaderAt
	// Detach gives the content up as that of the transaction, so that another one can be
	// created in its place. What was written can still be read until Abort; Write and Commit
	// fail. After a crash nothing is left of it.
	Detach() error
	// Commit makes the content durable, and with it the envelope, from which it can be
	// sent if the databases are lost: the file is synced and closed, then its directory
	// is synced. After an error the content is gone, and nothing may be tried again on
	// the same file.
	Commit(e *Envelope) error
	// Abort removes what was written. It does nothing after Commit.
	Abort()
}

// MaxTop bounds the head that a ContentWriter takes, in bytes.
const MaxTop = 16 << 20

// ContentStore makes content files (the CDB). Create fails if ta has one already.
type ContentStore interface {
	Create(ta smtp.ID) (ContentWriter, error)
}
