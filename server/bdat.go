package server

import (
	"time"

	"meta1/mta/smtp"
	"meta1/server/content"
	"meta1/server/crowd"
)

var (
	replyChunk      = smtp.NewReply(250, "2.0.0", "Chunk received")
	replyNoChunking = smtp.NewReply(502, "5.5.1", "CHUNKING is not offered")
	replyBadChunk   = smtp.NewReply(501, "5.5.4", "Syntax: BDAT size [LAST]; closing connection")
	replyBinaryData = smtp.NewReply(503, "5.5.1", "BODY=BINARYMIME needs BDAT: send RSET, or BDAT")
	replyHasChunks  = smtp.NewReply(503, "5.5.1", "The message comes by BDAT: go on with BDAT, or send RSET")
)

// chunks is the message of a transaction as it comes in by BDAT (RFC 3030).
type chunks struct {
	body  *content.Content
	lines content.LineScanner
	start time.Time // of the first chunk
	told  bool      // the client knows why the message cannot be accepted
}

// bdat is BDAT (RFC 3030 section 2). The octets of a chunk are read whatever becomes of it,
// for a client may have sent them before our reply: left in the input they would be taken
// for commands. So a chunk whose size cannot be read, or that is refused and too large to
// be read for nothing, ends the session.
func (c *session) bdat(arg string) smtp.Reply {
	size, last, err := smtp.ParseChunk(arg)
	if err != nil {
		c.enter(phaseClosed)
		return replyBadChunk
	}
	refusal := c.chunkRefusal()
	var body *content.Content
	if refusal.IsZero() {
		body = c.chunkBody(size)
	} else {
		body = content.Refused(refusal)
	}
	if !body.Failed().IsZero() && c.tooLarge(size) {
		c.enter(phaseClosed)
		return body.Failed()
	}
	if err := c.readChunk(body, size); err != nil {
		c.lost(err)
		return smtp.Reply{}
	}
	if !refusal.IsZero() {
		return refusal
	}
	c.progress()
	return c.chunkReply(size, last)
}

// chunkRefusal is why no chunk may come now, zero if one may.
func (c *session) chunkRefusal() smtp.Reply {
	switch {
	case !c.offers(extChunking):
		return replyNoChunking
	case c.tx == nil:
		return c.misplaced(c.srv.verb(verbBdat))
	case c.phase == phaseMail:
		c.note.expected = true
		return replyNoRcpt
	}
	return smtp.Reply{}
}

// chunkBody is the content to which a chunk of that size is added. The first one begins it.
func (c *session) chunkBody(size int64) *content.Content {
	tx := c.tx
	if tx.chunks == nil {
		tx.chunks = &chunks{body: c.newContent(), start: time.Now()}
		tx.chunks.lines = tx.chunks.body.Lines(c.srv.cfg.LineLengthMax, tx.env.Mail.Binary())
		if r := c.barred(); !r.IsZero() {
			tx.chunks.body.Fail(r)
		} else {
			tx.chunks.body.Begin(c.trace(), max(tx.env.Mail.Size, size))
		}
		c.wire.Patient = true // until the transaction ends
		c.enter(phaseChunk)
	}
	body := tx.chunks.body
	if most := c.srv.cfg.MessageSizeMax; most > 0 && size > most-body.Size() {
		body.Fail(content.ReplyTooBig)
	}
	return body
}

// tooLarge reports a chunk that is not worth reading if it is refused.
func (c *session) tooLarge(size int64) bool { return size-c.srv.cfg.MessageSizeMax > drainMin }

// readChunk reads the octets of a chunk.
func (c *session) readChunk(body *content.Content, size int64) error {
	w, start := c.wire, time.Now()
	var ch *chunks
	if c.tx != nil && c.tx.chunks != nil && c.tx.chunks.body == body {
		ch, start = c.tx.chunks, c.tx.chunks.start
	}
	defer func(a crowd.State) { w.Awaits = a }(w.Awaits)
	w.Awaits = crowd.Sending
	defer w.GiveBack()
	for size > 0 {
		if len(w.Unread()) == 0 {
			if err := w.Fill(true); err != nil {
				return err
			}
		}
		in, full := w.Unread(), w.Full()
		in = in[:min(int64(len(in)), size)]
		if ch != nil {
			ch.lines.Scan(in)
		}
		body.Write(in)
		w.Consume(len(in))
		size -= int64(len(in))
		if err := c.tooMuch(body.Came(), start); err != nil {
			return err
		}
		if full && size > 0 {
			w.Borrow()
		}
	}
	return nil
}

// chunkReply is the reply to a chunk that was read, behind the last one that to the
// message. A message that has failed stays refused until the transaction ends.
func (c *session) chunkReply(size int64, last bool) smtp.Reply {
	tx := c.tx
	ch := tx.chunks
	c.note.expected, c.note.tx = ch.told, tx
	if last {
		ch.lines.End()
		r := c.accept(ch.body)
		c.endTransaction()
		return r
	}
	if r := ch.body.Failed(); !r.IsZero() {
		ch.told = true
		c.noteMessage(ch.body)
		return r
	}
	if size == 0 {
		if tx.nops++; exceeds(tx.nops, c.srv.cfg.Limits.NopsInTransaction) {
			return replyTooIdle
		}
	}
	return replyChunk // the same for all: a thousand chunks of one octet cost no more than one
}
