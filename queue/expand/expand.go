// Package expand makes the envelopes of the messages by which a recipient is replaced that is an alias or
// a list: with the recipients that it stands for, the sender to whom bounces go, and what the client had
// asked for as far as it holds for them. It is pure.
package expand

import (
	"meta1/mta/dsn"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/verp"
)

// Rules are what senders of forwarded mail depend on.
type Rules struct {
	VERP verp.Config
	// Rewrite gives the sender by SRS; false: there is none. Nil: senders stay.
	Rewrite func(from smtp.Path) (smtp.Path, bool)
	// Rewritten is told of each sender that Rewrite was asked for, and what it said.
	Rewritten func(from, by smtp.Path, ok bool)
}

// partsMax is how many recipients of one group get a message of their own because their sender names
// them and is rewritten.
const partsMax = 100

// Envelopes gives the envelopes of one group of an expansion of recipient r of message e, but for their ids:
// one, whose sender is rewritten (SRS) if it must be. to is how many recipients all groups have.
// A sender that names its recipient (VERP) does so before it is rewritten, since the hash is of all of it: then
// each recipient has an envelope, unless there are too many of them.
func (c *Rules) Envelopes(e *msg.Envelope, r *msg.Rcpt, g *msg.Expansion, to int) []*msg.Envelope {
	env := group(e, r, g, to)
	from := env.Mail.From
	if !g.Rewrite || c.Rewrite == nil || from.IsNull() {
		return []*msg.Envelope{env}
	}
	if !c.VERP.Applies(from, env.Mail.VERP) || len(env.Rcpts) > partsMax {
		c.rewrite(env, from)
		return []*msg.Envelope{env}
	}
	var all []*msg.Envelope
	for i := range env.Rcpts {
		one := *env
		one.Rcpts = env.Rcpts[i : i+1 : i+1]
		named, ok := c.VERP.Sender(from, one.Rcpts[0].To)
		if !ok {
			named = from
		}
		c.rewrite(&one, named)
		all = append(all, &one)
	}
	return all
}

// rewrite rewrites the sender of a message that is forwarded.
func (c *Rules) rewrite(env *msg.Envelope, from smtp.Path) {
	by, ok := c.Rewrite(from)
	if ok {
		env.Mail.From, env.Mail.VERP = by, false
	}
	c.Rewritten(from, by, ok)
}

// group is the envelope of one group of an expansion to to recipients, with its sender as it was.
func group(e *msg.Envelope, r *msg.Rcpt, g *msg.Expansion, to int) *msg.Envelope {
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
