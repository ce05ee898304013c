package resolver

import (
	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/alias"
)

// exempt reports a sender that is not checked: <>, or one of a session that the
// access map let through with quick: (README 3.12.2).
func (c *checker) exempt() bool {
	return c.q.Mail.From.IsNull() || c.q.Marks&(msg.MarkQuickOK|msg.MarkQuickRelay) != 0
}

// senderRoutable checks that a DSN to the sender would find its way.
func (c *checker) senderRoutable() bool {
	from := c.q.Mail.From
	if c.exempt() {
		return false
	}
	if c.deps.SRS.Takes(from) {
		_, step, err := c.reversed(from)
		if err != nil {
			return c.reject(step, smtp.NewReply(553, "5.1.8", "Sender address does not exist"))
		}
		c.step(step)
		return false
	}
	if c.set.aliases != nil {
		e, ok, err := aliasFinder{c.Resolver, c.set}.Alias(c.ctx, from)
		switch {
		case err != nil:
			return c.broken(msg.Step{Check: "alias", Key: from.Addr()}, err)
		case ok && e.Value != alias.LocalWord:
			c.step(msg.Step{Check: "alias", Map: e.Map, Key: e.Key, Effect: "the sender is an alias"})
			return false
		}
	}
	q := msg.RouteQ{Rcpt: from, Expanded: true}
	a, ok := c.routeFast(&q)
	if !ok {
		if c.wait() {
			return false
		}
		a = c.routeSlow(c.ctx, &q)
	}
	c.sender = &a
	if len(c.v.Trace) == 0 {
		c.v.Trace = a.Trace[:len(a.Trace):len(a.Trace)] // it is shared, not copied
	} else {
		c.v.Trace = append(c.v.Trace[:len(c.v.Trace):len(c.v.Trace)], a.Trace...)
	}
	switch {
	case a.Reply.IsZero():
		return false
	case a.Reply.Temporary():
		return c.reject(msg.Step{Check: "sender", Key: from.Addr(), Effect: "cannot be resolved now: " + a.Reply.String()},
			smtp.NewReply(451, "4.1.8", "Sender address cannot be resolved now"))
	}
	return c.reject(msg.Step{Check: "sender", Key: from.Addr(), Effect: "not routable: " + a.Reply.String()},
		smtp.NewReply(553, "5.1.8", "Sender address does not exist"))
}

// senderValid checks the local part of a sender in a local domain.
func (c *checker) senderValid() bool {
	if c.exempt() || !c.set.validates() || c.deps.SRS.Takes(c.q.Mail.From) {
		return false
	}
	a := c.split(c.set, c.q.Mail.From)
	rule, err := c.find(c.ctx, c.set.mailertable, a)
	if err != nil {
		return c.broken(msg.Step{Check: "mailertable", Key: a.String()}, err)
	}
	if rule == nil || !rule.local {
		return false
	}
	step, ok, err := c.isUser(c.ctx, c.set, a)
	switch {
	case err != nil:
		return c.broken(step, err)
	case !ok:
		return c.reject(step, smtp.NewReply(550, "5.1.8", "Sender address does not exist"))
	}
	c.step(step)
	return false
}

// from looks the sender up.
func (c *checker) from() bool {
	if c.exempt() || c.access == nil {
		return false
	}
	a := maps.ParseAddress(c.q.Mail.From.Local, c.q.Mail.From.LowerDomain(), c.set.cfg.Delimiter)
	return c.apply(c.access.address(c.ctx, "from:", a, maps.AllAddress))
}

// mxbadip looks the addresses up that DNS gave for the sender's domain. Addresses
// of the mailertable are our own choice.
func (c *checker) mxbadip() bool {
	if c.access == nil || c.sender == nil || !fromDNS(c.sender.Trace) {
		return false
	}
	for _, h := range c.sender.Hops {
		ip := h.Addr.Addr()
		if c.apply(c.access.keys(c.ctx, "mxbadip:", maps.FullIP(ip), maps.IPKeys(ip))) {
			return true
		}
	}
	return false
}

func fromDNS(t msg.Trace) bool {
	for _, s := range t {
		if s.Check == "address" {
			return true
		}
	}
	return false
}
