package queue

import (
	"bytes"
	"context"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/dsn"
)

// expand replaces a recipient by those that its alias stands for: a transaction with
// the same content for each sender, that is for each list with an owner of its own.
func (l *loop) expand(r *rcpt, a *msg.RouteA) {
	t := r.t
	r.phase = phaseEnding
	t.pending++
	lists, to := true, 0
	for i := range a.Expand {
		lists = lists && !a.Expand[i].Owner.IsNull()
		to += len(a.Expand[i].Rcpts)
	}
	if kind, due, _ := dsn.Expand(r.attr().Notify, to, lists); due {
		l.expanded(r, kind)
	}
	ev := &madeEvent{t: t, rcpts: []*rcpt{r}, made: make([]madeMessage, len(a.Expand)), waited: l.age(r)}
	for i := range a.Expand {
		ev.made[i].env = expansion(t.env, r.attr(), &a.Expand[i], to)
	}
	body := t.body
	l.q.group.Go(func(ctx context.Context) error {
		ev.err = l.q.inTurn(ctx, func() error { return l.q.copyContent(ev.made, t.env.TA.Process, body) })
		l.q.events.put(ev)
		return nil
	})
}

// expansion is the envelope of one group of an expansion to to recipients, but for its
// id.
func expansion(e *msg.Envelope, r *msg.Rcpt, g *msg.Expansion, to int) *msg.Envelope {
	env := &msg.Envelope{
		Session: e.Session, Arrival: e.Arrival, Client: e.Client, Mail: e.Mail,
		Expanded: true, Rcpts: make([]msg.Rcpt, len(g.Rcpts)),
	}
	list := !g.Owner.IsNull()
	_, _, notify := dsn.Expand(r.Notify, to, list)
	child := msg.Rcpt{Notify: notify, ORcpt: r.ORcpt}
	if list { // what a list sends is a new message
		env.Mail.From, env.Mail.EnvID, env.Mail.Ret, child.ORcpt = g.Owner, "", "", ""
	}
	for i, p := range g.Rcpts {
		child.To = p
		env.Rcpts[i] = child
	}
	env.Mail.VERP = env.Mail.VERP || g.VERP
	return env
}

// expanded tells a sender who asked for it that an alias took the message.
func (l *loop) expanded(r *rcpt, kind dsn.Kind) {
	if r.t.env.Mail.From.IsNull() {
		return
	}
	n := r.notice(kind, smtp.NewReply(250, "2.1.5", "expanded"))
	n.keep = true
	l.notify(r.t, r.t.env.Mail.From, []notice{n})
}

// inlineBatchMax bounds the content, in bytes, that the messages of one expansion bring
// into their common commit, which all new mail waits for.
const inlineBatchMax = 4 << 20

// copyContent gives messages ids and the content of the one that was expanded: in
// memory if it is small, else in a file for each, because a file holds one envelope.
// After an error no file is left.
func (q *Queue) copyContent(made []madeMessage, process uint8, body msg.Body) (err error) {
	defer func() {
		if err != nil {
			q.dropFiles(made)
		}
	}()
	total := body.Size() * int64(len(made))
	var shared []byte
	if b := body.Bytes(); b != nil && (len(made) == 1 || total <= inlineBatchMax) {
		shared = b
	} else if body.Size() <= q.cfg.IBDB.ContentMax && total <= inlineBatchMax && q.memory.Load() < q.cfg.ContentMemory {
		b := bytes.NewBuffer(make([]byte, 0, body.Size()))
		if err := writeBody(b, body); err != nil {
			return err
		}
		shared = b.Bytes()
	}
	for i := range made {
		m := &made[i]
		if m.env.TA, err = q.ids.take(process); err != nil {
			return err
		}
		m.content, m.size = shared, body.Size()
		if shared == nil {
			err = q.copyFile(m.env, body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyFile writes content into a file of its own.
func (q *Queue) copyFile(e *msg.Envelope, body msg.Body) error {
	w, err := q.Content().Create(e.TA)
	if err != nil {
		return err
	}
	defer w.Abort() // nothing after Commit
	if err := writeBody(w, body); err != nil {
		return err
	}
	return w.Commit(e)
}

// dropFiles removes the files of messages that will not be.
func (q *Queue) dropFiles(made []madeMessage) {
	for i := range made {
		if m := &made[i]; m.content == nil && m.env.TA != (smtp.ID{}) {
			q.deferrer.ops.put(deferOp{kind: deferUnlink, ta: m.env.TA})
		}
	}
}
