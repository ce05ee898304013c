package server

import (
	"bytes"
	"time"

	"meta1/mta/smtp"
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
	body  *content
	lines lineScanner
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
	body := &content{drop: true, failed: refusal} // which keeps nothing
	if refusal.IsZero() {
		body = c.chunkBody(size)
	}
	if !body.failed.IsZero() && c.tooLarge(size) {
		c.enter(phaseClosed)
		return body.failed
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
func (c *session) chunkBody(size int64) *content {
	tx := c.tx
	if tx.chunks == nil {
		tx.chunks = &chunks{body: c.newContent(), start: time.Now()}
		tx.chunks.lines = lineScanner{max: c.srv.cfg.LineLengthMax, binary: tx.env.Mail.Binary()}
		if r := c.barred(); !r.IsZero() {
			tx.chunks.body.fail(r)
		} else {
			tx.chunks.body.begin(c.trace(), max(tx.env.Mail.Size, size))
		}
		c.wire.patient = true // until the transaction ends
		c.enter(phaseChunk)
	}
	body := tx.chunks.body
	if body.sizeMax > 0 && size > body.sizeMax-body.size {
		body.fail(replyTooBig)
	}
	return body
}

// tooLarge reports a chunk that is not worth reading if it is refused.
func (c *session) tooLarge(size int64) bool { return size-c.srv.cfg.MessageSizeMax > drainMin }

// readChunk reads the octets of a chunk.
func (c *session) readChunk(body *content, size int64) error {
	w, s, start := c.wire, c.srv, time.Now()
	var ch *chunks
	if c.tx != nil && c.tx.chunks != nil && c.tx.chunks.body == body {
		ch, start = c.tx.chunks, c.tx.chunks.start
	}
	defer func(a crowd.State) { w.awaits = a }(w.awaits)
	w.awaits = crowd.Sending
	defer func() { s.returnInput(w.giveBack()) }()
	for size > 0 {
		if len(w.unread()) == 0 {
			if err := w.fill(true); err != nil {
				return err
			}
		}
		in, full := w.unread(), w.full()
		in = in[:min(int64(len(in)), size)]
		if ch != nil {
			ch.lines.scan(in, body)
		}
		body.write(in)
		w.consume(len(in))
		size -= int64(len(in))
		if err := c.tooMuch(body, start); err != nil {
			return err
		}
		if full && size > 0 && w.home == nil && s.deps.Memory.Take(bigBuffer) {
			w.borrow(s.pools.input())
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
		ch.lines.end(ch.body)
		r := c.accept(ch.body)
		c.endTransaction()
		return r
	}
	if r := ch.body.failed; !r.IsZero() {
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

// lineScanner finds line ends other than CR LF in content that comes in pieces without
// dot-stuffing: such a message could not go on by DATA, and hosts on the way would not
// agree on where its lines end (README 6.3.1). Of BINARYMIME that holds for the header alone,
// which must have no NUL either. The zero value is at the start of a line.
type lineScanner struct {
	cr     bool  // the last octet was a CR
	binary bool  // behind the header stand any octets
	body   bool  // the header of such a message has ended
	len    int64 // octets of the current line
	max    int64 // longest line without CR LF; 0 for no limit
}

// scan examines the next piece.
func (l *lineScanner) scan(in []byte, out *content) {
	for len(in) > 0 && !l.body {
		line := in
		i := bytes.IndexByte(in, '\n')
		if i >= 0 {
			line = in[:i]
		}
		if l.binary && bytes.IndexByte(line, 0) >= 0 {
			out.fail(replyNUL)
		}
		cr := bytes.IndexByte(line, '\r')
		if l.cr && len(line) > 0 || cr >= 0 && cr != len(line)-1 {
			out.fail(replyBareLine)
		}
		l.cr = cr >= 0 || l.cr && len(line) == 0
		if l.len += int64(len(line)); cr >= 0 {
			l.len--
		}
		if l.max > 0 && l.len > l.max {
			out.fail(replyLongLine)
		}
		if i < 0 {
			return
		}
		if !l.cr {
			out.fail(replyBareLine)
		}
		l.body = l.binary && l.len == 0
		l.cr, l.len, in = false, 0, in[i+1:]
	}
}

// end is the end of the content.
func (l *lineScanner) end(out *content) {
	if l.cr {
		out.fail(replyBareLine)
	}
}
