package client

import (
	"context"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// transaction is one MAIL … final dot over one connection. A recipient whose reply
// in the answer is zero is open: not refused yet.
type transaction struct {
	*conn
	ctx    context.Context // of the request
	q      *msg.DeliverQ
	a      *msg.DeliverA
	limits *timeouts
	// withQuit: this is the last transaction of the session, and QUIT may go along
	// with the final dot.
	withQuit bool
	// withhold: the transaction ends before DATA, with these replies; nil for none.
	withhold []smtp.Reply

	open     int // recipients without a reply
	utf8     bool
	mailed   bool // MAIL was accepted
	answered bool // a reply to MAIL other than 421 has come: the connection was alive
	timedOut bool
	go354    bool // DATA was accepted
	dotTried bool // the final dot was given to the system, perhaps in vain
	content  io.ReadCloser
	steps    steps
}

// The commands of the envelope, in their order. A number from 0 on is RCPT for that
// recipient, and the number of recipients is DATA.
const (
	cmdReset = -2
	cmdMail  = -1
)

// run speaks the transaction and fills in the answer.
func (t *transaction) run() {
	t.transactions++
	for i := range t.a.Rcpts {
		if t.a.Rcpts[i].IsZero() {
			t.open++
		}
	}
	t.a.Stage = msg.DeliverMail
	if !t.prepare() {
		t.a.Own = true
		return
	}
	if t.content != nil {
		defer t.content.Close() // it was only read
	}
	err := t.dialogue()
	if err == nil {
		return
	}
	t.timedOut = isTimeout(err)
	t.a.Unknown = t.a.Stage == msg.DeliverDot
	what := doing(t.a.Stage)
	if t.go354 && t.a.Stage == msg.DeliverData {
		what = "sending the message"
	}
	reply, hostFailed := t.ioError(what, err)
	t.a.HostFailed = hostFailed
	t.answerAll(reply)
}

// stale reports that the connection had gone before it took anything from us.
func (t *transaction) stale() bool {
	return !t.answered && t.a.HostFailed && !t.timedOut && !t.aborted.Load()
}

// answerAll gives a reply to all recipients that are still open.
func (t *transaction) answerAll(r smtp.Reply) {
	for i := range t.a.Rcpts {
		t.answer(i, r)
	}
}

// answer gives a reply to a recipient, if it has none.
func (t *transaction) answer(i int, r smtp.Reply) {
	if t.a.Rcpts[i].IsZero() {
		t.a.Rcpts[i] = r
		t.open--
	}
}

// dialogue speaks up to the reply to the final dot. An error means that the
// connection can no longer be used, and that open recipients have no reply.
func (t *transaction) dialogue() error {
	if err := t.envelope(); err != nil {
		return err
	}
	switch {
	case t.closing:
		return nil
	case t.withhold != nil:
		t.withheld()
		return nil
	case t.go354 && t.open > 0 && t.ctx.Err() != nil:
		// Nobody waits for the answer any more. The peer waits for content, which is the
		// last moment at which the transaction can be given up for sure.
		t.abort()
		return t.ctx.Err()
	case t.go354 && t.open > 0:
		return t.message()
	case t.go354:
		return t.emptyMessage()
	}
	t.needReset = t.mailed
	return nil
}

// envelope sends RSET if it is needed, MAIL, RCPT and DATA, in as few writes as the
// peer allows, and reads the replies.
func (t *transaction) envelope() error {
	next, end := cmdMail, len(t.q.Rcpts)
	if t.withhold != nil {
		end-- // no DATA
	}
	if t.needReset {
		next = cmdReset
	}
	for next <= end && t.open > 0 && !t.closing {
		t.group = t.group[:0]
		for next <= end && (len(t.out) == 0 || t.ext.pipelining && len(t.out) < groupBytesMax) {
			if t.appendCommand(next) {
				t.group = append(t.group, next)
			}
			next++
		}
		werr := t.write(t.limits.mail)
		for _, cmd := range t.group {
			if err := t.envelopeReply(cmd, werr); err != nil {
				return err
			}
			if t.closing {
				return nil
			}
		}
	}
	return nil
}

// envelopeReply reads and applies the reply to a command.
func (t *transaction) envelopeReply(cmd int, werr error) error {
	timeout := t.limits.rcpt
	stage, step := msg.DeliverRcpt, &t.steps.rcpts
	switch {
	case cmd == cmdReset:
		timeout, stage, step = t.limits.rset, msg.DeliverMail, &t.steps.mail
	case cmd == cmdMail:
		timeout, stage, step = t.limits.mail, msg.DeliverMail, &t.steps.mail
	case cmd == len(t.q.Rcpts):
		timeout, stage, step = t.limits.data, msg.DeliverData, &t.steps.data
	}
	if t.open > 0 {
		t.a.Stage = stage
	}
	if err := t.replyAfter(werr, timeout); err != nil {
		return err
	}
	t.steps.mark(step)
	if t.rep.code == 421 {
		t.shutDown()
		return nil
	}
	switch {
	case cmd == cmdReset:
		if !t.rep.positive() {
			return errUnfit
		}
		t.needReset = false
	case cmd == cmdMail:
		return t.mailReply()
	case cmd < len(t.q.Rcpts):
		return t.rcptReply(cmd)
	default:
		return t.dataReply()
	}
	return nil
}

// shutDown applies a 421 (RFC 5321 section 3.8): the host closes the connection,
// whatever the command was.
func (t *transaction) shutDown() {
	t.closing = true
	t.a.HostFailed = true
	if t.open > 0 {
		t.answerAll(t.rep.smtp())
	}
}

func (t *transaction) mailReply() error {
	t.answered = true
	switch {
	case t.rep.positive():
		t.mailed = true
	case t.rep.failed():
		t.answerAll(t.rep.smtp())
	default:
		return errUnfit
	}
	return nil
}

func (t *transaction) rcptReply(i int) error {
	switch {
	case t.rep.positive():
	case t.rep.failed():
		t.answer(i, t.rep.smtp())
	default:
		return errUnfit
	}
	return nil
}

func (t *transaction) dataReply() error {
	switch {
	case t.rep.code/100 == 3:
		t.go354 = true
	case !t.rep.failed():
		return errUnfit
	case t.open > 0:
		t.answerAll(t.rep.smtp())
	}
	return nil
}

// emptyMessage ends a transaction in which every recipient was refused and DATA was
// accepted all the same (RFC 2920 section 3.1).
func (t *transaction) emptyMessage() error {
	t.out = append(t.out, dotCRLF...)
	if err := t.write(t.limits.block); err != nil {
		t.broken = true
		return nil // every recipient has its reply
	}
	if err := t.readReply(t.limits.dot); err != nil {
		return nil // as above; the connection is marked as broken
	}
	t.needReset = true
	if t.rep.code == 421 {
		t.shutDown()
	}
	return nil
}
