package server

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
	"meta1/server/content"
	"meta1/server/wire"
)

const (
	// drainMin is how much of a refused message is read at least, so that the client
	// gets our reply to its final dot. Beyond message_size_max and this the session ends.
	drainMin = 10 << 20
)

// data is DATA (RFC 5321 section 4.1.1.4). The loop reads the message after the
// reply.
func (c *session) data(arg string) smtp.Reply {
	switch {
	case arg != "":
		return replyNoArg
	case c.phase != phaseRcpt:
		c.note.expected = true
		return replyNoRcpt
	case c.tx.env.Mail.Binary(): // the final dot might be in its middle
		return replyBinaryData
	}
	if r := c.barred(); !r.IsZero() {
		c.endTransaction()
		return r
	}
	c.enter(phaseData)
	return replyGoAhead
}

// barred is why no message may follow, although it has recipients; zero if one may. It is
// asked once for each message, whichever way that comes.
func (c *session) barred() smtp.Reply {
	if r := c.tx.greylist; !r.reply.IsZero() {
		c.note.by, c.note.rcpt = r.by, r.rcpt
		return r.reply
	}
	if r := c.checkSections(condition.AtData, smtp.Path{}, nil); !r.IsZero() {
		return r
	}
	return c.filterData()
}

// receive reads a message and hands it to QMGR. It returns the reply to the final
// dot, or none if the connection was lost before it: then nothing is left of the
// message.
func (c *session) receive() smtp.Reply {
	tx := c.tx
	c.note = note{where: "final_dot", tx: tx}
	body := c.newContent()
	defer body.Abort()
	c.wire.Patient = true
	begun := c.stages.begin()
	err := c.readMessage(body)
	c.stages.end("data", "", begun, smtp.Reply{})
	if err != nil {
		c.lost(err)
	}
	c.wire.Patient = false
	if err != nil {
		return smtp.Reply{}
	}
	r := c.accept(body)
	c.endTransaction()
	return r
}

// newContent is for the content of the message in progress.
func (c *session) newContent() *content.Content { return content.New(c.contentConfig()) }

// contentConfig says what is known of the message in progress before it comes in.
func (c *session) contentConfig() content.Config {
	s, tx := c.srv, c.tx
	nul := s.cfg.NUL
	if tx.env.Mail.Binary() {
		nul = content.AcceptNUL // content.LineScanner refuses them in the header
	}
	return content.Config{
		TA: tx.env.TA, Store: s.deps.Content, Pools: &s.contents, Memory: s.deps.Memory.Reserve(),
		InlineMax: tx.inlineMax, SizeMax: s.cfg.MessageSizeMax, Discard: tx.dropped(), NUL: nul,
		Missing: c.newMissing(),
	}
}

// dropped reports that the message is to be accepted and not delivered.
func (tx *transaction) dropped() bool { return tx.discard || len(tx.env.Rcpts) == 0 }

// readMessage reads up to the final dot.
func (c *session) readMessage(body *content.Content) error {
	w, s := c.wire, c.srv
	if len(w.Unread()) == 0 {
		if err := w.Fill(true); err != nil {
			return err
		}
	}
	scan := body.Dots(s.cfg.LineLengthMax)
	body.Begin(c.trace(), max(c.tx.env.Mail.Size, int64(len(w.Unread()))))
	start := time.Now()
	for {
		full := w.Full()
		n, end := scan.Scan(w.Unread())
		w.Consume(n)
		if end {
			w.GiveBack()
			return nil
		}
		if err := c.tooMuch(body.Came(), start); err != nil {
			return err
		}
		if full {
			w.Borrow()
		}
		if err := w.Fill(true); err != nil {
			return err
		}
	}
}

// errSlow ends a session whose message comes in too slowly as a whole.
var errSlow = errors.New("message comes in too slowly")

// tooMuch ends a message that comes in too slowly or does not end. size is how much of it has come.
func (c *session) tooMuch(size int64, start time.Time) error {
	slow, sizeMax := &c.srv.cfg.Slow, c.srv.cfg.MessageSizeMax
	if beyond := time.Since(start) - slow.Grace; slow.Rate > 0 && beyond.Seconds() > float64(size)/float64(slow.Rate) {
		return errSlow
	}
	// Sums of sizeMax could overflow: it may be as large as an int64 can be.
	if over := size - sizeMax; sizeMax > 0 && over > drainMin && over-drainMin > sizeMax {
		return wire.ErrFlood
	}
	return nil
}

// trace is what we put on top of the message: what policy services want there, and our
// Received: header.
func (c *session) trace() []byte {
	if len(c.tx.prepend) == 0 {
		return c.receivedField()
	}
	return append(slices.Clone(c.tx.prepend), c.receivedField()...)
}

// receivedField is our Received: header for the transaction.
func (c *session) receivedField() []byte {
	env := c.tx.env
	f := c.from.forward
	if env.Mail.UTF8 || f != nil { // which are rare
		return appendID(appendReceived(nil, &env.Client, c.srv.deps.Hostname, c.srv.deps.Version), env.TA, f, env.Arrival)
	}
	if len(c.received) == 0 {
		c.received = appendReceived(c.received, &c.client, c.srv.deps.Hostname, c.srv.deps.Version)
	}
	fixed := len(c.received)
	c.received = c.date.appendID(c.received, env.TA, nil, env.Arrival)
	b := c.received
	c.received = c.received[:fixed]
	return b
}

// accept decides on a message that was read to its end. Only if QMGR says that it is
// durable the reply is 250.
func (c *session) accept(body *content.Content) smtp.Reply {
	r := c.commit(body)
	c.progress()
	if r.IsZero() {
		c.traceMessage(body)
		c.wire.Guest.Accepted(c.srv.clock())
		c.accepted(body)
		c.count.nops = 0
		c.replyEach(c.srv.verb(verbData))
		return smtp.NewReply(250, "2.0.0", "ok id="+c.tx.env.TA.String())
	}
	c.noteMessage(body)
	if c.fruitless() {
		return replyTooIdle
	}
	return r
}

// noteMessage says of which message and recipients a refusal is.
func (c *session) noteMessage(body *content.Content) {
	n, rcpts := &c.note, c.tx.env.Rcpts
	if len(rcpts) > 0 {
		n.rcpt = rcpts[0].To
	}
	n.add(slog.Int("rcpts", len(rcpts)), slog.String("msgid", body.MessageID()), slog.Int64("size", body.Size()))
	if err := body.Cause(); err != nil {
		n.add(slog.Any("error", err))
	}
}

// commit makes the message durable. The reply is zero then, and not otherwise.
func (c *session) commit(body *content.Content) smtp.Reply {
	if !body.Failed().IsZero() {
		return body.Failed()
	}
	if exceeds(body.Hops(), c.srv.cfg.Limits.Hops) {
		return replyManyHops
	}
	body.EndHeader()
	c.tx.env.Mail.TLSOptional = body.TLSOptional() && !c.tx.env.Mail.RequireTLS
	begun := c.stages.begin()
	r := c.authenticateMessage(body)
	if c.tx.authn != nil {
		c.stages.end("authenticate ", "eom", begun, r)
	}
	if !r.IsZero() {
		return r
	}
	if r := c.checkSections(condition.AtEOM, smtp.Path{}, body); !r.IsZero() {
		return r
	}
	if body.Discarded() {
		return smtp.Reply{}
	}
	sent := body // which is logged
	begun = c.stages.begin()
	body, r = c.filterMessage(sent)
	c.filtersAsked("eom", begun)
	defer func() { sent.Become(body) }()
	if !r.IsZero() {
		return r
	}
	if c.tx.dropped() {
		sent.Discard()
		return smtp.Reply{}
	}
	if r := c.signContent(body); !r.IsZero() {
		return r
	}
	c.tx.declare8Bit(body)
	inline, r := body.Finish(c.tx.env)
	if !r.IsZero() {
		return r
	}
	begun = c.stages.begin()
	a, err := ask(&c.asks, c.srv.deps.Ports.Commit, c.srv.cfg.ModuleTimeout, msg.CommitQ{
		Envelope: c.tx.env, Inline: inline, Shape: body.Shape(), Memory: body.Memory(), Size: body.Total(), Hold: c.tx.hold,
	})
	c.stages.end("commit", "", begun, a.Reply)
	if err != nil {
		// Whether QMGR has it is unknown. The client will send it again, and so one copy
		// too many is possible; a content file without envelope is QMGR's to remove.
		body.Blame(err)
		return replyDown
	}
	return a.Reply
}

// declare8Bit has the envelope say that content is 8-bit, although the client or a filter has not declared it: the next
// host must be told (RFC 6152 section 3), also when the content is not in memory any more and nobody looks at it again.
func (tx *transaction) declare8Bit(body *content.Content) {
	if !body.Shape().ASCII && !tx.env.Mail.Binary() {
		tx.env.Mail.Body = smtp.Body8Bit
	}
}

// accepted counts and logs an accepted message (README 10.4).
func (c *session) accepted(body *content.Content) {
	m, env := c.srv.metrics, c.tx.env
	m.messages.Inc()
	c.seen.messages.Add(1)
	m.recipients.Add(float64(c.tx.accepted))
	m.bytes.Add(float64(body.Size()))
	if !c.log.Handler().Enabled(c.asks.parent, slog.LevelInfo) {
		return
	}
	ta := slog.Any("ss_ta", &env.TA)
	for i := range env.Rcpts {
		c.emit(slog.LevelInfo, "rcpt", ta, slog.Any("rcpt", &env.Rcpts[i].To), slog.Int("idx", i), slog.Int("stat", 0))
	}
	attrs := append(make([]slog.Attr, 0, 8),
		ta, slog.Any("mail", &env.Mail.From), slog.String("msgid", body.MessageID()),
		slog.Int64("size", body.Size()), slog.Int("stat", 0))
	if found := c.tx.authn.Summary(); found != "" {
		attrs = append(attrs, slog.String("auth", found))
	}
	switch {
	case body.Discarded():
		c.emit(slog.LevelInfo, "message discarded", attrs...)
	case c.tx.signatures == "":
		c.emit(slog.LevelInfo, "message", attrs...)
	default:
		c.emit(slog.LevelInfo, "message", append(attrs, slog.String("dkim", c.tx.signatures))...)
	}
}
