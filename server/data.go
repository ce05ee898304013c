package server

import (
	"log/slog"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	// slowRate is the least rate in bytes a second at which a message must come in,
	// once twice IO_timeout has passed.
	slowRate = 1 << 10
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
		return replyNoRcpt
	case !c.tx.greylist.IsZero():
		r := c.tx.greylist
		c.emit(slog.LevelInfo, "data", slog.Any("ss_ta", c.tx.env.TA), slog.String("reply", r.String()))
		c.endTransaction()
		return r
	}
	c.enter(phaseData)
	return replyGoAhead
}

// receive reads a message and hands it to QMGR. It returns the reply to the final
// dot, or none if the connection was lost before it: then nothing is left of the
// message.
func (c *session) receive() smtp.Reply {
	s, tx := c.srv, c.tx
	body := &content{
		ta: tx.env.TA, store: s.deps.Content, pool: &s.pools,
		inlineMax: tx.inlineMax, sizeMax: s.cfg.MessageSizeMax, drop: tx.dropped(),
	}
	defer body.abort()
	c.wire.patient = true
	err := c.readMessage(body)
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
	body.begin(c.trace(), max(c.tx.env.Mail.Size, int64(len(w.unread()))))
	scan := dotScanner{lineMax: s.cfg.LineLengthMax}
	start := time.Now()
	for {
		full := w.full()
		n, end := scan.scan(w.unread(), body)
		w.consume(n)
		if end {
			s.pools.returnInput(w.giveBack())
			return nil
		}
		if err := c.tooMuch(body, start); err != nil {
			return err
		}
		if full && w.home == nil {
			w.borrow(s.pools.input())
		}
		if err := w.fill(true); err != nil {
			return err
		}
	}
}

// tooMuch ends a message that comes in too slowly or does not end.
func (c *session) tooMuch(body *content, start time.Time) error {
	limit := 2*c.srv.cfg.IOTimeout + time.Duration(body.size/slowRate)*time.Second
	if time.Since(start) > limit {
		return errSlow
	}
	if body.sizeMax > 0 && body.size > 2*body.sizeMax+drainMin {
		return errFlood
	}
	return nil
}

// trace is our Received: header for the transaction.
func (c *session) trace() []byte {
	if len(c.received) == 0 {
		c.received = appendReceived(c.received, &c.client, c.srv.deps.Hostname, c.srv.deps.Version)
	}
	fixed := len(c.received)
	c.received = appendID(c.received, c.tx.env.TA, c.tx.env.Arrival)
	b := c.received
	c.received = c.received[:fixed]
	return b
}

// accept decides on a message that was read to its end. Only if QMGR says that it is
// durable the reply is 250.
func (c *session) accept(body *content) smtp.Reply {
	r := c.commit(body)
	if r.IsZero() {
		c.accepted(body)
		c.count.nops = 0
		return smtp.NewReply(250, "2.0.0", "ok id="+c.tx.env.TA.String())
	}
	attrs := []slog.Attr{
		slog.Any("ss_ta", c.tx.env.TA), slog.Any("mail", c.tx.env.Mail.From),
		slog.String("msgid", body.header.msgid), slog.Int64("size", body.size), slog.String("reply", r.String()),
	}
	if body.cause != nil {
		attrs = append(attrs, slog.Any("error", body.cause))
	}
	c.emit(slog.LevelInfo, "message", attrs...)
	if c.fruitless() {
		return replyTooIdle
	}
	return r
}

// commit makes the message durable. The reply is zero then, and not otherwise.
func (c *session) commit(body *content) smtp.Reply {
	if !body.failed.IsZero() {
		return body.failed
	}
	if exceeds(body.header.hops, c.srv.cfg.Limits.Hops) {
		return replyManyHops
	}
	if body.drop {
		return smtp.Reply{}
	}
	inline, r := body.finish(c.tx.env)
	if !r.IsZero() {
		return r
	}
	a, err := ask(&c.asks, c.srv.deps.Ports.Commit, c.srv.cfg.ModuleTimeout, msg.CommitQ{
		Envelope: c.tx.env, Inline: inline, Size: body.total(),
	})
	if err != nil {
		// Whether QMGR has it is unknown. The client will send it again, and so one copy
		// too many is possible; a content file without envelope is QMGR's to remove.
		body.cause = err
		return replyDown
	}
	return a.Reply
}

// accepted counts and logs an accepted message (README 10.4).
func (c *session) accepted(body *content) {
	m, env := c.srv.metrics, c.tx.env
	m.messages.Inc()
	m.recipients.Add(float64(c.tx.accepted))
	m.bytes.Add(float64(body.size))
	if !c.log.Handler().Enabled(c.asks.parent, slog.LevelInfo) {
		return
	}
	ta := slog.Any("ss_ta", env.TA)
	for i := range env.Rcpts {
		c.emit(slog.LevelInfo, "rcpt", ta, slog.Any("rcpt", env.Rcpts[i].To), slog.Int("idx", i), slog.Int("stat", 0))
	}
	attrs := [...]slog.Attr{
		ta, slog.Any("mail", env.Mail.From), slog.String("msgid", body.header.msgid),
		slog.Int64("size", body.size), slog.Int("stat", 0),
	}
	if body.drop {
		c.emit(slog.LevelInfo, "message discarded", attrs[:]...)
		return
	}
	c.emit(slog.LevelInfo, "message", attrs[:]...)
}
