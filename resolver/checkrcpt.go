package resolver

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/access"
	"meta1/resolver/alias"
	"meta1/resolver/greylist"
)

// rcptLocal finds out whether the recipient is local, and if so whether it exists
// (README 3.12.2, RCPT 1.1).
func (c *checker) rcptLocal() bool {
	c.addr = c.split(c.set, c.q.Rcpt.To)
	if c.deps.SRS.Takes(c.q.Rcpt.To) {
		return c.rcptSRS()
	}
	rule, err := c.find(c.ctx, c.set.mailertable, c.addr)
	if err != nil {
		return c.broken(msg.Step{Check: "mailertable", Key: c.addr.String()}, err)
	}
	if rule == nil || !rule.local {
		return false
	}
	c.rule = rule
	// The steps so far are those of the rule: its trace is shared, not copied.
	c.v.Trace = rule.trace[:len(rule.trace):len(rule.trace)]
	if !c.set.validates() {
		return false
	}
	step, ok, err := c.isUser(c.ctx, c.set, c.addr)
	switch {
	case err != nil:
		return c.broken(step, err)
	case !ok:
		return c.reject(step, smtp.NewReply(550, "5.1.1", "User unknown"))
	}
	c.user = true
	c.step(step)
	return false
}

// rcptRouting refuses strangers' mail that asks for a way through the domain to another
// destination, as user%host@domain does. The domain's server may well follow it, since it
// trusts us. Addresses that stand in a map as they are name somebody there.
func (c *checker) rcptRouting() bool {
	if c.q.Relaying || c.user || c.rules.UntrustedRouting || !isRoute(c.addr.Local(), c.rule == nil || !c.rule.local) {
		return false
	}
	if c.access != nil {
		f := c.lookupTo()
		if (f.Word == access.OK || f.Word == access.Relay) && strings.EqualFold(f.step.Key, "to:"+c.addr.String()) {
			return false
		}
	}
	return c.reject(msg.Step{Check: "routing", Key: c.q.Rcpt.To.Addr(), Effect: "the local part names another destination"},
		smtp.NewReply(550, "5.7.1", "Routing by the address is not allowed"))
}

// isRoute reports whether a local part names a destination of its own: user%host and
// host!user, and if mail goes on by SMTP also "user@host.domain", which Postfix follows.
// Other uses of these characters are ordinary local parts.
func isRoute(local string, relayed bool) bool {
	isName := func(s string) bool { return smtp.CheckHelo(s) == nil }
	if i := strings.LastIndexByte(local, '%'); i > 0 && isName(local[i+1:]) {
		return true
	}
	if host, user, ok := strings.Cut(local, "!"); ok && user != "" && isName(host) {
		return true
	}
	i := strings.LastIndexByte(local, '@')
	return relayed && i > 0 && isName(local[i+1:]) && strings.ContainsAny(local[i+1:], ".[")
}

// isLocal reports that the recipient is local, so that mail to it is no relaying.
func (c *checker) isLocal() bool { return c.rule != nil && !c.rules.LMTPNoRelay }

// lookupTo looks the recipient up under to:, once.
func (c *checker) lookupTo() found {
	if !c.toDone {
		c.to, c.toDone = c.access.address(c.ctx, "to:", c.addr, maps.AllAddress), true
	}
	return c.to
}

// rcptRelay checks that the recipient may be relayed to (README 3.12.2, RCPT 1.2).
func (c *checker) rcptRelay() bool {
	switch {
	case c.isLocal():
		return false
	case c.isOwnPostmaster():
		c.step(msg.Step{Check: "relay", Key: c.q.Rcpt.To.Addr(), Effect: "mail to our postmaster is always taken"})
		return false
	case c.q.Relaying:
		c.step(msg.Step{Check: "relay", Key: c.q.Rcpt.To.Addr(), Effect: "the session may relay"})
		return false
	case c.access != nil:
		switch f := c.lookupTo(); f.Word {
		case access.Relay:
			return false // rcptTo applies it
		case access.Error, access.Discard:
			return c.apply(f)
		}
		c.step(c.to.step)
	}
	return c.reject(msg.Step{Check: "relay", Key: c.q.Rcpt.To.Addr(), Effect: "neither local nor allowed"},
		smtp.NewReply(550, "5.7.1", "Relaying denied"))
}

// rcptTo looks the recipient up for other restrictions (README 3.12.2, RCPT 2.2).
// Only a rejection or discard decides: greylisting may follow an ok.
func (c *checker) rcptTo() bool {
	// Under quick:ok the entry is needed only to allow relaying (README 3.9.3).
	m, taken := c.q.Marks, c.q.Relaying || c.isLocal() || c.isOwnPostmaster()
	if c.access == nil || m&msg.MarkQuickRelay != 0 || m&msg.MarkQuickOK != 0 && taken {
		return false
	}
	c.apply(c.lookupTo())
	return c.v.Action != msg.Accept
}

// rcptProtected checks the restrictions under protectedrcpt: (README 3.10.3). One
// that matches is enough.
func (c *checker) rcptProtected() bool {
	if c.access == nil || !c.rules.ProtectSender && !c.rules.ProtectClient {
		return false
	}
	f := c.access.protected(c.ctx, c.addr, c.protectSteps())
	switch f.Word {
	case access.None:
		return false
	case access.Other:
	default:
		return c.apply(f)
	}
	temporary := false
	for _, r := range strings.Fields(f.Text) {
		if strings.EqualFold(r, "temp:") {
			temporary = true
			continue
		}
		ok, err := c.allowedBy(r)
		if err != nil {
			return c.broken(f.step, err)
		}
		if ok {
			f.step.Effect = "allowed by " + r
			c.step(f.step)
			return false
		}
	}
	f.step.Effect = "no restriction is met"
	if temporary {
		return c.reject(f.step, smtp.NewReply(451, "4.7.1", "You may not send mail to this recipient now"))
	}
	return c.reject(f.step, smtp.NewReply(550, "5.7.1", "You may not send mail to this recipient"))
}

// protectSteps are the lookup steps of match_type; 0 for exact matches.
func (c *checker) protectSteps() maps.Steps {
	switch {
	case c.rules.ProtectDetail:
		return maps.AllAddress | maps.MatchDetail
	case c.rules.ProtectGeneric:
		return maps.AllAddress
	}
	return 0
}

// protected looks a recipient up under protectedrcpt:, exactly or with steps.
func (m *accessMap) protected(ctx context.Context, a maps.Address, steps maps.Steps) found {
	if steps != 0 {
		return m.address(ctx, "protectedrcpt:", a, steps)
	}
	return m.keys(ctx, "protectedrcpt:", a.String(), func(yield func(string) bool) {
		if yield(a.String()) {
			yield(a.Local())
		}
	})
}

// allowedBy checks one restriction: from:sender, cltaddr:address, list:alias.
func (c *checker) allowedBy(restriction string) (bool, error) {
	tag, arg, _ := strings.Cut(restriction, ":")
	arg = strings.TrimSuffix(strings.TrimPrefix(arg, "<"), ">")
	switch maps.Lower(tag) {
	case "from":
		return c.rules.ProtectSender && c.senderMatches(arg), nil
	case "list":
		if !c.rules.ProtectSender {
			return false, nil
		}
		return c.inList(arg)
	case "cltaddr":
		return c.rules.ProtectClient && c.clientMatches(arg), nil
	}
	return false, nil
}

func (c *checker) senderMatches(pattern string) bool {
	from := c.q.Mail.From
	a := maps.ParseAddress(from.Local, from.LowerDomain(), c.set.cfg.Delimiter)
	pattern = maps.Lower(pattern)
	if steps := c.protectSteps(); steps != 0 {
		for key := range a.Keys(steps) {
			if maps.Lower(key) == pattern {
				return true
			}
		}
		return false
	}
	return maps.Lower(a.String()) == pattern
}

func (c *checker) clientMatches(pattern string) bool {
	ip := c.q.Client.IP
	if c.protectSteps() == 0 {
		return maps.FullIP(ip) == maps.Lower(pattern)
	}
	for key := range maps.IPKeys(ip) {
		if key == maps.Lower(pattern) {
			return true
		}
	}
	return false
}

// inList reports whether the sender is a member of an alias. Members that are lists
// themselves are not followed.
func (c *checker) inList(name string) (bool, error) {
	if c.set.aliases == nil {
		return false, nil
	}
	local, domain, _ := strings.Cut(name, "@")
	f := aliasFinder{c.Resolver, c.set}
	e, ok, err := f.Alias(c.ctx, smtp.Path{Local: local, Domain: domain})
	if err != nil || !ok {
		return false, err
	}
	members, err := alias.Members(e.Value, c.set.home)
	if err != nil {
		return false, err
	}
	for _, m := range members {
		if c.senderMatches(m.Addr()) {
			return true, nil
		}
	}
	return false, nil
}

// rcptGreylist makes clients wait that are not known (README 3.9.4). It comes last,
// so that only mail that would be accepted is remembered.
func (c *checker) rcptGreylist() bool {
	if c.grey == nil || !c.greylisted() || !c.q.Client.IP.IsValid() {
		return false
	}
	if c.wait() {
		return false
	}
	k := greylist.Key{Client: c.q.Client.IP}
	if c.rules.Greylist == msg.GreylistFull {
		k.Sender, k.Rcpt = c.q.Mail.From.Addr(), c.q.Rcpt.To.Addr()
	}
	check := c.grey.Check
	if c.q.Trial {
		check = c.grey.Would
	}
	state, err := check(c.ctx, k, time.Now())
	step := msg.Step{Check: "greylisting", Key: maps.FullIP(c.q.Client.IP), Value: state.String()}
	if err != nil {
		// A broken store must not stop mail.
		c.log.LogAttrs(c.ctx, slog.LevelError, "greylisting failed", slog.String("stat", err.Error()))
		step.Effect = "skipped: " + err.Error()
		c.step(step)
		return false
	}
	if state == greylist.White {
		c.step(step)
		return false
	}
	c.v.Greylisted = true
	step.Effect = "must come back later"
	return c.reject(step, smtp.NewReply(421, "4.7.1", "Greylisted, please try again later"))
}

// greylisted reports whether the recipient is subject to greylisting: the server
// wants it, or the access map does for this recipient (README 3.10, item 4i), and
// neither the session nor the recipient is exempt.
func (c *checker) greylisted() bool {
	exempt := c.q.Relaying || c.q.Marks&(msg.MarkOK|msg.MarkRelay) != 0 ||
		c.v.Marks&(msg.MarkQuickOK|msg.MarkQuickRelay) != 0
	if exempt || c.rules.Greylist != msg.GreylistOff {
		return !exempt
	}
	if c.access == nil || !c.rules.RcptConf {
		return false
	}
	f := c.access.address(c.ctx, "smtps_rcpt_conf:", c.addr, maps.AllAddress)
	c.step(f.step)
	if f.Word != access.Other {
		return false
	}
	conf, err := msg.ParseConf(f.Text)
	if err != nil {
		c.log.LogAttrs(c.ctx, slog.LevelError, "access map entry cannot be read", slog.String("where", f.step.Key), slog.String("stat", err.Error()))
		return false
	}
	return conf.HasFlag("greylisting")
}
