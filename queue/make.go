package queue

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"

	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/aq"
	"meta1/queue/conf"
	"meta1/queue/content"
)

// makersMax is how many messages of our own are made at once. Each may take the memory of two
// contents meanwhile.
const makersMax = 32

// make makes what the core has asked for, when not too much is being made at once.
func (q *Queue) make(ctx context.Context, mk *aq.Make) {
	ev := &aq.Made{Make: mk}
	select {
	case q.makers <- struct{}{}:
		if mk.Notice != nil {
			ev.Messages, ev.Err = q.makeNotice(mk)
		} else {
			ev.Messages, ev.Err = q.makeCopies(mk)
		}
		<-q.makers
	case <-ctx.Done():
		ev.Err = context.Cause(ctx)
	}
	q.events.Put(event{ev: ev})
}

// doubleBounce is the double bounce address. The default of README 3.8, item 6, is one whose
// mail the SMTP server discards: then there is none.
func (s *settings) doubleBounce(hostname string) smtp.Path {
	addr := strings.Trim(s.DoubleBounce, "<>")
	i := strings.LastIndexByte(addr, '@')
	if i < 0 || strings.EqualFold(addr, "doublebounce@"+hostname) {
		return smtp.Path{}
	}
	return smtp.Path{Local: addr[:i], Domain: addr[i+1:]}
}

// format is the form of DSNs that is configured.
func format(c *conf.DSNConfig) dsn.Format {
	switch {
	case c.RFC:
		return dsn.RFC
	case c.MIME:
		return dsn.MIME
	default:
		return dsn.Plain
	}
}

// makeNotice makes the message of a DSN.
func (q *Queue) makeNotice(mk *aq.Make) ([]*aq.NewMessage, error) {
	id, err := q.ids.Take(0)
	if err != nil {
		return nil, err
	}
	n := *mk.Notice
	n.Format, n.ID, n.Now = format(&q.conf().DSN), id.String(), q.clock.day()
	for i := range n.Failures {
		f := &n.Failures[i]
		if !f.LastAttempt.IsZero() {
			f.LastAttempt = q.clock.date(f.LastAttempt)
		}
		if !f.RetryUntil.IsZero() {
			f.RetryUntil = q.clock.date(f.RetryUntil)
		}
	}
	if n.Original, err = original(mk.Body, n.HeaderOnly); err != nil {
		q.log.Error("cannot read the content for a bounce", "ss_ta", n.TA, "error", err)
	}
	m, err := dsn.Build(n)
	if err != nil {
		return nil, err
	}
	m.Content = q.signed(id, m.Content)
	env := mk.Envelopes[0]
	env.TA, env.Arrival, env.Mail.UTF8 = id, n.Now, m.UTF8
	if m.EightBit {
		env.Mail.Body = "8BITMIME"
	}
	made := &aq.NewMessage{Envelope: env, Content: m.Content, Size: int64(len(m.Content))}
	if made.Size > q.inlineMax() {
		made.Content = nil
		if err := q.files.Write(env, m.Content); err != nil {
			return nil, err
		}
	}
	made.Body = q.contents.Hold(id, made.Size, made.Content, msg.Shape{}, nil)
	return []*aq.NewMessage{made}, nil
}

// signed puts signatures on top of a message of our own. One that cannot be signed goes out
// without: nobody else could tell the sender.
func (q *Queue) signed(id smtp.ID, content []byte) []byte {
	if q.deps.Sign == nil {
		return content
	}
	head, err := q.deps.Sign(content)
	if err != nil {
		q.log.Warn("a message of our own is not signed", "ss_ta", id, "error", err)
	}
	if len(head) == 0 {
		return content
	}
	return append(head, content...)
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

// copyBatchMax bounds the content, in bytes, that the messages of one expansion bring into
// their common commit, which all new mail waits for.
const copyBatchMax = 4 << 20

// makeCopies gives messages ids and the content of the one that was expanded: in memory if
// it is small, else in a file for each, because a file holds one envelope. After an error no
// file is left.
func (q *Queue) makeCopies(mk *aq.Make) (made []*aq.NewMessage, err error) {
	defer func() {
		if err != nil {
			for _, m := range made {
				if m.Content == nil {
					q.remover.Put(m.Envelope.TA)
				}
			}
		}
	}()
	plain := &copied{body: mk.Body}
	sealed := plain
	if slices.Contains(mk.Seal, true) {
		head, err := q.seal(mk)
		if err != nil {
			return nil, err
		}
		if len(head) > 0 {
			sealed = &copied{body: &behind{mk.Body, head}}
		}
	}
	for i, env := range mk.Envelopes {
		if env.TA, err = q.ids.Take(mk.Of.Process); err != nil {
			return made, err
		}
		from := plain
		if i < len(mk.Seal) && mk.Seal[i] {
			from = sealed
		}
		size := from.body.Size()
		m := &aq.NewMessage{Envelope: env, Size: size}
		if size <= q.inlineMax() && (len(mk.Envelopes) == 1 || size*int64(len(mk.Envelopes)) <= copyBatchMax) {
			if m.Content, err = from.shared(); err != nil {
				return made, err
			}
		}
		made = append(made, m)
		if m.Content == nil {
			if err := q.files.Copy(env, from.body); err != nil {
				return made, err
			}
		}
		m.Body = q.contents.Hold(env.TA, size, m.Content, msg.Shape{}, nil)
	}
	return made, nil
}

// copied is content that several messages get.
type copied struct {
	body msg.Body
	b    []byte // all of it, once it was wanted
}

// shared is the content in memory, which all have in common.
func (c *copied) shared() ([]byte, error) {
	if c.b == nil {
		b := bytes.NewBuffer(make([]byte, 0, c.body.Size()))
		if err := content.WriteBody(b, c.body); err != nil {
			return nil, err
		}
		c.b = b.Bytes()
	}
	return c.b, nil
}
