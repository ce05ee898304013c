package queue

import (
	"context"
	"io"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/dsn"
)

const (
	// returnMax is the largest message that is returned whole; of a larger one only
	// the header is.
	returnMax = 1 << 20
	// headerMax bounds the header that is returned.
	headerMax = 64 << 10
)

// failures are recipients of one transaction that failed for good.
type failures struct {
	rcpts []*rcpt
	list  []dsn.Failure
}

func (f *failures) add(r *rcpt, reply smtp.Reply, during string) {
	f.rcpts = append(f.rcpts, r)
	f.list = append(f.list, dsn.Failure{Rcpt: r.path(), Reply: reply, During: during})
}

// bounce ends recipients that failed for good: the sender gets a notice, and only
// when that is durable is the recipient forgotten.
func (l *loop) bounce(t *transaction, f failures) {
	for i, r := range f.rcpts {
		l.counts.bounced++
		l.q.metrics.bounced.Inc()
		l.logEnd("bounced", r, f.list[i].Reply)
		r.phase = phaseEnding
	}
	for len(f.rcpts) > 0 {
		n := min(len(f.rcpts), l.q.cfg.DSN.ErrorsMax)
		part := failures{rcpts: f.rcpts[:n], list: f.list[:n]}
		f.rcpts, f.list = f.rcpts[n:], f.list[n:]
		if to, ok := l.bounceTo(t, part.rcpts); ok {
			l.notify(t, to, part)
			continue
		}
		for _, r := range part.rcpts {
			l.counts.dropped++
			l.q.log.Warn("dropped: a bounce cannot be delivered", "rcpt_id", r.id(), "rcpt", r.path().String())
			l.end(r)
		}
	}
}

// bounceTo is where a notice of a failure goes. A message without a sender is a
// bounce itself: its failure goes to the double bounce address if one is set, and
// from there nowhere.
func (l *loop) bounceTo(t *transaction, rcpts []*rcpt) (smtp.Path, bool) {
	if from := t.env.Mail.From; !from.IsNull() {
		return from, true
	}
	addr := strings.Trim(l.q.cfg.DoubleBounce, "<>")
	i := strings.LastIndexByte(addr, '@')
	if i < 0 {
		return smtp.Path{}, false
	}
	to := smtp.Path{Local: addr[:i], Domain: addr[i+1:]}
	for _, r := range rcpts {
		if r.path() == to {
			return smtp.Path{}, false
		}
	}
	return to, true
}

// notify makes a DSN, in a goroutine, because it reads the content.
func (l *loop) notify(t *transaction, to smtp.Path, f failures) {
	headerOnly := l.q.cfg.DSN.HeaderOnly || t.bounced || t.env.Mail.Ret == "HDRS" || t.size > returnMax
	t.bounced = true
	t.pending++
	n := dsn.Notification{
		Hostname: l.q.deps.Hostname, Now: l.now, To: to, TA: t.env.TA.String(),
		Failures: f.list, HeaderOnly: headerOnly,
	}
	body := t.body
	l.q.group.Go(func(context.Context) error {
		ev := &madeEvent{t: t, rcpts: f.rcpts}
		id, err := l.q.ids.take(0)
		if err != nil {
			ev.err = err
			l.q.events.put(ev)
			return nil
		}
		n.ID = id.String()
		if n.Original, err = original(body, headerOnly); err != nil {
			l.q.log.Error("cannot read the content for a bounce", "ss_ta", n.TA, "error", err)
		}
		ev.env = &msg.Envelope{TA: id, Arrival: n.Now, Rcpts: []msg.Rcpt{{To: to}}}
		ev.content = dsn.Text(n)
		l.q.events.put(ev)
		return nil
	})
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
		limit := int64(returnMax)
		if headerOnly {
			limit = headerMax
		}
		if b, err = io.ReadAll(io.LimitReader(r, limit)); err != nil {
			return nil, err
		}
	}
	if headerOnly {
		return dsn.Header(b, headerMax), nil
	}
	return b, nil
}

// expand replaces a recipient by those that its alias stands for: a new
// transaction with the same content.
func (l *loop) expand(r *rcpt, a *msg.RouteA) {
	t := r.t
	r.phase = phaseEnding
	t.pending++
	env := &msg.Envelope{
		Session: t.env.Session, Arrival: t.env.Arrival, Client: t.env.Client, Mail: t.env.Mail,
		Expanded: true, Rcpts: make([]msg.Rcpt, len(a.Expand)),
	}
	if !a.Owner.IsNull() {
		env.Mail.From = a.Owner
	}
	for i, p := range a.Expand {
		env.Rcpts[i] = msg.Rcpt{To: p, Notify: r.attr().Notify, ORcpt: r.attr().ORcpt}
	}
	body, size := t.body, t.size
	l.q.group.Go(func(context.Context) error {
		ev := &madeEvent{t: t, rcpts: []*rcpt{r}, env: env, size: size, expanded: true}
		ev.err = l.q.copyContent(ev, body)
		l.q.events.put(ev)
		return nil
	})
}

// copyContent gives the content of an expanded transaction to the new one: in
// memory if it is there, else as a second name of the file.
func (q *Queue) copyContent(ev *madeEvent, body msg.Body) error {
	id, err := q.ids.take(ev.t.env.TA.Process)
	if err != nil {
		return err
	}
	ev.env.TA = id
	if ev.content = body.Bytes(); ev.content != nil {
		return nil
	}
	if err := q.cdb.Link(ev.t.env.TA, id); err == nil {
		return nil
	}
	r, err := body.Open() // it is still in the IBDB
	if err != nil {
		return err
	}
	defer r.Close()
	ev.content, err = io.ReadAll(r)
	return err
}

// madeEvent: a transaction of our own is complete: a bounce or an expansion.
type madeEvent struct {
	t        *transaction // for which it was made
	rcpts    []*rcpt      // which it replaces
	env      *msg.Envelope
	content  []byte // nil: a file
	size     int64  // of the file
	expanded bool
	err      error
}

// makePause is how long recipients wait whose replacement could not be made.
const makePause = time.Minute

func (e *madeEvent) apply(l *loop) {
	if e.err != nil {
		l.q.log.Error("cannot make a message", "ss_ta", e.t.env.TA.String(), "error", e.err)
		e.t.pending--
		for _, r := range e.rcpts {
			l.postpone(r, makePause, "cannot make a message: "+e.err.Error())
		}
		return
	}
	size := e.size
	if e.content != nil {
		size = int64(len(e.content))
	}
	made := l.q.accept(e.env, e.content, size, l.now)
	l.q.journal.ops.put(journalOp{kind: opAccept, t: made, inline: e.content, done: &replacedEvent{t: e.t, rcpts: e.rcpts}})
}

// replacedEvent: the transaction that replaces some recipients is durable.
type replacedEvent struct {
	t     *transaction
	rcpts []*rcpt
}

func (e *replacedEvent) apply(l *loop) {
	e.t.pending--
	for _, r := range e.rcpts {
		l.end(r)
	}
	l.settle(e.t)
}
