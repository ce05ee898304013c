package server

import (
	"log/slog"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/condition"
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
	defer body.abort()
	c.wire.patient = true
	begun := c.stages.begin()
	err := c.readMessage(body)
	c.stages.end("data", "", begun, smtp.Reply{})
	if err != nil {
		c.lost(err)
	}
	c.wire.patient = false
	if err != nil {
		return smtp.Reply{}
	}
	r := c.accept(body)
	c.endTransaction()
	return r
}

// newContent is for the content of the message in progress.
func (c *session) newContent() *content {
	s, tx := c.srv, c.tx
	nul := s.cfg.NUL
	if tx.env.Mail.Binary() {
		nul = nulAccept // lineScanner refuses them in the header
	}
	return &content{
		ta: tx.env.TA, store: s.deps.Content, pool: &s.pools, memory: s.deps.Memory.Reserve(),
		inlineMax: tx.inlineMax, sizeMax: s.cfg.MessageSizeMax, drop: tx.dropped(), nul: nul, shape: msg.Shape{ASCII: true},
		missing: c.newMissing(),
	}
}

// dropped reports that the message is to be accepted and not delivered.
func (tx *transaction) dropped() bool { return tx.discard || len(tx.env.Rcpts) == 0 }

// readMessage reads up to the final dot.
func (c *session) readMessage(body *content) error {
	w, s := c.wire, c.srv
	if len(w.unread()) == 0 {
		if err := w.fill(true); err != nil {
			return err
		}
	}
	body.shape.NoDots = true // until the scanner finds one
	body.begin(c.trace(), max(c.tx.env.Mail.Size, int64(len(w.unread()))))
	scan := dotScanner{lineMax: s.cfg.LineLengthMax}
	start := time.Now()
	for {
		full := w.full()
		n, end := scan.scan(w.unread(), body)
		w.consume(n)
		if end {
			s.returnInput(w.giveBack())
			return nil
		}
		if err := c.tooMuch(body, start); err != nil {
			return err
		}
		if full && w.home == nil && s.deps.Memory.Take(bigBuffer) {
			w.borrow(s.pools.input())
		}
		if err := w.fill(true); err != nil {
			return err
		}
	}
}

// returnInput takes a borrowed buffer back; nil is nothing.
func (s *Server) returnInput(b []byte) {
	if b != nil {
		s.pools.returnInput(b)
		s.deps.Memory.Give(bigBuffer)
	}
}

// lendInput gives a large buffer for a command line, if the budget allows it.
func (s *Server) lendInput() []byte {
	if !s.deps.Memory.Take(bigBuffer) {
		return nil
	}
	return s.pools.input()
}

// tooMuch ends a message that comes in too slowly or does not end.
func (c *session) tooMuch(body *content, start time.Time) error {
	slow, size := &c.srv.cfg.Slow, body.size+body.stripped
	if beyond := time.Since(start) - slow.Grace; slow.Rate > 0 && beyond.Seconds() > float64(size)/float64(slow.Rate) {
		return errSlow
	}
	// Sums of sizeMax could overflow: it may be as large as an int64 can be.
	if over := size - body.sizeMax; body.sizeMax > 0 && over > drainMin && over-drainMin > body.sizeMax {
		return errFlood
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
func (c *session) accept(body *content) smtp.Reply {
	r := c.commit(body)
	c.progress()
	if r.IsZero() {
		c.traceMessage(body)
		c.wire.guest.Accepted(c.srv.clock())
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
func (c *session) noteMessage(body *content) {
	n, rcpts := &c.note, c.tx.env.Rcpts
	if len(rcpts) > 0 {
		n.rcpt = rcpts[0].To
	}
	n.add(slog.Int("rcpts", len(rcpts)), slog.String("msgid", body.header.msgid), slog.Int64("size", body.size))
	if body.cause != nil {
		n.add(slog.Any("error", body.cause))
	}
}

// commit makes the message durable. The reply is zero then, and not otherwise.
func (c *session) commit(body *content) smtp.Reply {
	if !body.failed.IsZero() {
		return body.failed
	}
	if exceeds(body.header.hops, c.srv.cfg.Limits.Hops) {
		return replyManyHops
	}
	body.endHeader()
	c.tx.env.Mail.TLSOptional = body.header.tlsOptional && !c.tx.env.Mail.RequireTLS
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
	if body.drop {
		return smtp.Reply{}
	}
	sent := body // which is logged
	begun = c.stages.begin()
	body, r = c.filterMessage(sent)
	c.filtersAsked("eom", begun)
	defer func() {
		sent.size, sent.signatures, sent.cause = body.size, body.signatures, body.cause
		if body != sent {
			body.abort()
		}
	}()
	if !r.IsZero() {
		return r
	}
	if c.tx.dropped() {
		sent.drop = true
		return smtp.Reply{}
	}
	if r := c.signContent(body); !r.IsZero() {
		return r
	}
	c.tx.declare8Bit(body)
	inline, r := body.finish(c.tx.env)
	if !r.IsZero() {
		return r
	}
	begun = c.stages.begin()
	a, err := ask(&c.asks, c.srv.deps.Ports.Commit, c.srv.cfg.ModuleTimeout, msg.CommitQ{
		Envelope: c.tx.env, Inline: inline, Shape: body.shape, Memory: body.memory, Size: body.total(), Hold: c.tx.hold,
	})
	c.stages.end("commit", "", begun, a.Reply)
	if err != nil {
		// Whether QMGR has it is unknown. The client will send it again, and so one copy
		// too many is possible; a content file without envelope is QMGR's to remove.
		body.cause = err
		return replyDown
	}
	return a.Reply
}

// declare8Bit has the envelope say that content is 8-bit, although the client or a filter has not declared it: the next
// host must be told (RFC 6152 section 3), also when the content is not in memory any more and nobody looks at it again.
func (tx *transaction) declare8Bit(body *content) {
	if !body.shape.ASCII && !tx.env.Mail.Binary() {
		tx.env.Mail.Body = smtp.Body8Bit
	}
}

// accepted counts and logs an accepted message (README 10.4).
func (c *session) accepted(body *content) {
	m, env := c.srv.metrics, c.tx.env
	m.messages.Inc()
	c.seen.messages.Add(1)
	m.recipients.Add(float64(c.tx.accepted))
	m.bytes.Add(float64(body.size))
	if !c.log.Handler().Enabled(c.asks.parent, slog.LevelInfo) {
		return
	}
	ta := slog.Any("ss_ta", &env.TA)
	for i := range env.Rcpts {
		c.emit(slog.LevelInfo, "rcpt", ta, slog.Any("rcpt", &env.Rcpts[i].To), slog.Int("idx", i), slog.Int("stat", 0))
	}
	attrs := append(make([]slog.Attr, 0, 8),
		ta, slog.Any("mail", &env.Mail.From), slog.String("msgid", body.header.msgid),
		slog.Int64("size", body.size), slog.Int("stat", 0))
	if found := c.tx.authn.Summary(); found != "" {
		attrs = append(attrs, slog.String("auth", found))
	}
	switch {
	case body.drop:
		c.emit(slog.LevelInfo, "message discarded", attrs...)
	case body.signatures == "":
		c.emit(slog.LevelInfo, "message", attrs...)
	default:
		c.emit(slog.LevelInfo, "message", append(attrs, slog.String("dkim", body.signatures))...)
	}
}
