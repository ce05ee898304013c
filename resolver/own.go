package resolver

import (
	"context"
	"fmt"

	"meta1/maps"
	"meta1/mta/smtp"
	"meta1/resolver/alias"
)

// What belongs to this host itself: its postmaster, and its own name.

// postmaster is the local part that each domain has (RFC 5321 section 4.5.1).
const postmaster = "postmaster"

// ownUsers are those to whom mail comes that nobody on this host has addressed by
// intention: postmaster, and root, who gets the mail of cron and the like.
var ownUsers = [...]string{postmaster, "root"}

// isPostmaster reports the local part postmaster, in any case.
func isPostmaster(a maps.Address) bool { return maps.Lower(a.Local()) == postmaster }

// isOwnPostmaster reports the address that each mail server must take mail for: without
// a domain, and at its own name (RFC 5321 section 4.5.1). Entries that refuse it by name
// still do.
func (c *checker) isOwnPostmaster() bool {
	domain := c.q.Rcpt.To.LowerDomain()
	return isPostmaster(c.addr) && (domain == "" || domain == c.deps.Hostname)
}

// bareDomain is the domain in which <postmaster> is looked up: our host name if the
// mailertable has it, else localhost or the first domain if they are local, since the
// host name alone would lead back to us.
func (r *Resolver) bareDomain(t *table) string {
	name := r.deps.Hostname
	switch {
	case t == nil || t.rules[name] != nil:
		return name
	case t.rules["localhost"] != nil && t.rules["localhost"].local:
		return "localhost"
	case t.firstLocal != "":
		return t.firstLocal
	}
	return name
}

// CheckOwn says which mail for postmaster and root at our own name would not arrive, as far
// as the mailertable and aliases tell. DNS is not asked: it may send our name elsewhere.
// Nor are maps that may have to wait.
func (r *Resolver) CheckOwn(ctx context.Context) []error {
	s := r.set
	if s.mailertable.blocking() || s.aliases != nil && s.aliases.m.Blocking() || s.users != nil && s.users.m.Blocking() {
		return nil
	}
	var list []error
	for _, user := range ownUsers {
		if err := r.checkRoute(ctx, s, smtp.Path{Local: user, Domain: r.deps.Hostname}); err != nil {
			list = append(list, err)
		}
	}
	return list
}

// checkRoute says what is wrong with the route of an address at our own name. A lookup that
// fails is another's to report.
func (r *Resolver) checkRoute(ctx context.Context, s *set, p smtp.Path) error {
	if s.aliases != nil {
		if e, ok, err := (aliasFinder{r, s}).Alias(ctx, p); err != nil || ok && e.Value != alias.LocalWord {
			return nil
		}
	}
	a := r.split(s, p)
	rule, err := r.find(ctx, s.mailertable, a)
	switch {
	case err != nil || rule == nil && r.only != nil:
		return nil
	case rule != nil && rule.local && s.validates():
		if _, ok, err := r.isUser(ctx, s, a); ok || err != nil {
			return nil
		}
		return fmt.Errorf("mail for %s is refused: the mailertable makes %s local, but neither aliases nor local_user_map has %s", p, p.Domain, p.Local)
	case rule != nil && (rule.hops != nil || rule.search.Name != "" && maps.Lower(rule.search.Name) != p.Domain):
		return nil
	}
	return fmt.Errorf("mail for %s comes back to this host, unless DNS has an MX record that sends %s elsewhere: "+
		"add an entry for %s to the mailertable, or one for the address to aliases", p, p.Domain, p.Domain)
}
