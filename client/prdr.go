package client

import (
	"meta1/client/wire"
	"meta1/mta/smtp"
)

// codePRDR begins the replies for each recipient.
const codePRDR = 353

// recipientReplies reads the replies of PRDR (README 3.10 item 17): behind 353 one for each
// recipient that RCPT accepted, in their order, and one to the message as a whole. A host
// that has none to tell apart replies to the message alone.
//
// The last one decides whether it takes the message at all: until it has come, a recipient
// that was not refused is as one whose reply to the final dot was lost.
func (t *transaction) recipientReplies() error {
	own := make([]smtp.Reply, len(t.a.Rcpts))
	for i := range t.a.Rcpts {
		if !t.a.Rcpts[i].IsZero() {
			continue
		}
		if err := t.ReadReply(t.limits.dot); err != nil {
			return err
		}
		if !t.Reply.Positive() && !t.Reply.Failed() {
			return wire.ErrUnfit
		}
		if own[i] = t.Reply.SMTP(); t.Reply.Code == 421 {
			return t.shutInReplies()
		}
		if t.Reply.Failed() {
			t.answer(i, own[i])
		}
	}
	if err := t.dotReply(); err != nil {
		return err
	}
	for i, r := range own {
		if t.Reply.Positive() && r.Accepted() {
			t.answer(i, r)
		}
	}
	t.answerAll(t.Reply.SMTP())
	return nil
}

// shutInReplies applies a 421 among the replies. Nothing says that the message was taken.
func (t *transaction) shutInReplies() error {
	t.Closing = true
	t.a.HostFailed = true
	t.answerAll(t.Reply.SMTP())
	return nil
}
