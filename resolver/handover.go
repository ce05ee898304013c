package resolver

import (
	"context"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/alias"
	"meta1/resolver/mailertable"
)

// handover is the route of mail that an operator hands over to another MTA (RouteQ.Via). Aliases are
// expanded here, as ever. ok is false for a recipient that stands for others and was expanded already: the
// other MTA, which may have the same aliases, would send to all of them a second time; it goes its own way.
func (r *Resolver) handover(ctx context.Context, s *set, q *msg.RouteQ) (a msg.RouteA, ok bool) {
	if !q.Rcpt.IsNull() { // which only asks for the hops
		if a, done := r.expand(ctx, s, q); done {
			return a, true
		}
		if q.Expanded && s.aliases != nil {
			e, found, err := aliasFinder{r, s}.Alias(ctx, q.Rcpt)
			if err != nil || found && e.Value != alias.LocalWord {
				return msg.RouteA{}, false
			}
		}
	}
	rule, err := mailertable.Parse(q.Via)
	switch {
	case err != nil:
		return handoverFails(q, smtp.NewReply(451, "4.3.5", err.Error())), true
	case rule.Protocol != msg.ProtoSMTP || rule.Host == "" && len(rule.Addrs) == 0:
		return handoverFails(q, smtp.NewReply(451, "4.3.5", "mail is handed over by SMTP to a host")), true
	}
	t := r.newTarget(rule, "drain", "", q.Via)
	if t.hops != nil {
		a = r.static(t)
	} else {
		a = r.byDNS(t, r.finder.Find(ctx, t.search))
	}
	if len(a.Hops) == 0 {
		return handoverFails(q, a.Reply), true
	}
	a.Dest, a.Expires = t.dest+msg.DestHandover, time.Time{} // QMGR does not keep it
	return r.withRcptConf(ctx, s, q, a), true
}

// handoverFails is the answer if there is no way to the other MTA, which is no reason to give mail up.
func handoverFails(q *msg.RouteQ, why smtp.Reply) msg.RouteA {
	return msg.RouteA{Reply: msg.Kept(why), Trace: msg.Trace{{Check: "drain", Key: q.Via, Effect: why.String()}}}
}
