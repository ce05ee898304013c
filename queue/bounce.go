package queue

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/dsn"
)

// notice is one recipient of which the sender is to be told.
type notice struct {
	r *rcpt
	f dsn.Failure
	// keep: the recipient does not end with the notice.
	keep bool
}

// failures are recipients of one transaction that failed for good.
type failures []notice

func (f *failures) add(r *rcpt, reply smtp.Reply, during, remote string) {
	n := r.notice(dsn.Failed, reply)
	n.f.During, n.f.Remote = during, remote
	*f = append(*f, n)
}

// addExpired adds a recipient whose time is over, with the last reply for it.
func (f *failures) addExpired(r *rcpt, last smtp.Reply, remote string) {
	f.add(r, last, "", remote)
	(*f)[len(*f)-1].f.Expired = true
}

// notice is what a DSN tells of a recipient.
func (r *rcpt) notice(kind dsn.Kind, reply smtp.Reply) notice {
	return notice{r: r, f: dsn.Failure{
		Kind: kind, Rcpt: r.path(), ORcpt: r.attr().ORcpt, Reply: reply, LastAttempt: r.start,
	}}
}

// bounce ends recipients that failed for good: the sender gets a notice, and only
// when that is durable is the recipient forgotten. While other recipients of the
// message are under way, the notice waits for theirs (merge_delay_max).
func (l *loop) bounce(t *transaction, f failures) {
	if len(f) == 0 {
		return
	}
	for i := range f {
		l.counts.bounced++
		l.q.metrics.bounced.Inc()
		l.logEnd("bounced", f[i].r, endReply(&f[i].f))
		f[i].r.phase = phaseEnding
	}
	waiting := len(t.notices) > 0
	t.notices = append(t.notices, f...)
	switch {
	case l.q.cfg.DSN.MergeDelay == 0 || len(t.rcpts) == len(t.notices):
		l.tellAll(t)
	case !waiting:
		l.after(l.q.cfg.DSN.MergeDelay, func() { l.tellAll(t) })
	}
}

// endReply is why a recipient was given up, for the log: the last reply, or that its
// time was over (RFC 3463: X.4.7).
func endReply(f *dsn.Failure) smtp.Reply {
	if !f.Expired {
		return f.Reply
	}
	return smtp.NewReply(550, "5.4.7", "maximum time in queue exceeded; the last reply was: "+f.Reply.String())
}

// tellAll sends the notices that were kept back.
func (l *loop) tellAll(t *transaction) {
	list := t.notices
	t.notices = nil
	l.tell(t, list)
}

// tell makes DSNs for those recipients of which the sender wants to hear, and ends
// the others.
func (l *loop) tell(t *transaction, list []notice) {
	var due []notice
	var to smtp.Path
	for _, n := range list {
		addr, ok := l.tellTo(t)
		switch {
		case !ok || !dsn.Due(n.r.attr().Notify, n.f.Kind):
			l.untold(n)
		case n.f.Kind == dsn.Failed && l.verp(t):
			l.notify(t, l.verpSender(addr, n.r.path()), []notice{n})
		default:
			to = addr
			due = append(due, n)
		}
	}
	for _, part := range dsn.Merge(due, func(n notice) dsn.Kind { return n.f.Kind }, l.q.cfg.DSN.ErrorsMax) {
		l.notify(t, to, part)
	}
}

// untold ends a recipient of which nobody is to be told.
func (l *loop) untold(n notice) {
	if n.f.Kind == dsn.Failed {
		l.counts.dropped++
		l.q.log.Warn("dropped: nobody is to be told", "rcpt_id", n.r.id(), "rcpt", n.r.path(), "reply", n.f.Reply)
	}
	if !n.keep {
		l.end(n.r)
	}
}

// tellTo is where a notice goes. A message without a sender is a bounce itself: its
// failure goes to the double bounce address if one is set. What failed on the way
// there goes nowhere, for such a message is sent with NOTIFY=NEVER.
func (l *loop) tellTo(t *transaction) (smtp.Path, bool) {
	if from := t.env.Mail.From; !from.IsNull() {
		return from, true
	}
	return l.q.doubleBounce()
}

// doubleBounce is the double bounce address. The default of README 3.8, item 6, is
// one whose mail the SMTP server discards: then there is none.
func (q *Queue) doubleBounce() (smtp.Path, bool) {
	addr := strings.Trim(q.cfg.DoubleBounce, "<>")
	i := strings.LastIndexByte(addr, '@')
	if i < 0 || strings.EqualFold(addr, "doublebounce@"+q.deps.Hostname) {
		return smtp.Path{}, false
	}
	return smtp.Path{Local: addr[:i], Domain: addr[i+1:]}, true
}

// format is the form of DSNs that is configured.
func (c *DSNConfig) format() dsn.Format {
	switch {
	case c.RFC:
		return dsn.RFC
	case c.MIME:
		return dsn.MIME
	default:
		return dsn.Plain
	}
}

// notify makes a DSN, in a goroutine, because it reads the content. The recipients
// end when it is durable, but for those that are kept.
func (l *loop) notify(t *transaction, to smtp.Path, list []notice) {
	ret := t.env.Mail.Ret
	headerOnly := list[0].f.Kind != dsn.Failed || l.q.cfg.DSN.HeaderOnly || t.bounced && ret != "FULL" || ret == "HDRS" || t.size > dsn.ReturnMax
	n := dsn.Notification{
		Format: l.q.cfg.DSN.format(), Hostname: l.q.deps.Hostname, Now: l.q.clock.day(), To: to,
		TA: t.env.TA.String(), EnvID: t.env.Mail.EnvID, Arrival: t.env.Arrival,
		ReceivedFrom: t.env.Client.Helo, ReceivedIP: t.env.Client.IP,
		HeaderOnly: headerOnly, UTF8: t.env.Mail.UTF8,
	}
	ev := &madeEvent{t: t}
	if t.env.Mail.From.IsNull() { // a double bounce: no bounce of it is made, here or elsewhere
		ev.notify = "NEVER"
	}
	for _, one := range list {
		if !one.f.LastAttempt.IsZero() {
			one.f.LastAttempt = l.q.clock.date(one.f.LastAttempt)
		}
		n.Failures = append(n.Failures, one.f)
		if !one.keep {
			one.r.phase = phaseEnding
			ev.rcpts = append(ev.rcpts, one.r)
		}
	}
	t.bounced = t.bounced || list[0].f.Kind == dsn.Failed
	t.pending++
	body := t.body
	l.q.group.Go(func(ctx context.Context) error {
		ev.err = l.q.inTurn(ctx, func() error { return l.q.makeDSN(ev, n, body) })
		l.q.events.put(ev)
		return nil
	})
}

// makersMax is how many messages of our own are made at once. Each may take the memory
// of two contents meanwhile.
const makersMax = 32

// inTurn makes a message of our own when there are not too many at once.
func (q *Queue) inTurn(ctx context.Context, f func() error) error {
	select {
	case q.makers <- struct{}{}:
		defer func() { <-q.makers }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// makeDSN makes the transaction of a DSN.
func (q *Queue) makeDSN(ev *madeEvent, n dsn.Notification, body msg.Body) error {
	id, err := q.ids.take(0)
	if err != nil {
		return err
	}
	n.ID = id.String()
	if n.Original, err = original(body, n.HeaderOnly); err != nil {
		q.log.Error("cannot read the content for a bounce", "ss_ta", n.TA, "error", err)
	}
	m, err := dsn.Build(n)
	if err != nil {
		return err
	}
	env := &msg.Envelope{TA: id, Arrival: n.Now, Mail: msg.Mail{UTF8: m.UTF8}, Rcpts: []msg.Rcpt{{To: n.To, Notify: ev.notify}}}
	if m.EightBit {
		env.Mail.Body = "8BITMIME"
	}
	made := madeMessage{env: env, content: m.Content, size: int64(len(m.Content))}
	if made.size > q.cfg.IBDB.ContentMax || q.memory.Load() >= q.cfg.ContentMemory {
		made.content = nil
		err = q.copyFile(env, memBody(m.Content))
	}
	ev.made = []madeMessage{made}
	return err
}

// original reads as much of a message as is returned.
func original(body msg.Body, headerOnly bool) ([]byte, error) {
	b := body.Bytes()
	if b == nil {
		r, err := body.Open()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		limit := int64(dsn.ReturnMax)
		if headerOnly {
			limit = dsn.HeaderMax
		}
		if b, err = io.ReadAll(io.LimitReader(r, limit)); err != nil {
			return nil, err
		}
	}
	if headerOnly {
		return dsn.Header(b, dsn.HeaderMax), nil
	}
	return b, nil
}

// madeMessage is a transaction of our own that is complete but for its record in the
// IBDB.
type madeMessage struct {
	env     *msg.Envelope
	content []byte // nil: a durable file
	size    int64
}

// madeEvent: messages of our own are complete: a bounce, or all that an alias makes of
// one.
type madeEvent struct {
	t      *transaction // for which they were made
	rcpts  []*rcpt      // which they replace
	made   []madeMessage
	waited time.Duration // age of their recipients
	notify string        // NOTIFY= of a bounce
	err    error
}

// makePause is how long recipients wait whose replacement could not be made.
const makePause = time.Minute

func (e *madeEvent) apply(l *loop) {
	if e.err != nil {
		l.q.log.Error("cannot make a message", "ss_ta", e.t.env.TA.String(), "error", e.err)
		e.t.pending--
		for _, r := range e.rcpts { // also one whose time is over: it would be tried at once
			l.put(r, l.now.Add(makePause), r.state.Attempts, "cannot make a message: "+e.err.Error())
		}
		return
	}
	// One commit for all of them: a crash leaves all or none.
	ops := make([]journalOp, len(e.made))
	for i, m := range e.made {
		ops[i] = journalOp{kind: opAccept, t: l.q.accept(m.env, m.content, m.size, l.now, e.waited), inline: m.content}
	}
	ops[len(ops)-1].done = &replacedEvent{t: e.t, rcpts: e.rcpts, made: e.made}
	l.q.journal.ops.put(ops...)
}

// replacedEvent: what replaces some recipients is durable.
type replacedEvent struct {
	t     *transaction
	rcpts []*rcpt
	made  []madeMessage
}

func (e *replacedEvent) apply(l *loop) {
	e.t.pending--
	for _, r := range e.rcpts {
		e.log(l, r)
		l.end(r)
	}
	l.settle(e.t)
}

// log says what took the place of a recipient, a line for each transaction, so that
// meta1 fsck can tell from the log whether the recipient has ended: a line says how
// many there are in all, and how many recipients this one has.
func (e *replacedEvent) log(l *loop, r *rcpt) {
	for _, m := range e.made {
		l.q.log.LogAttrs(context.Background(), slog.LevelInfo, "replaced",
			slog.String("rcpt_id", r.id()), slog.Any("rcpt", r.path()), slog.Any("by", m.env.TA),
			slog.Int("rcpts", len(m.env.Rcpts)), slog.Int("parts", len(e.made)))
	}
}
