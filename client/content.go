package client

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"meta1/client/wire"
	"meta1/mta/msg"
)

// errContent says that the content could not be read from the queue.
var errContent = errors.New("content cannot be read")

// partsMax is how many pieces are given to the system in one write.
const partsMax = 1024

func indexHeaderEnd(b []byte) int { return bytes.Index(b, []byte("\r\n\r\n")) }

// message sends the content and its final dot and reads what became of it.
func (t *transaction) message() error {
	quit := t.withQuit && t.ext.Pipelining
	werr := t.sendContent(quit)
	t.steps.mark(&t.steps.msg)
	if errors.Is(werr, errContent) {
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

// sender sends content, with its dots doubled unless it goes by BDAT.
type sender struct {
	t    *transaction
	dots dots
	end  time.Time // of the time for all content
	tail []byte    // what follows the final dot: QUIT, or nothing
}

// sendContent sends the content and the final dot, or all of it as one chunk, which is the
// last. A small message goes out in one write, out of one buffer; a larger one in parts, from where it lies.
func (t *transaction) sendContent(quit bool) error {
	body, size := t.body, t.size()
	s := sender{t: t, dots: dots{none: t.shape.NoDots}}
	if quit {
		s.tail = []byte("QUIT\r\n")
	}
	if t.bdat {
		t.Out = append(strconv.AppendInt(append(t.Out, "BDAT "...), size, 10), " LAST\r\n"...)
	}
	if t.content == nil && len(body) <= copyMax {
		if t.bdat {
			t.Out = append(t.Out, body...)
		} else {
			t.Out = append(s.dots.appendTo(t.Out, body), s.dots.end()...)
		}
		t.Out = append(t.Out, s.tail...)
		// The 354 was read a moment ago: looking at the socket again would tell no more.
		if err := t.mayFinish(t.Pending()); err != nil {
			return err
		}
		return t.Flush(t.limits.block)
	}
	s.end = time.Now().Add(t.limits.block + time.Duration(size/dataRateMin)*time.Second)
	if t.bdat {
		if err := t.Flush(t.limits.block); err != nil {
			return err
		}
	}
	if t.content == nil {
		return s.memory(body)
	}
	return s.stream(t.content, size)
}

// memory sends content that is in memory.
func (s *sender) memory(body []byte) error {
	for len(body) > chunkMax {
		if err := s.send(body[:chunkMax], false); err != nil {
			return err
		}
		body = body[chunkMax:]
	}
	return s.send(body, true)
}

// stream sends content of a known size from a reader.
func (s *sender) stream(r io.Reader, size int64) error {
	chunk := make([]byte, min(size, readMax))
	for size > 0 {
		p := chunk[:min(size, readMax)]
		if _, err := io.ReadFull(r, p); err != nil {
			return errContent
		}
		size -= int64(len(p))
		if err := s.send(p, size == 0); err != nil {
			return err
		}
	}
	return nil
}

// send sends one part of the content; behind the last one goes the final dot.
func (s *sender) send(p []byte, last bool) error {
	if s.t.bdat {
		return s.sendPlain(p, last)
	}
	for {
		n, double := s.dots.cut(p)
		if n > 0 {
			s.t.Parts = append(s.t.Parts, p[:n])
		}
		if !double {
			break
		}
		s.t.Parts = append(s.t.Parts, oneDot)
		p = p[n:]
		if len(s.t.Parts) >= partsMax {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	if err := s.flush(); err != nil || !last {
		return err
	}
	s.t.Parts = append(s.t.Parts, s.dots.end())
	if s.tail != nil {
		s.t.Parts = append(s.t.Parts, s.tail)
	}
	return s.flushDot()
}

// sendPlain sends one part of a chunk. With its last octet the host has the whole message,
// so that the last part is what the final dot is elsewhere.
func (s *sender) sendPlain(p []byte, last bool) error {
	s.t.Parts = append(s.t.Parts, p)
	if !last {
		return s.flush()
	}
	if s.tail != nil {
		s.t.Parts = append(s.t.Parts, s.tail)
	}
	return s.flushDot()
}

// flushDot writes the final dot. It goes out alone, so that whatever the peer has said
// before it is known to be no reply to it.
func (s *sender) flushDot() error {
	if err := s.t.mayFinish(s.t.Heard()); err != nil {
		return err
	}
	return s.t.FlushParts(min(s.t.limits.block, time.Until(s.end)))
}

// mayFinish is asked before the final dot is sent. It fails if the peer has spoken already, or
// if nobody waits for the answer any more: the dot would deliver the message a second time.
func (t *transaction) mayFinish(spoken bool) error {
	switch {
	case spoken:
		return wire.ErrEarly
	case !t.q.Progress.Finish():
		t.Abort()
		return msg.ErrGaveWay
	}
	t.dotTried = true
	return nil
}

// flush writes what is collected, within the time for one part and that for all, unless
// the peer has spoken meanwhile.
func (s *sender) flush() error {
	if s.t.Heard() {
		return wire.ErrEarly
	}
	err := s.t.FlushParts(min(s.t.limits.block, time.Until(s.end)))
	if err == nil {
		s.t.q.Progress.Reach(msg.DeliverData)
	}
	return err
}
