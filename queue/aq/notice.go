package aq

import (
	"log/slog"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// notice is one recipient of which the sender is to be told.
type notice struct {
	r *rcpt
	f dsn.Failure
	// keep: the recipient does not end with the notice.
	keep bool
}

// notice is what a DSN tells of a recipient.
func (r *rcpt) notice(kind dsn.Kind, reply smtp.Reply) notice {
	return notice{r: r, f: dsn.Failure{
		Kind: kind, Rcpt: r.path(), ORcpt: r.attr().ORcpt, Reply: reply, LastAttempt: r.start,
	}}
}

// failure is the notice of a recipient that has failed for good.
func (r *rcpt) failure(reply smtp.Reply, during, remote string) notice {
	n := r.notice(dsn.Failed, reply)
	n.f.During, n.f.Remote = during, remote
	return n
}

// expiry is the notice of a recipient whose time is over, with the last reply for it.
func (r *rcpt) expiry(last smtp.Reply, remote string) notice {
	n := r.failure(last, "", remote)
	n.f.Expired = true
	return n
}

// bounce ends recipients that failed for good: the sender gets a notice, which is durable
// in the same save in which they end. While other recipients of the message are in the
// active queue, the notice waits for theirs (merge_delay_max). da is the transaction of the client in
// which they failed, "" for none.
func (c *Core) bounce(m *message, da string, failed []notice) {
	if len(failed) == 0 {
		return
	}
	for i := range failed {
		r := failed[i].r
		c.counts.Bounced++
		c.logAttempt("bounced", da, r, failed[i].f.End(), false)
		c.unready(r)
		r.state = Noticing
	}
	waiting := len(m.notices) > 0
	m.notices = append(m.notices, failed...)
	switch {
	case c.cfg.Notice.MergeDelay == 0 || len(m.rcpts) == len(m.notices):
		c.sendHeld(m)
	case !waiting:
		c.timers.Push(timer{at: c.now.Add(c.cfg.Notice.MergeDelay), m: m})
	}
}

// sendHeld sends the notices that were held back.
func (c *Core) sendHeld(m *message) {
	list := m.notices
	m.notices = nil
	c.sendNotices(m, list)
}

// sendNotices has DSNs made for those recipients of which the sender wants to hear, and ends the
// others.
func (c *Core) sendNotices(m *message, list []notice) {
	if len(list) == 0 {
		return
	}
	var due []notice
	ends := outcome{m: m}
	to, known := c.noticeAddress(m)
	for _, n := range list {
		switch {
		case !known || !dsn.Due(n.r.attr().Notify, n.f.Kind):
			c.endSilently(n, &ends)
		case n.f.Kind == dsn.Failed && c.verp(m):
			c.notify(m, c.verpSender(to, n.r), []notice{n})
		default:
			due = append(due, n)
		}
	}
	for _, part := range dsn.Merge(due, func(n notice) dsn.Kind { return n.f.Kind }, c.cfg.Notice.ErrorsMax) {
		c.notify(m, to, part)
	}
	c.conclude(&ends)
}

// endSilently ends a recipient of which nobody is to be told.
func (c *Core) endSilently(n notice, ends *outcome) {
	if n.f.Kind == dsn.Failed {
		c.counts.Dropped++
		c.logRcpt(slog.LevelWarn, "dropped: nobody is to be told", n.r, slog.Any("reply", n.f.Reply), attrEnded())
	}
	if !n.keep {
		ends.ended = append(ends.ended, n.r)
	}
}

// noticeAddress is where a notice goes. A message without a sender is a bounce itself: its failure
// goes to the double bounce address if one is set. What failed on the way there goes nowhere,
// for such a message is sent with NOTIFY=NEVER.
func (c *Core) noticeAddress(m *message) (smtp.Path, bool) {
	if from := m.env.Mail.From; !from.IsNull() {
		return from, true
	}
	to := c.cfg.Notice.DoubleBounce
	return to, !to.IsNull()
}

// notify has a DSN made. The recipients end with it, except those that are kept.
func (c *Core) notify(m *message, to smtp.Path, list []notice) {
	ret := m.env.Mail.Ret
	failed := list[0].f.Kind == dsn.Failed
	n := &dsn.Notification{
		Hostname: c.cfg.Hostname, To: to, TA: m.env.TA.String(), EnvID: m.env.Mail.EnvID, Arrival: m.env.Arrival,
		ReceivedFrom: m.env.Client.Helo, ReceivedIP: m.env.Client.IP, UTF8: m.env.Mail.UTF8,
		HeaderOnly: !failed || c.cfg.Notice.HeaderOnly || m.bounced && ret != "FULL" || ret == "HDRS" || m.env.Mail.RequireTLS ||
			m.env.Mail.Binary() || m.size > dsn.ReturnMax, // a DSN is text, for every host on its way
	}
	// A bounce is protected as its message was, and returns no more than the header (RFC 8689
	// section 5).
	env := &msg.Envelope{Rcpts: []msg.Rcpt{{To: to}}, Mail: msg.Mail{RequireTLS: m.env.Mail.RequireTLS}}
	if m.env.Mail.From.IsNull() { // a double bounce: no bounce of it is made, here or elsewhere
		env.Rcpts[0].Notify = "NEVER"
	}
	mk := &Make{Of: m.env.TA, Body: m.body, Envelopes: []*msg.Envelope{env}, Notice: n, m: m}
	for _, one := range list {
		n.Failures = append(n.Failures, one.f)
		if !one.keep {
			mk.rcpts = append(mk.rcpts, one.r)
		}
	}
	m.bounced = m.bounced || failed
	c.make(mk)
}

// make has a message made. The recipients that it replaces end when it is durable. Of one
// message one is made at a time.
func (c *Core) make(mk *Make) {
	m := mk.m
	for _, r := range mk.rcpts {
		c.unready(r)
		r.state = Noticing
	}
	m.busy++
	c.making++
	if m.making != nil {
		m.makes = append(m.makes, mk)
		return
	}
	m.making = mk
	c.out.Make = append(c.out.Make, mk)
}

// nextMake goes on after a message was made for m.
func (c *Core) nextMake(m *message) {
	if len(m.makes) > 0 {
		m.making, m.makes = m.makes[0], m.makes[1:]
		c.out.Make = append(c.out.Make, m.making)
		return
	}
	if ending := m.ending; len(ending) > 0 {
		m.ending = nil
		c.end(c.newSave(m), ending)
	}
}

// made saves messages that are complete, together with the end of what they replace. If they
// could not be made, the recipients are tried again later.
func (c *Core) made(ev *Made) {
	mk := ev.Make
	m := mk.m
	c.making--
	m.busy--
	m.making = nil
	defer c.nextMake(m)
	if ev.Err != nil {
		c.log(slog.LevelError, "cannot make a message", slog.String("ss_ta", m.env.TA.String()), slog.Any("error", ev.Err))
		s := c.newSave(m)
		for _, r := range mk.rcpts { // also one whose time is over: it would fail again at once
			c.put(s, r, State{NextTry: c.now.Add(makePause), Attempts: r.rec.Attempts, Reason: "cannot make a message: " + ev.Err.Error()})
		}
		return
	}
	s := c.newSave(m)
	for _, n := range ev.Messages {
		s.Changes = append(s.Changes, Change{Kind: Accept, New: n})
		one := newMessage(&Message{Envelope: n.Envelope, Size: n.Size, Body: n.Body, Inline: n.Content != nil})
		one.takeFresh(nil, c.now, mk.waited)
		one.left = one.fresh
		s.enter = append(s.enter, one)
		c.cfg.Budget.Accept(n.Envelope.TA, one.left)
	}
	for _, r := range mk.rcpts {
		c.logReplaced(r, ev.Messages)
	}
	c.end(s, mk.rcpts)
}

// logReplaced says what took the place of a recipient, a line for each message.
func (c *Core) logReplaced(r *rcpt, by []*NewMessage) {
	for _, n := range by {
		c.logRcpt(slog.LevelInfo, "replaced", r, slog.Any("by", n.Envelope.TA), slog.Int("rcpts", len(n.Envelope.Rcpts)), slog.Int("parts", len(by)))
	}
}

// expanded tells a sender who asked for it that an alias took the message.
func (c *Core) expanded(r *rcpt, to int, lists bool) {
	kind, due, _ := dsn.Expand(r.attr().Notify, to, lists)
	if !due || r.m.env.Mail.From.IsNull() {
		return
	}
	n := r.notice(kind, smtp.NewReply(250, "2.1.5", "expanded"))
	n.keep = true
	c.notify(r.m, r.m.env.Mail.From, []notice{n})
}
