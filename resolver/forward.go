package resolver

import (
	"context"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/access"
	"meta1/resolver/srs"
)

// srsTarget is the rule for recipients that are SRS addresses of ours: mail for them is no relaying.
var srsTarget = &target{local: true, source: "srs"}

// isOurs reports whether mail for an address stays with us: its domain is local, or the access map lets
// anybody send to it through us, or it is the name of this host. An error is temporary.
func (r *Resolver) isOurs(ctx context.Context, s *set, p smtp.Path) (bool, error) {
	a := r.split(s, p)
	if p.Domain == "" || a.Domain == r.deps.Hostname || r.deps.SRS.On() && a.Domain == r.deps.SRS.Domain() {
		return true, nil
	}
	rule, err := r.find(ctx, s.mailertable, a)
	if err != nil {
		return false, smtp.NewReply(451, "4.3.5", "mailertable lookup failed")
	}
	if rule != nil && rule.local {
		return true, nil
	}
	if s.access == nil {
		return false, nil
	}
	f := s.access.address(ctx, "to:", a, maps.AllAddress)
	if f.Word == access.Error && f.Reply.Temporary() && f.step.Value == "" {
		return false, f.Reply
	}
	return f.Word == access.Relay, nil
}

// forwarding divides the recipients of an expansion into those of our domains and those outside, who get a
// message of their own: sealed (ARC), and with a rewritten sender (SRS) if the sender is somebody else's.
func (r *Resolver) forwarding(ctx context.Context, s *set, q *msg.RouteQ, groups []msg.Expansion) ([]msg.Expansion, error) {
	if !(r.deps.Forwarding != nil && r.deps.Forwarding()) && !r.deps.SRS.On() {
		return groups, nil
	}
	foreign := false
	if r.deps.SRS.On() && !q.Sender.IsNull() {
		ours, err := r.isOurs(ctx, s, q.Sender)
		if err != nil {
			return nil, err
		}
		foreign = !ours
	}
	divided := make([]msg.Expansion, 0, len(groups))
	for i := range groups {
		here, away := groups[i], groups[i]
		here.Rcpts, away.Rcpts = nil, nil
		away.Forwarded, away.Rewrite = true, foreign && away.Owner.IsNull()
		for _, p := range groups[i].Rcpts {
			ours, err := r.isOurs(ctx, s, p)
			switch {
			case err != nil:
				return nil, err
			case ours:
				here.Rcpts = append(here.Rcpts, p)
			default:
				away.Rcpts = append(away.Rcpts, p)
			}
		}
		for _, g := range []msg.Expansion{here, away} {
			if len(g.Rcpts) > 0 {
				divided = append(divided, g)
			}
		}
	}
	return divided, nil
}

// reverse expands an SRS address of ours to the one for which it stands.
func (r *Resolver) reverse(ctx context.Context, s *set, q *msg.RouteQ) msg.RouteA {
	p, step, err := r.reversed(q.Rcpt)
	if err != nil {
		return msg.RouteA{Reply: notReversed(err), Trace: msg.Trace{step}}
	}
	groups, err := r.forwarding(ctx, s, q, []msg.Expansion{{Rcpts: []smtp.Path{p}}})
	if err != nil {
		return msg.RouteA{Reply: asReply(err), Trace: msg.Trace{step}}
	}
	return msg.RouteA{Expand: groups, Trace: msg.Trace{step}}
}

// reversed is the address for which an SRS address of ours stands, with the step of the trace for it.
func (r *Resolver) reversed(rcpt smtp.Path) (smtp.Path, msg.Step, error) {
	p, err := r.deps.SRS.Reverse(rcpt)
	step := msg.Step{Check: "srs", Key: rcpt.Addr(), Value: p.Addr(), Effect: "a sender that was rewritten here"}
	if err != nil {
		step.Value, step.Effect = "", err.Error()
	}
	r.metrics.srs(err)
	return p, step, err
}

// notReversed is the reply for an SRS address that cannot be reversed.
func notReversed(err error) smtp.Reply {
	switch err {
	case srs.ErrExpired:
		return smtp.NewReply(550, "5.1.6", "SRS address has expired")
	case srs.ErrHash:
		return smtp.NewReply(550, "5.1.1", "SRS address is forged, or too old")
	}
	return smtp.NewReply(550, "5.1.3", "SRS address has a wrong form")
}

func asReply(err error) smtp.Reply {
	if reply, ok := err.(smtp.Reply); ok {
		return reply
	}
	return systemFailure("alias expansion failed")
}

// rcptSRS judges a recipient that is an SRS address of ours.
func (c *checker) rcptSRS() (decided bool) {
	_, step, err := c.reversed(c.q.Rcpt.To)
	if err != nil {
		return c.reject(step, notReversed(err))
	}
	c.rule, c.user = srsTarget, true
	c.step(step)
	return false
}
