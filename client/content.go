package client

import (
	"bytes"
	"errors"

	"meta1/client/content"
	"meta1/client/wire"
	"meta1/mta/msg"
)

func indexHeaderEnd(b []byte) int { return bytes.Index(b, []byte("\r\n\r\n")) }

// message sends the content and its final dot and reads what became of it.
func (t *transaction) message() error {
	quit := t.withQuit && t.ext.Pipelining
	werr := t.sendContent(quit)
	t.steps.mark(&t.steps.msg)
	if errors.Is(werr, content.ErrRead) {
		t.Broken = true // the peer waits for a final dot that must not come
		t.contentError()
		return nil
	}
	if errors.Is(werr, msg.ErrGaveWay) {
		return werr
	}
	if werr != nil {
		return t.refusedEarly(werr, quit)
	}
	t.a.Stage = msg.DeliverDot
	t.q.Progress.Reach(t.a.Stage)
	if quit {
		t.Closing = true
	}
	if err := t.dotReplies(); err != nil {
		return err
	}
	t.a.Stage = msg.DeliverDone
	t.steps.mark(&t.steps.eom)
	return nil
}

// refusedEarly looks for the reason why the content was not sent to its end: a peer may
// refuse a message before it has all of it, and close the connection or not. Anything else
// that it says then is no reply to the message, a success least of all.
func (t *transaction) refusedEarly(werr error, quit bool) error {
	if t.dotTried && quit {
		t.a.Stage = msg.DeliverDot // the dot may have left, and QUIT behind it not
	}
	t.Broken = true
	if wire.IsTimeout(werr) && !t.Heard() {
		return werr
	}
	switch err := t.ReadReply(min(t.limits.dot, wire.LastWords)); {
	case err != nil && errors.Is(werr, wire.ErrEarly): // it has not spoken, but left
		return err
	case err != nil || !t.Reply.Failed():
		return werr
	}
	t.a.HostFailed = t.Reply.Code == 421
	t.answerAll(t.Reply.SMTP())
	return nil
}

// dotReplies reads the reply to the final dot; by LMTP one for each recipient that
// was accepted, in their order (RFC 2033 section 4.2).
func (t *transaction) dotReplies() error {
	if t.hop.Protocol != msg.ProtoLMTP {
		if err := t.ReadReply(t.limits.dot); err != nil {
			return err
		}
		if t.prdr && t.Reply.Code == codePRDR {
			return t.recipientReplies()
		}
		if err := t.judgeDot(); err != nil {
			return err
		}
		t.answerAll(t.Reply.SMTP())
		return nil
	}
	for i := range t.a.Rcpts {
		if !t.a.Rcpts[i].IsZero() {
			continue
		}
		if err := t.dotReply(); err != nil {
			return err
		}
		t.answer(i, t.Reply.SMTP())
		if t.Reply.Code == 421 {
			t.shutDown()
		}
	}
	return nil
}

// dotReply reads one reply after the final dot.
func (t *transaction) dotReply() error {
	if err := t.ReadReply(t.limits.dot); err != nil {
		return err
	}
	return t.judgeDot()
}

// judgeDot applies a reply after the final dot.
func (t *transaction) judgeDot() error {
	switch {
	case t.Reply.Positive():
		return nil
	case !t.Reply.Failed():
		return wire.ErrUnfit
	}
	t.needReset = true // RFC 5321 says that the transaction is over; not all hosts know
	if t.Reply.Code == 421 {
		t.Closing = true
		t.a.HostFailed = true
	}
	return nil
}

// sendContent sends the content and the final dot, or all of it as one chunk, which is the last.
func (t *transaction) sendContent(quit bool) error {
	s := content.Sender{Conn: t.Conn, BDAT: t.bdat, Quit: quit, Block: t.limits.block, Progress: t.q.Progress}
	m := content.Content{Body: t.body, Size: t.size(), NoDots: t.shape.NoDots}
	if t.content != nil {
		m.Reader = t.content
	}
	err := s.Send(m)
	t.dotTried = s.Tried
	return err
}
