package resolver

import (
	"context"
	"log/slog"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/tlsconf/pki"
	"meta1/resolver/access"
)

// check is one row of the table of checks. run reports whether it decided the
// stage: then the checks behind it are left out. Operations (README 3.12.2: steps
// that are not marked as check) never decide, and are left out only after a
// rejection.
type check struct {
	name      string
	operation bool
	run       func(*checker) bool
}

// stages are the checks of each stage in the order of README 3.12.2. It never changes.
var stages = [msg.StageSender + 1][]check{
	msg.StageConnect: {
		{name: "cltaddr", run: (*checker).cltaddr},
		{name: "client name", run: (*checker).clientName, operation: true},
		{name: "cltresolve", run: (*checker).cltresolve},
		{name: "cltname", run: (*checker).cltname},
		{name: "dnsbl", run: (*checker).dnsbl},
		{name: "session configuration", run: (*checker).sessionConf, operation: true},
	},
	msg.StageEhlo: {
		{name: "ehlo", run: (*checker).ehlo},
	},
	msg.StageTLS: {
		{name: "certificate", run: (*checker).certificate},
	},
	msg.StageSender: {
		{name: "sender_login", run: (*checker).senderLogin},
	},
	msg.StageMail: {
		{name: "routable", run: (*checker).senderRoutable},
		{name: "local sender", run: (*checker).senderValid},
		{name: "from", run: (*checker).from},
		{name: "mxbadip", run: (*checker).mxbadip},
	},
	msg.StageRcpt: {
		{name: "local", run: (*checker).rcptLocal},
		{name: "routing", run: (*checker).rcptRouting},
		{name: "relay", run: (*checker).rcptRelay},
		{name: "protectedrcpt", run: (*checker).rcptProtected},
		{name: "to", run: (*checker).rcptTo},
		{name: "greylisting", run: (*checker).rcptGreylist},
	},
}

// checkFast answers what needs neither DNS nor a socket map nor the disk.
func (r *Resolver) checkFast(q *msg.CheckQ) (msg.Verdict, bool) {
	c, _ := r.checkers.Get().(*checker)
	if c == nil {
		c = new(checker)
	}
	*c = newChecker(r, q)
	v, ok := c.quickVerdict()
	*c = checker{}
	r.checkers.Put(c)
	if ok && !q.Trial {
		r.metrics.checked(q.Stage, &v)
	}
	return v, ok
}

func (c *checker) quickVerdict() (msg.Verdict, bool) {
	if c.blocks() {
		return msg.Verdict{}, false
	}
	c.ctx, c.fast = context.Background(), true
	v := c.verdict()
	return v, !c.unknown
}

// checkSlow answers anything.
func (r *Resolver) checkSlow(ctx context.Context, q *msg.CheckQ) msg.Verdict {
	c := newChecker(r, q)
	c.ctx = ctx
	v := c.verdict()
	if !q.Trial {
		r.metrics.checked(q.Stage, &v)
	}
	return v
}

func checkFailed(reason string) msg.Verdict {
	return msg.Verdict{Action: msg.Reject, Reply: systemFailure(reason), Trace: msg.Trace{{Check: "resolver", Effect: reason}}, DecidedBy: 1}
}

// checker finds the verdict of one stage.
type checker struct {
	*Resolver
	set    *set
	q      *msg.CheckQ
	rules  msg.CheckRules
	access *accessMap // nil: none, or not to be used
	ctx    context.Context
	fast   bool // nothing that waits may be asked

	v       msg.Verdict
	unknown bool // fast, but the answer needs something that waits

	sender *msg.RouteA // where a DSN would go, after senderRoutable
	rule   *target     // of the recipient, after rcptLocal
	addr   maps.Address
	user   bool  // the recipient is a user of ours, says a map
	to     found // entry of the recipient under to:
	toDone bool
}

func newChecker(r *Resolver, q *msg.CheckQ) checker {
	c := checker{Resolver: r, set: r.set, q: q, rules: msg.CheckRules{Access: true}}
	if q.Rules != nil {
		c.rules = *q.Rules
	}
	if c.rules.Access {
		c.access = c.set.access
	}
	return c
}

// blocks reports whether a map that this stage may use waits for another process.
func (c *checker) blocks() bool {
	s := c.set
	return c.access != nil && c.access.m.Blocking() || c.q.Stage >= msg.StageMail && (s.mailertable.blocking() ||
		s.aliases != nil && s.aliases.m.Blocking() || s.users != nil && s.users.m.Blocking())
}

// verdict makes the checks of the stage in their order until one decides.
func (c *checker) verdict() msg.Verdict {
	decided := false
	for _, k := range stages[c.q.Stage] {
		if c.unknown || c.v.Action == msg.Reject {
			break
		}
		if k.operation {
			k.run(c)
		} else if !decided {
			decided = k.run(c)
		}
	}
	return c.v
}

func (c *checker) step(s msg.Step) {
	if c.v.Trace == nil {
		c.v.Trace = make(msg.Trace, 0, stepsUsual)
	}
	c.v.Trace = append(c.v.Trace, s)
}

// stepsUsual is room for the steps of a recipient that is allowed.
const stepsUsual = 2

// decide adds a step and notes that it is the one that decided so far.
func (c *checker) decide(s msg.Step) {
	c.step(s)
	c.v.DecidedBy = len(c.v.Trace)
}

// wait reports whether the check must stop because it would have to wait, and only a fast
// answer is wanted.
func (c *checker) wait() bool {
	c.unknown = c.unknown || c.fast
	return c.fast
}

// apply takes what the access map says into the verdict. It reports whether that
// decides: everything but cont and a missing entry does.
func (c *checker) apply(f found) bool {
	switch f.Word {
	case access.None, access.Cont:
		c.step(f.step)
		return false
	case access.Other:
		f.step.Effect = "ignored: not a right hand side of this tag"
		c.step(f.step)
		return false
	case access.OK:
		f.step.Effect = "accepted"
		c.mark(msg.MarkOK, msg.MarkQuickOK, f.Quick)
	case access.Relay:
		if c.forgeable() {
			f.step.Effect = "ignored: this tag cannot allow relaying"
			c.step(f.step)
			return false
		}
		f.step.Effect = "relaying allowed"
		c.mark(msg.MarkRelay, msg.MarkQuickRelay, f.Quick)
		// Only what is known of the client opens the session; to: allows its recipient.
		c.v.Relay = c.v.Relay || c.q.Stage != msg.StageRcpt
	case access.Discard:
		c.v.Action = msg.Discard
		f.step.Effect = "discarded"
	case access.Error:
		c.v.Action, c.v.Reply = msg.Reject, f.Reply
		if f.step.Effect == "" {
			f.step.Effect = "rejected"
		}
	}
	c.v.Quick = c.v.Quick || f.Quick
	c.decide(f.step)
	return true
}

// forgeable reports the stages at which the client says of itself what is looked up.
func (c *checker) forgeable() bool {
	return c.q.Stage == msg.StageEhlo || c.q.Stage == msg.StageMail
}

// mark marks the session, or at StageRcpt the recipient. What the client says of
// itself marks nothing, or anybody could escape greylisting.
func (c *checker) mark(plain, quick msg.Marks, isQuick bool) {
	if c.forgeable() {
		return
	}
	c.v.Marks |= plain
	if isQuick {
		c.v.Marks |= quick
	}
}

func (c *checker) reject(s msg.Step, reply smtp.Reply) bool {
	c.v.Action, c.v.Reply = msg.Reject, reply
	c.decide(s)
	return true
}

// broken returns a temporary rejection because a map lookup failed.
func (c *checker) broken(s msg.Step, err error) bool {
	c.log.LogAttrs(c.ctx, slog.LevelError, "map lookup failed", slog.String("where", c.q.Stage.String()), slog.String("stat", err.Error()))
	s.Effect = err.Error()
	return c.reject(s, smtp.NewReply(451, "4.3.5", "map lookup failed"))
}

// ehlo looks the argument of EHLO up (README 3.9.3).
func (c *checker) ehlo() bool {
	if c.access == nil || c.q.Client.Helo == "" || c.q.Marks&(msg.MarkQuickOK|msg.MarkQuickRelay) != 0 {
		return false
	}
	name := maps.Lower(c.q.Client.Helo)
	return c.apply(c.access.keys(c.ctx, "ehlo:", name, maps.DomainKeys(name, maps.DotSubdomain)))
}

// certificate looks the names of a verified client certificate up (README 3.10, item
// 24o): the issuer, and if that gives cont the subject. Only relay means anything.
func (c *checker) certificate() bool {
	if c.access == nil {
		return false
	}
	for _, k := range []struct{ tag, dn string }{{"certissuer:", c.q.CertIssuer}, {"certsubject:", c.q.CertSubject}} {
		key := pki.EncodeName(k.dn)
		f := c.access.exact(c.ctx, k.tag, key)
		switch f.Word {
		case access.Relay:
			return c.apply(f)
		case access.Cont:
			c.step(f.step)
			continue
		}
		f.step.Effect = "no relaying"
		c.step(f.step)
		return false
	}
	return false
}
