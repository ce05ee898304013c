package submit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// replyMax bounds all that the server may say, in bytes.
const replyMax = 16 << 20

// dialogue is one SMTP session. The first error ends it.
type dialogue struct {
	nc      net.Conn
	text    *textproto.Reader
	timeout time.Duration
	offers  map[string]bool // keywords of the reply to EHLO
	trace   io.Writer       // nil: nobody wants to see it
}

// show shows a line of the dialogue.
func (d *dialogue) show(prefix, line string) {
	if d.trace != nil {
		_, _ = io.WriteString(d.trace, prefix+printable(line)+"\n")
	}
}

// open connects to the server and says hello. end ends the connection.
func open(ctx context.Context, o Options) (d *dialogue, end func(), err error) {
	network := "tcp"
	if strings.Contains(o.Addr, "/") {
		network = "unix"
	}
	dialCtx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	nc, err := o.Dial(dialCtx, network, o.Addr)
	if err != nil {
		return nil, nil, fail(ExTempFail, "connecting to %s: %w", o.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	end = func() {
		stop()
		_ = nc.Close() // what counts was answered before
	}
	d = &dialogue{nc: nc, timeout: o.Timeout, trace: o.Trace, text: textproto.NewReader(bufio.NewReader(io.LimitReader(nc, replyMax)))}
	if err := d.hello(o.Hostname); err != nil {
		end()
		return nil, nil, err
	}
	return d, end, nil
}

// send hands the message to the server.
func send(ctx context.Context, o Options, sender smtp.Path, rcpts []smtp.Path, content []byte) error {
	d, end, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer end()
	if err := d.envelope(o, sender, rcpts, content); err != nil {
		return err
	}
	if _, err := d.command("DATA", 3); err != nil {
		return err
	}
	if err := d.write(stuff(content)); err != nil {
		return err
	}
	if _, err := d.reply(2); err != nil {
		return err
	}
	_ = d.write([]byte("QUIT\r\n")) // the message is safe, whatever becomes of this
	return nil
}

// Verdict is what the server says of a recipient.
type Verdict struct {
	Rcpt smtp.Path
	Err  error // an *Error; nil: it would be taken
}

// Verify asks the server about recipients without sending anything (sendmail -bv). The error is an *Error; then there
// are no verdicts, such as for a sender that the server refuses.
func Verify(ctx context.Context, o Options) ([]Verdict, error) {
	setDefaults(&o)
	sender, err := o.sender()
	if err != nil {
		return nil, err
	}
	rcpts, err := o.recipients(&message{})
	if err != nil {
		return nil, err
	}
	d, end, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := d.envelope(o, sender, nil, nil); err != nil {
		return nil, err
	}
	var all []Verdict
	for _, to := range rcpts {
		_, err := d.command("RCPT TO:"+to.String(), 2)
		var reply smtp.Reply
		if err != nil && !errors.As(err, &reply) {
			return nil, err // the connection is gone
		}
		if err != nil {
			err = asRecipient(to, err)
		}
		all = append(all, Verdict{to, err})
	}
	_ = d.write([]byte("RSET\r\nQUIT\r\n"))
	return all, nil
}

// hello reads the greeting and says EHLO, or HELO to an old server.
func (d *dialogue) hello(host string) error {
	if _, err := d.reply(2); err != nil {
		return err
	}
	r, err := d.command("EHLO "+host, 2)
	if err != nil {
		var reply smtp.Reply
		if errors.As(err, &reply) && reply.Permanent() {
			_, err = d.command("HELO "+host, 2)
		}
		return err
	}
	d.offers = map[string]bool{}
	for _, line := range r.Lines[1:] {
		word, _, _ := strings.Cut(line, " ")
		d.offers[strings.ToUpper(word)] = true
	}
	return nil
}

// envelope sends MAIL and RCPT. One refused recipient is the end: all or nobody.
func (d *dialogue) envelope(o Options, sender smtp.Path, rcpts []smtp.Path, content []byte) error {
	mail := "MAIL FROM:" + sender.String()
	if d.offers["SIZE"] {
		mail += " SIZE=" + strconv.Itoa(len(content))
	}
	if d.offers["8BITMIME"] && smtp.Has8Bit(content) {
		mail += " BODY=8BITMIME"
	}
	if utf8Needed(sender, rcpts) {
		if !d.offers["SMTPUTF8"] {
			return fail(ExUnavailable, "an address is not ASCII, and the server does not take that (SMTPUTF8)")
		}
		mail += " SMTPUTF8"
	}
	if o.VERP {
		if !d.offers["XVERP"] {
			return fail(ExUnavailable, "the server offers no XVERP (flag xverp of section smtps)")
		}
		mail += " XVERP"
	}
	notify := ""
	if d.offers["DSN"] {
		mail += param(" RET=", o.Ret) + param(" ENVID=", o.EnvID)
		notify = param(" NOTIFY=", o.Notify)
	}
	if _, err := d.command(mail, 2); err != nil {
		return err
	}
	for _, to := range rcpts {
		if _, err := d.command("RCPT TO:"+to.String()+notify, 2); err != nil {
			return asRecipient(to, err)
		}
	}
	return nil
}

func param(name, value string) string {
	if value == "" {
		return ""
	}
	return name + value
}

func utf8Needed(sender smtp.Path, rcpts []smtp.Path) bool {
	if !isASCII(sender.Addr()) {
		return true
	}
	for _, p := range rcpts {
		if !isASCII(p.Addr()) {
			return true
		}
	}
	return false
}

// asRecipient names the recipient in an error, and makes EX_NOUSER of an unknown one.
func asRecipient(to smtp.Path, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	exit := e.Exit
	var r smtp.Reply
	if errors.As(err, &r) && r.Permanent() && (r.Enhanced[1] == 1 || r.Enhanced.IsZero() && r.Code == 550) {
		exit = ExNoUser
	}
	return fail(exit, "recipient %s: %w", to, e.Err)
}

// command sends a line and reads its reply, whose class must be want.
func (d *dialogue) command(line string, want int) (smtp.Reply, error) {
	d.show(">>> ", line)
	if err := d.write([]byte(line + "\r\n")); err != nil {
		return smtp.Reply{}, err
	}
	return d.reply(want)
}

func (d *dialogue) write(b []byte) error {
	err := d.nc.SetWriteDeadline(time.Now().Add(d.timeout))
	if err == nil {
		_, err = d.nc.Write(b)
	}
	if err != nil {
		return fail(ExTempFail, "writing to the server: %w", err)
	}
	return nil
}

// reply reads a reply. One of another class than want is an error that wraps it.
func (d *dialogue) reply(want int) (smtp.Reply, error) {
	if err := d.nc.SetReadDeadline(time.Now().Add(d.timeout)); err != nil {
		return smtp.Reply{}, fail(ExTempFail, "reading from the server: %w", err)
	}
	code, text, err := d.text.ReadResponse(0)
	var perr *textproto.Error
	if err != nil && !errors.As(err, &perr) {
		return smtp.Reply{}, fail(ExTempFail, "reading from the server: %w", err)
	}
	r := makeReply(code, text)
	d.show("", r.String())
	if code/100 == want {
		return r, nil
	}
	switch {
	case r.Code == 552 || r.Enhanced[1] == 6:
		return r, fail(ExDataErr, "server refuses: %w", r)
	case r.Permanent():
		return r, fail(ExUnavailable, "server refuses: %w", r)
	}
	return r, fail(ExTempFail, "server refuses for now: %w", r)
}

// makeReply makes a Reply of what textproto read.
func makeReply(code int, text string) smtp.Reply {
	r := smtp.Reply{Code: code}
	for line := range strings.SplitSeq(text, "\n") {
		if e, rest, ok := smtp.ParseEnhancedCode(line); ok && int(e[0]) == code/100 {
			r.Enhanced, line = e, rest
		}
		r.Lines = append(r.Lines, printable(line))
	}
	return r
}

// printable makes text of a server safe for a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// stuff doubles dots at the start of lines and adds the final one (RFC 5321 section
// 4.5.2). The content ends in CRLF.
func stuff(content []byte) []byte {
	b := make([]byte, 0, len(content)+len(content)/64+8)
	for line := range bytes.Lines(content) {
		if line[0] == '.' {
			b = append(b, '.')
		}
		b = append(b, line...)
	}
	return append(b, ".\r\n"...)
}
