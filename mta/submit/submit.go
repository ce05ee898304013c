package submit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// The exit statuses of sysexits(3) that a failed submission has.
const (
	ExUsage       = 64 // wrong command line, no recipients
	ExDataErr     = 65 // the message or an address is malformed or too large
	ExNoUser      = 67 // the server knows no such recipient
	ExUnavailable = 69 // the server refuses for good
	ExIOErr       = 74 // the input cannot be read
	ExTempFail    = 75 // the server cannot be reached, or refuses for now
)

// Error is a failed submission. Nothing was sent to anybody.
type Error struct {
	Exit int // exit status
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause; it is an smtp.Reply if the server refused.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the exit status for the result of Submit or ParseArgs: 0 for nil.
func ExitCode(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Exit
	}
	return ExTempFail
}

func fail(exit int, format string, args ...any) error {
	return &Error{Exit: exit, Err: fmt.Errorf(format, args...)}
}

// Options say what is submitted and how. Input, Addr and Hostname are required.
type Options struct {
	Input io.Reader
	// Rcpts are addresses as a person writes them: "user", "user@host",
	// "Name <user@host>", or several with commas.
	Rcpts []string
	// FromHeader takes recipients from To, Cc and Bcc too (sendmail -t), or from their
	// Resent- forms if there are any.
	FromHeader bool
	// IgnoreDots: a line of a single dot is content (-i, -oi).
	IgnoreDots bool
	// Sender is the envelope sender (-f): "<>" is the null sender, "" is User.
	Sender string
	// FullName is the name in a From field that is added (-F).
	FullName string
	// User is the login name of the caller.
	User string
	// Hostname completes addresses without a domain, and is our name in EHLO.
	Hostname string
	// Notify, Ret and EnvID are the DSN parameters (-N, -R, -V; RFC 3461). They are
	// sent if the server offers DSN.
	Notify, Ret, EnvID string
	// VERP asks for a sender that names the recipient in each copy (-XV). The server must offer XVERP.
	VERP bool
	// Verbose is -v, and Trace then gets the dialogue; nil for nowhere.
	Verbose bool
	Trace   io.Writer
	// Addr is the server: "host:port", or the path of a Unix socket.
	Addr string
	// Dial opens the connection; nil is net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds each step of the dialogue; 0 is 5 minutes.
	Timeout time.Duration
	// SizeMax bounds the input in bytes; 0 is 100 MiB.
	SizeMax int64
	// Now is the time for Date and Message-ID; zero is the present.
	Now time.Time
}

// Submit reads the message, completes it and hands it to the server. An error is an
// *Error; the message was not accepted for anybody then, except that after a
// connection lost behind the final dot it may have been.
func Submit(ctx context.Context, o Options) error {
	p, err := Prepare(o)
	if err != nil {
		return err
	}
	return p.Send(ctx)
}

// Prepared is a message that is complete and can be sent.
type Prepared struct {
	Sender  smtp.Path
	Rcpts   []smtp.Path
	Content []byte // with CRLF

	o Options
}

// Prepare reads the message from the input and completes it. An error is an *Error. Addr need not be set yet (To).
func Prepare(o Options) (*Prepared, error) {
	setDefaults(&o)
	if err := o.checkDSN(); err != nil {
		return nil, err
	}
	sender, err := o.sender()
	if err != nil {
		return nil, err
	}
	m, err := read(o)
	if err != nil {
		return nil, err
	}
	rcpts, err := o.recipients(m)
	if err != nil {
		return nil, err
	}
	m.complete(o, sender)
	return &Prepared{Sender: sender, Rcpts: rcpts, Content: m.bytes(), o: o}, nil
}

// To sets the server.
func (p *Prepared) To(addr string) { p.o.Addr = addr }

// DSN are the parameters of RFC 3461, in the form in which they are sent.
func (p *Prepared) DSN() (notify, ret, envid string) { return p.o.Notify, p.o.Ret, p.o.EnvID }

// Send hands the message to the server. Its error is that of Submit.
func (p *Prepared) Send(ctx context.Context) error {
	return send(ctx, p.o, p.Sender, p.Rcpts, p.Content)
}

func setDefaults(o *Options) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.SizeMax <= 0 {
		o.SizeMax = 100 << 20
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
}

// checkDSN checks the DSN parameters and brings them into the form of RFC 3461.
func (o *Options) checkDSN() error {
	for _, p := range []struct {
		name  string
		value *string
		parse func(string) (string, error)
	}{{"-N", &o.Notify, smtp.ParseNotify}, {"-R", &o.Ret, smtp.ParseRet}, {"-V", &o.EnvID, smtp.ParseEnvID}} {
		if *p.value == "" {
			continue
		}
		v, err := p.parse(*p.value)
		if err != nil {
			return fail(ExUsage, "option %s %q: %w", p.name, *p.value, err)
		}
		*p.value = v
	}
	return nil
}

// sender is the envelope sender.
func (o *Options) sender() (smtp.Path, error) {
	text := o.Sender
	switch text {
	case "<>":
		return smtp.Path{}, nil
	case "":
		if text = o.User; text == "" {
			return smtp.Path{}, fail(ExUsage, "no sender: neither -f nor a login name")
		}
	}
	list, err := ParseAddresses(text)
	if err != nil || len(list) != 1 {
		return smtp.Path{}, fail(ExUsage, "bad sender address %q", text)
	}
	p, err := qualify(list[0], o.Hostname)
	if err != nil {
		return smtp.Path{}, fail(ExUsage, "bad sender address %q: %w", text, err)
	}
	return p, nil
}

// recipients are those of the command line and, with FromHeader, of the header; each
// once.
func (o *Options) recipients(m *message) ([]smtp.Path, error) {
	var rcpts []smtp.Path
	seen := map[smtp.Path]bool{}
	add := func(text, where string, exit int) error {
		list, err := ParseAddresses(text)
		if err != nil {
			return fail(exit, "%s: %q: %w", where, text, err)
		}
		for _, addr := range list {
			p, err := qualify(addr, o.Hostname)
			if err != nil {
				return fail(exit, "%s: bad address %q: %w", where, addr, err)
			}
			if !seen[p] {
				seen[p] = true
				rcpts = append(rcpts, p)
			}
		}
		return nil
	}
	for _, text := range o.Rcpts {
		if err := add(text, "recipient", ExUsage); err != nil {
			return nil, err
		}
	}
	if o.FromHeader {
		for _, f := range m.recipientFields() {
			if err := add(f.value(), "header field "+f.name(), ExDataErr); err != nil {
				return nil, err
			}
		}
	}
	if len(rcpts) == 0 {
		return nil, fail(ExUsage, "no recipients")
	}
	return rcpts, nil
}

// qualify makes a path of an address; one without a domain gets host.
func qualify(addr, host string) (smtp.Path, error) {
	if !isASCII(addr) {
		return utf8Path(addr, host)
	}
	if p, err := smtp.ParseMailbox(addr, smtp.ASCII); err == nil {
		return p, nil
	}
	if !strings.Contains(addr, "@") {
		return smtp.ParseMailbox(addr+"@"+host, smtp.ASCII)
	}
	return smtp.ParseMailbox(addr, smtp.ASCII)
}

// utf8Path takes an address beyond ASCII (RFC 6531). The server is the one that
// judges it; here it must only be safe in a command.
func utf8Path(addr, host string) (smtp.Path, error) {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		addr, at = addr+"@"+host, len(addr)
	}
	for _, r := range addr {
		if r <= ' ' || r >= 0x7f && r < 0xa0 || strings.ContainsRune(`<>()[]\,;:"`, r) || r == '\uFFFD' {
			return smtp.Path{}, errors.New("bad character in address")
		}
	}
	if at == 0 || at == len(addr)-1 {
		return smtp.Path{}, errors.New("local part or domain is empty")
	}
	return smtp.Path{Local: addr[:at], Domain: addr[at+1:]}, nil
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// messageID makes a new Message-ID.
func messageID(now time.Time, host string) string {
	return "<" + now.UTC().Format("20060102150405.") + rand.Text() + "@" + host + ">"
}
