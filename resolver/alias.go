package resolver

import (
	"context"
	"fmt"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/resolver/alias"
)

// aliasMap is the aliases map (README 3.9.2, item 3).
type aliasMap struct {
	m    maps.Map
	name string
	cfg  AliasConfig
}

// userMap is the map of valid local addresses (README 3.9.2, item 7).
type userMap struct {
	m     maps.Map
	name  string
	steps maps.Steps
}

const addressSteps = maps.FullAddress | maps.DetailPlus | maps.DetailStar | maps.Star | maps.Domain | maps.DotSubdomain

func (l *loader) aliases() {
	c := l.cfg.Aliases
	if !c.Present && c.Name == "" {
		return
	}
	if !c.LocalPart && !c.LocalDomains && !c.AllDomains {
		c.LocalPart = true // README 3.9.3's examples have local parts
	}
	if m, name := l.named("aliases", c.MapRef); m != nil {
		l.set.aliases = &aliasMap{m: m, name: name, cfg: c}
	}
}

func (l *loader) localUsers() {
	c := l.cfg.LocalUser
	if c.Name == "" {
		return
	}
	steps := addressSteps | maps.LocalPart
	if c.MatchDetail {
		steps |= maps.MatchDetail
	}
	if m := l.declared(c.Name, nil); m != nil {
		l.set.users = &userMap{m: m, name: c.Name, steps: steps}
	}
}

// find looks an address up as the flags of the aliases section say. r is NotFound
// also if they exclude the address.
func (m *aliasMap) find(ctx context.Context, a maps.Address, local, wildcards bool) (key, sub, value string, r maps.Result) {
	var steps maps.Steps
	if m.cfg.AllDomains || m.cfg.LocalDomains && local {
		steps |= addressSteps
	}
	if m.cfg.LocalPart && local {
		steps |= maps.LocalPart
	}
	if steps&maps.Domain == 0 {
		a.Domain = "" // local parts only
	}
	if m.cfg.MatchDetail {
		steps |= maps.MatchDetail
	}
	if !wildcards {
		return m.findExact(ctx, a, steps)
	}
	return maps.FindAddress(ctx, m.m, "", a, steps)
}

// findExact is for owner- and verp- aliases: a catch-all entry is none.
func (m *aliasMap) findExact(ctx context.Context, a maps.Address, steps maps.Steps) (key, sub, value string, r maps.Result) {
	key, r = a.String(), maps.NotFound
	if a.Domain != "" {
		value, r = m.m.Lookup(ctx, key)
	}
	if r == maps.NotFound && steps&maps.LocalPart != 0 {
		key = a.Local()
		value, r = m.m.Lookup(ctx, key)
	}
	return key, "", value, r
}

// aliasFinder looks aliases up in one set of maps.
type aliasFinder struct {
	*Resolver
	set *set
}

// Alias implements alias.Finder.
func (f aliasFinder) Alias(ctx context.Context, p smtp.Path) (alias.Entry, bool, error) {
	return f.look(ctx, p, true)
}

// HasAlias implements alias.Finder.
func (f aliasFinder) HasAlias(ctx context.Context, p smtp.Path) (bool, error) {
	_, ok, err := f.look(ctx, p, false)
	return ok, err
}

func (f aliasFinder) look(ctx context.Context, p smtp.Path, wildcards bool) (alias.Entry, bool, error) {
	a := f.split(f.set, p)
	rule, err := f.find(ctx, f.set.mailertable, a)
	if err != nil {
		return alias.Entry{}, false, smtp.NewReply(451, "4.3.5", "mailertable lookup failed")
	}
	m := f.set.aliases
	key, sub, value, r := m.find(ctx, a, rule != nil && rule.local, wildcards)
	if r.Failed() {
		return alias.Entry{}, false, smtp.NewReply(451, "4.3.0", "aliases map lookup failed")
	}
	return alias.Entry{Map: m.name, Key: key, Sub: sub, Value: value}, r == maps.OK, nil
}

// expand follows the aliases of a recipient; done is false if it has none.
func (r *Resolver) expand(ctx context.Context, s *set, q *msg.RouteQ) (a msg.RouteA, done bool) {
	if !q.Expanded && r.deps.SRS.Takes(q.Rcpt) {
		return r.reverse(ctx, s, q), true
	}
	if q.Expanded || s.aliases == nil {
		return msg.RouteA{}, false
	}
	o := alias.Options{
		Home: s.home, Delimiters: s.cfg.Delimiter,
		ReplaceMacros: s.cfg.Aliases.ReplaceMacros, PreserveDomain: s.cfg.Aliases.PreserveDomain,
		KeepSender: q.Sender.IsNull(), // a DSN stays one (RFC 5321 section 4.5.5)
	}
	res, err := alias.Expand(ctx, aliasFinder{r, s}, o, q.Rcpt)
	if err == nil && res.Found && !res.Local {
		res.Groups, err = r.forwarding(ctx, s, q, res.Groups)
	}
	if err != nil {
		reply := asReply(err)
		return msg.RouteA{Reply: reply, Trace: msg.Trace{{Check: "alias", Key: q.Rcpt.Addr(), Effect: reply.String()}}}, true
	}
	if !res.Found || res.Local {
		return msg.RouteA{}, false
	}
	return msg.RouteA{Expand: res.Groups, Trace: res.Trace}, true
}

// hasAlias reports whether a recipient must be expanded, as far as a map that does
// not block can tell.
func (r *Resolver) hasAlias(s *set, q *msg.RouteQ) bool {
	if !q.Expanded && r.deps.SRS.Takes(q.Rcpt) {
		return true
	}
	if q.Expanded || s.aliases == nil {
		return false
	}
	e, ok, err := aliasFinder{r, s}.Alias(context.Background(), q.Rcpt)
	return err != nil || ok && e.Value != alias.LocalWord
}

// validates reports whether local addresses are checked (README 4.3.2). An aliases
// map that has full addresses of all domains only is no list of local users.
func (s *set) validates() bool {
	return s.users != nil || s.aliases != nil && (s.aliases.cfg.LocalPart || s.aliases.cfg.LocalDomains)
}

// isUser reports whether a local address is valid, and which map says so. <postmaster>
// always is (RFC 5321 section 4.5.1).
func (r *Resolver) isUser(ctx context.Context, s *set, a maps.Address) (msg.Step, bool, error) {
	step := msg.Step{Check: "local_user", Key: a.String()}
	if isPostmaster(a) {
		step.Effect = "postmaster is always valid"
		return step, true, nil
	}
	if m := s.aliases; m != nil {
		key, _, value, res := m.find(ctx, a, true, true)
		if done, err := userStep(&step, m.name, key, value, res); done {
			return step, true, err
		}
	}
	if m := s.users; m != nil {
		key, _, value, res := maps.FindAddress(ctx, m.m, "", a, m.steps)
		if done, err := userStep(&step, m.name, key, value, res); done {
			return step, true, err
		}
	}
	step.Effect = "no such local user"
	return step, false, nil
}

func userStep(step *msg.Step, name, key, value string, res maps.Result) (done bool, err error) {
	switch {
	case res.Failed():
		step.Map, step.Effect = name, res.String()+" "+value
		return true, fmt.Errorf("map %s: lookup of %q: %s %s", name, key, res, value)
	case res == maps.OK:
		if len(value) > 200 {
			value = value[:200] + "..."
		}
		step.Map, step.Key, step.Value, step.Effect = name, key, value, "valid local user"
		return true, nil
	}
	return false, nil
}
