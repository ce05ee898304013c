package resolver

import (
	"context"
	"log/slog"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// checkFast answers what needs neither DNS nor a socket map.
func (r *Resolver) checkFast(q *msg.CheckQ) (msg.Verdict, bool) {
	s := r.set.Load()
	if s.mailertable.blocking() || s.access != nil && s.access.m.Blocking() {
		return msg.Verdict{}, false
	}
	c := checker{Resolver: r, set: s, q: q, ctx: context.Background(), fast: true}
	v := c.verdict()
	if c.unknown {
		return msg.Verdict{}, false
	}
	r.metrics.checked(q.Stage, v.Action)
	return v, true
}

// checkSlow answers anything.
func (r *Resolver) checkSlow(ctx context.Context, q *msg.CheckQ) msg.Verdict {
	c := checker{Resolver: r, set: r.set.Load(), q: q, ctx: ctx}
	v := c.verdict()
	r.metrics.checked(q.Stage, v.Action)
	return v
}

func checkFailed(reason string) msg.Verdict {
	return msg.Verdict{Action: msg.Reject, Reply: systemFailure(reason), Trace: msg.Trace{{Check: "resolver", Effect: reason}}}
}

// checker finds the verdict of one stage.
type checker struct {
	*Resolver
	set  *set
	q    *msg.CheckQ
	ctx  context.Context
	fast bool // DNS must not be asked

	v       msg.Verdict
	unknown bool // fast, but the answer needs DNS
}

// verdict makes the checks of the stage in their order (README 3.12.2) until one
// decides.
func (c *checker) verdict() msg.Verdict {
	switch c.q.Stage {
	case msg.StageConnect:
		c.connect()
	case msg.StageMail:
		c.mail()
	case msg.StageRcpt:
		c.rcpt()
	}
	return c.v
}

func (c *checker) step(s msg.Step) { c.v.Trace = append(c.v.Trace, s) }

// apply takes what the access map says into the verdict. It reports whether that
// decides the check: everything but cont and a missing entry does.
func (c *checker) apply(f found) bool {
	c.v.Quick = c.v.Quick || f.quick
	switch f.word {
	case wordNone, wordCont:
		c.step(f.step)
		return false
	case wordRelay:
		// Only what is known of the client opens the session; to: allows its recipient.
		c.v.Relay = c.q.Stage == msg.StageConnect
		f.step.Effect = "relaying allowed"
	case wordDiscard:
		c.v.Action = msg.Discard
		f.step.Effect = "discarded"
	case wordError:
		c.v.Action, c.v.Reply = msg.Reject, f.reply
		if f.step.Effect == "" {
			f.step.Effect = "rejected"
		}
	case wordOther:
		f.step.Effect = "ignored: not a right hand side of this tag"
		c.step(f.step)
		return false
	}
	c.step(f.step)
	return true
}

func (c *checker) reject(s msg.Step, reply smtp.Reply) {
	c.v.Action, c.v.Reply = msg.Reject, reply
	c.step(s)
}

func (c *checker) connect() {
	if c.set.access == nil || !c.q.Client.IP.IsValid() {
		return
	}
	c.apply(c.set.access.keys(c.ctx, "cltaddr:", maps.FullIP(c.q.Client.IP), maps.IPKeys(c.q.Client.IP)))
}

// mail checks the sender, unless it is <>.
func (c *checker) mail() {
	from := c.q.Mail.From
	if from.IsNull() || !c.routable(from) || c.set.access == nil {
		return
	}
	a := maps.ParseAddress(from.Local, from.Domain, c.cfg.Delimiter)
	c.apply(c.set.access.address(c.ctx, "from:", a, maps.AllAddress))
}

// routable checks that a DSN to the sender would find its way.
func (c *checker) routable(from smtp.Path) bool {
	q := msg.RouteQ{Rcpt: from}
	a, ok := c.routeFast(&q)
	switch {
	case ok:
	case c.fast:
		c.unknown = true
		return false
	default:
		a = c.routeSlow(c.ctx, &q)
	}
	c.v.Trace = append(c.v.Trace[:len(c.v.Trace):len(c.v.Trace)], a.Trace...)
	switch {
	case a.Reply.IsZero():
		return true
	case a.Reply.Temporary():
		c.reject(msg.Step{Check: "sender", Key: from.Addr(), Effect: "cannot be resolved now: " + a.Reply.String()},
			smtp.NewReply(451, "4.1.8", "Sender address cannot be resolved now"))
	default:
		c.reject(msg.Step{Check: "sender", Key: from.Addr(), Effect: "not routable: " + a.Reply.String()},
			smtp.NewReply(553, "5.1.8", "Sender address does not exist"))
	}
	return false
}

// rcpt decides about relaying, then about the recipient itself.
func (c *checker) rcpt() {
	a := c.split(c.set, c.q.Rcpt.To)
	rule, err := c.find(c.ctx, c.set.mailertable, a)
	if err != nil {
		c.log.LogAttrs(c.ctx, slog.LevelError, "mailertable lookup failed", slog.String("stat", err.Error()))
		c.reject(msg.Step{Check: "mailertable", Effect: err.Error()}, smtp.NewReply(451, "4.3.5", "mailertable lookup failed"))
		return
	}
	local := rule != nil && rule.local
	if local {
		// All steps so far are those of the rule: its trace is shared, not copied.
		c.v.Trace = rule.trace[:len(rule.trace):len(rule.trace)]
	}
	if c.set.access == nil {
		if !local && !c.q.Relaying {
			c.denied()
		}
		return
	}
	f := c.set.access.address(c.ctx, "to:", a, maps.AllAddress)
	if c.apply(f) || local || c.q.Relaying {
		if f.word == wordOK && !local && !c.q.Relaying {
			c.denied()
		}
		return
	}
	c.denied()
}

func (c *checker) denied() {
	c.reject(msg.Step{Check: "relay", Key: c.q.Rcpt.To.Addr(), Effect: "neither local nor allowed"},
		smtp.NewReply(550, "5.7.1", "Relaying denied"))
}
