package client

import (
	"context"
	"io"
	"log/slog"
	"time"

	"meta1/client/wire"
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
	log    *slog.Logger
	// withQuit: this is the last transaction of the session, and QUIT may go along
	// with the final dot.
	withQuit bool
	// withhold: the transaction ends before DATA, with these replies; nil for none.
	withhold []smtp.Reply

	open  int // recipients without a reply
	taken int // recipients that RCPT accepted
	// unknown are recipients whose final dot was sent and not answered.
	unknown int
	again   []int // recipients who have a reply that a new connection may not give
	extended
	postponed bool // some of again were only too many for one transaction
	mailed    bool // MAIL was accepted
	answered  bool // a reply to MAIL other than 421 has come: the connection was alive
	go354     bool // DATA was accepted, or BDAT may follow
	dotTried  bool // the final dot was given to the system, perhaps in vain
	payload
	steps steps
}

// extended are the extensions that the transaction uses.
type extended struct {
	utf8   bool // SMTPUTF8
	bdat   bool // the content goes by BDAT
	binary bool // with BODY=BINARYMIME
	prdr   bool // PRDR was asked for
}

// payload is the content as it is sent.
type payload struct {
	body       []byte        // the content if it is in memory
	shape      msg.Shape     // what is known of it
	content    io.ReadCloser // the content if it is not, and has any
	eight      *eightBit     // what becomes of 8-bit content
	converting int64         // bytes of its budget that are ours
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
	t.shown.Store(int64(t.transactions))
	for i := range t.a.Rcpts {
		if t.a.Rcpts[i].IsZero() {
			t.open++
		}
	}
	t.a.Stage = msg.DeliverMail
	t.q.Progress.Reach(t.a.Stage)
	defer t.release()
	if !t.prepare() {
		t.a.Own = true
		return
	}
	err := t.dialogue()
	if err != nil || t.a.HostFailed && t.go354 && t.taken > 0 {
		t.again = nil // the host fails in the middle of the message, and the answer must say so
	}
	if err == nil {
		return
	}
	if t.a.Reused && !t.answered && !wire.IsTimeout(err) && !t.Aborted() { // it had gone before it took anything from us
		t.again = t.unsettled()
	}
	if t.a.Unknown = t.a.Stage == msg.DeliverDot; t.a.Unknown {
		t.unknown = t.open
	}
	what := doing(t.a.Stage)
	if t.go354 && t.a.Stage == msg.DeliverData {
		what = "sending the message"
	}
	reply, hostFailed := t.Fault(t.hop.String(), what, err)
	t.a.HostFailed = hostFailed
	t.answerAll(reply)
}

// ReadReply is that of the connection; it heeds what the reply asks for.
func (t *transaction) ReadReply(timeout time.Duration) error {
	err := t.Conn.ReadReply(timeout)
	t.heed(err)
	return err
}

// ReplyAfter is that of the connection; it heeds what the reply asks for.
func (t *transaction) ReplyAfter(werr error, timeout time.Duration) error {
	err := t.Conn.ReplyAfter(werr, timeout)
	t.heed(err)
	return err
}

// heed notes a reply by which the host asks for less mail.
func (t *transaction) heed(err error) {
	if err == nil && t.Reply.Code/100 == 4 && t.q.SlowDown != nil && t.a.SlowDown.IsZero() {
		if r := t.Reply.SMTP(); t.q.SlowDown.Match(r) {
			t.a.SlowDown = r
		}
	}
}

// unsettled lists the recipients without a reply.
func (t *transaction) unsettled() []int {
	list := make([]int, 0, t.open)
	for i := range t.a.Rcpts {
		if t.a.Rcpts[i].IsZero() {
			list = append(list, i)
		}
	}
	return list
}

// answerAll gives a reply to all recipients that are still open.
func (t *transaction) answerAll(r smtp.Reply) {
	for i := range t.a.Rcpts {
		t.answer(i, r)
	}
}

// answer gives a reply to a recipient, if it has none. A session that has served before and
// refuses for now is not used again, so that one that is used up, in whatever words, keeps
// back no more mail than this. One that has taken nothing yet refuses for another reason: a
// new one for each message of a host that defers everything would help nobody.
func (t *transaction) answer(i int, r smtp.Reply) {
	if t.a.Rcpts[i].IsZero() {
		t.a.Rcpts[i], t.a.Stages[i] = r, t.a.Stage
		t.open--
		t.spent = t.spent || t.a.Reused && t.served && r.Temporary()
	}
}

// dialogue speaks up to the reply to the final dot. An error means that the
// connection can no longer be used, and that open recipients have no reply.
func (t *transaction) dialogue() error {
	if err := t.envelope(); err != nil {
		return err
	}
	if t.bdat && t.mailed && t.open > 0 && !t.Closing && t.withhold == nil {
		t.go354 = true // there is no such reply: the message may follow at once
		t.a.Stage = msg.DeliverData
		t.q.Progress.Reach(t.a.Stage)
	}
	switch {
	case t.Closing:
		return nil
	case t.withhold != nil:
		t.withheld()
		return nil
	case t.go354 && t.open > 0 && t.ctx.Err() != nil:
		// Nobody waits for the answer any more. The peer waits for content, which is the
		// last moment at which the transaction can be given up for sure.
		t.Abort()
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
	if t.withhold != nil || t.bdat {
		end-- // no DATA
	}
	if t.needReset {
		next = cmdReset
	}
	for next <= end && t.open > 0 && !t.Closing {
		t.group = t.group[:0]
		for next <= end && (len(t.Out) == 0 || t.ext.Pipelining && len(t.Out) < groupBytesMax) {
			if t.appendCommand(next) {
				t.group = append(t.group, next)
			}
			next++
		}
		werr := t.Flush(t.limits.mail)
		for _, cmd := range t.group {
			if err := t.envelopeReply(cmd, werr); err != nil {
				return err
			}
			if t.Closing || t.Broken && t.open == 0 {
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
	if err := t.ReplyAfter(werr, timeout); err != nil {
		return err
	}
	t.steps.mark(step)
	t.q.Progress.Reach(stage)
	switch {
	case cmd == cmdMail:
		t.logReply("MAIL", &t.mailSaid, slog.Any("mail", &t.q.Mail.From))
	case cmd >= 0 && cmd < len(t.q.Rcpts):
		t.logReply("RCPT", &t.rcptSaid, slog.Any("rcpt", &t.q.Rcpts[cmd].To))
	}
	if t.Reply.Code == 421 {
		if t.a.Reused {
			t.again = append(t.again, t.unsettled()...)
		}
		t.shutDown()
		return nil
	}
	switch {
	case cmd == cmdReset:
		return t.resetReply()
	case cmd == cmdMail:
		return t.mailReply()
	case cmd < len(t.q.Rcpts):
		return t.rcptReply(cmd)
	default:
		return t.dataReply()
	}
}

// shutDown applies a 421 (RFC 5321 section 3.8): the host closes the connection,
// whatever the command was.
func (t *transaction) shutDown() {
	t.Closing = true
	t.a.HostFailed = true
	if t.open > 0 {
		t.answerAll(t.Reply.SMTP())
	}
}

// resetReply applies the reply to RSET. A session that refuses it is of no use any more,
// which says nothing of the host.
func (t *transaction) resetReply() error {
	if t.Reply.Positive() {
		t.needReset = false
		return nil
	}
	t.Broken = true // MAIL, and even DATA, may have been accepted behind it
	t.again = t.unsettled()
	t.answerAll(smtp.NewReply(451, "4.5.0", "host "+t.hop.String()+" refused RSET: "+t.Reply.SMTP().String()))
	return nil
}

// mailReply applies the reply to MAIL. A temporary refusal in a session that has taken
// mail before may be the session's alone, which has a limit of its own.
func (t *transaction) mailReply() error {
	t.answered = true
	switch {
	case t.Reply.Positive():
		t.mailed = true
	case t.Reply.Failed():
		if t.a.Reused && t.served && t.Reply.Code < 500 {
			t.again = t.unsettled()
		}
		t.answerAll(t.Reply.SMTP())
	default:
		return wire.ErrUnfit
	}
	return nil
}

// rcptReply applies the reply to RCPT. 452 after others that were accepted, by this
// transaction or by one before, is a limit of the transaction or of the session (RFC
// 5321 section 4.5.3.1.10).
func (t *transaction) rcptReply(i int) error {
	switch {
	case t.Reply.Positive():
		t.taken++
		t.served = true
	case t.Reply.Failed():
		r := t.Reply.SMTP()
		if t.taken > 0 && tooManyRcpts(r) {
			r = asTemporary(r, 452)
		}
		if r.Code == 452 && (t.taken > 0 || t.a.Reused && t.served) {
			t.spent = true
			t.again = append(t.again, i)
		}
		t.answer(i, r)
	default:
		return wire.ErrUnfit
	}
	return nil
}

// tooManyRcpts reports the 552 of older hosts for one recipient too many, which RFC 5321
// section 4.5.3.1.10 asks to treat as 452. It is not one if its enhanced code speaks of
// the mailbox (5.2.2, RFC 3463) or of the size of the message (5.3.4).
func tooManyRcpts(r smtp.Reply) bool {
	return r.Code == 552 && r.Enhanced[1] != 2 && r.Enhanced != smtp.EnhancedCode{5, 3, 4}
}

// asTemporary is a permanent refusal with a temporary code.
func asTemporary(r smtp.Reply, code int) smtp.Reply {
	r.Code = code
	if !r.Enhanced.IsZero() {
		r.Enhanced[0] = 4
	}
	return r
}

func (t *transaction) dataReply() error {
	switch {
	case t.Reply.Code/100 == 3:
		t.go354 = true
	case !t.Reply.Failed():
		return wire.ErrUnfit
	case t.open > 0:
		t.answerAll(t.Reply.SMTP())
	}
	return nil
}

// emptyMessage ends a transaction in which every recipient was refused and DATA was
// accepted all the same (RFC 2920 section 3.1).
func (t *transaction) emptyMessage() error {
	if t.taken > 0 {
		// MAIL was refused, RCPT accepted: we are out of step with the host, which might take the
		// dot for a message without content.
		t.Broken = true
		return nil
	}
	t.Out = append(t.Out, ".\r\n"...)
	if err := t.Flush(t.limits.block); err != nil {
		t.Broken = true
		return nil // every recipient has its reply
	}
	if err := t.ReadReply(t.limits.dot); err != nil {
		return nil // as above; the connection is marked as broken
	}
	t.needReset = true
	if t.Reply.Code == 421 {
		t.shutDown()
	}
	return nil
}
