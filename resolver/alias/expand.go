package alias

import (
	"context"
	"strconv"
	"strings"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Limits of an expansion.
const (
	MaxDepth   = 5      // levels of nesting (README 3.9.3)
	MaxMembers = 200000 // recipients
	MaxGroups  = 1000   // lists with an owner of their own: each gets a copy of the message
)

// Entry is an alias that was found.
type Entry struct {
	Map, Key string
	Sub      string // what the leading dot of the key stood for in the domain
	Value    string
}

// Finder looks aliases up.
type Finder interface {
	// Alias gives the alias of an address; ok is false if it has none. An error is a
	// failed lookup: a temporary Reply.
	Alias(ctx context.Context, p smtp.Path) (e Entry, ok bool, err error)
	// HasAlias reports whether there is an entry for the address as an owner- or
	// verp- alias has it: no wildcard of the list itself counts.
	HasAlias(ctx context.Context, p smtp.Path) (bool, error)
}

// Options say how right hand sides are read.
type Options struct {
	Home           string // domain of addresses without one
	Delimiters     string // address_delimiter
	ReplaceMacros  bool
	PreserveDomain bool // addresses without domain get that of the alias, not Home
	KeepSender     bool // owner- and verp- aliases do not count
}

// Result is what an address stands for.
type Result struct {
	// Found: there is an alias. Local: it says that the address is a valid local one,
	// and nothing more.
	Found, Local bool
	// Groups has each recipient once: in that of the list in which it is found first.
	Groups []msg.Expansion
	Trace  msg.Trace
}

// Expand follows the alias of an address and the aliases in it. What a list with an
// owner- alias holds, at any level, has that owner; an alias without one belongs to the
// list that it stands in, and a verp- alias is for the owner's group. An address that
// occurs among those that led to it is not followed again: it stands for itself, so
// that "user: user" and lists that hold their own name work. The error is a Reply:
// permanent if the aliases are nested too deep, else temporary.
func Expand(ctx context.Context, f Finder, o Options, p smtp.Path) (Result, error) {
	e, ok, err := f.Alias(ctx, p)
	if err != nil || !ok {
		return Result{}, err
	}
	x := &expansion{
		ctx: ctx, Finder: f, Options: o,
		seen: map[string]bool{}, done: map[string]bool{}, group: map[sender]int{},
	}
	x.Found = true
	if e.Value == LocalWord {
		x.Local = true
		x.step(e, "valid local address")
		return x.Result, nil
	}
	if err := x.members(p, e, []string{key(p)}, sender{}); err != nil {
		return Result{}, err
	}
	if len(x.seen) == 1 && x.seen[key(p)] {
		x.Local, x.Groups = true, nil // it stands for itself alone
	}
	return x.Result, nil
}

// Members gives the addresses of a right hand side without following any; home is
// the domain of those that have none. LocalWord has none.
func Members(value, home string) ([]smtp.Path, error) {
	if value == LocalWord {
		return nil, nil
	}
	list, err := parse(value)
	if err != nil {
		return nil, err
	}
	paths := make([]smtp.Path, 0, len(list))
	for _, m := range list {
		p, err := mailbox(m, home)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

type expansion struct {
	ctx context.Context
	Finder
	Options
	Result
	seen  map[string]bool // recipients taken
	done  map[string]bool // aliases expanded: a second time they would give nothing new
	group map[sender]int  // places in Groups
}

// sender is who sends to the members of a list.
type sender struct {
	owner smtp.Path // zero: who sent to the list
	verp  bool
}

// key tells recipients apart: domains without regard to case and spelling.
func key(p smtp.Path) string { return p.Local + "@" + p.LowerDomain() }

// maxSteps bounds the trace: what a list of 100,000 members expands to is counted,
// not listed.
const maxSteps = 20

func (x *expansion) step(e Entry, effect string) {
	if len(x.Trace) >= maxSteps {
		return
	}
	value := e.Value
	if len(value) > 200 {
		value = value[:200] + "..."
	}
	x.Trace = append(x.Trace, msg.Step{Check: "alias", Map: e.Map, Key: e.Key, Value: value, Effect: effect})
}

// sender finds who sends to the members of an alias that stands in a list with the
// sender outer: owner-list and verp-list beside it tell. The domain of the original
// address is kept (README 3.9.3).
func (x *expansion) sender(p smtp.Path, outer sender) (sender, error) {
	if x.KeepSender {
		return outer, nil
	}
	user := maps.ParseAddress(p.Local, p.LowerDomain(), x.Delimiters).User
	owner := smtp.Path{Local: quote("owner-" + user), Domain: p.Domain}
	ok, err := x.HasAlias(x.ctx, owner)
	if err != nil {
		return outer, err
	}
	if ok && !strings.HasPrefix(maps.Lower(user), "owner-") {
		outer = sender{owner: owner}
	}
	verp, err := x.HasAlias(x.ctx, smtp.Path{Local: quote("verp-" + user), Domain: p.Domain})
	outer.verp = outer.verp || verp
	return outer, err
}

// members expands the right hand side of an alias. path are the keys that led to
// it, its own last; outer is the sender of the list in which it stands.
func (x *expansion) members(p smtp.Path, e Entry, path []string, outer sender) error {
	from, err := x.sender(p, outer)
	if err != nil {
		return err
	}
	list, err := parse(e.Value)
	if err != nil {
		return x.bad(e, err)
	}
	x.step(e, strconv.Itoa(len(list))+" addresses")
	a := maps.ParseAddress(p.Local, p.LowerDomain(), x.Delimiters)
	home := x.Home
	if x.PreserveDomain && p.Domain != "" {
		home = p.Domain
	}
	for _, m := range list {
		if x.ReplaceMacros {
			m = replaceMacros(m, a, strings.TrimSuffix(e.Sub, "."))
		}
		member, err := mailbox(m, home)
		if err != nil {
			return x.bad(e, err)
		}
		if err := x.member(member, path, from); err != nil {
			return err
		}
	}
	return nil
}

func (x *expansion) bad(e Entry, err error) error {
	return smtp.NewReply(451, "4.3.5", "alias "+e.Key+" cannot be read: "+err.Error())
}

// member follows one address, or takes it as it is.
func (x *expansion) member(p smtp.Path, path []string, from sender) error {
	k := key(p)
	for _, before := range path {
		if before == k {
			return x.take(k, p, from)
		}
	}
	if x.seen[k] || x.done[k] {
		return nil
	}
	if err := x.ctx.Err(); err != nil {
		return smtp.NewReply(451, "4.3.0", "alias expansion took too long")
	}
	e, ok, err := x.Alias(x.ctx, p)
	if err != nil {
		return err
	}
	if !ok || e.Value == LocalWord {
		return x.take(k, p, from)
	}
	if len(path) >= MaxDepth {
		return smtp.NewReply(550, "5.4.6", "aliases are nested more than 5 levels deep")
	}
	x.done[k] = true
	return x.members(p, e, append(path[:len(path):len(path)], k), from)
}

// take makes an address a recipient.
func (x *expansion) take(k string, p smtp.Path, from sender) error {
	if x.seen[k] {
		return nil
	}
	if len(x.seen) >= MaxMembers {
		return smtp.NewReply(451, "4.3.5", "alias has too many members")
	}
	i, ok := x.group[from]
	if !ok {
		if i = len(x.Groups); i >= MaxGroups {
			return smtp.NewReply(451, "4.3.5", "alias holds too many lists with owners of their own")
		}
		x.group[from] = i
		x.Groups = append(x.Groups, msg.Expansion{Owner: from.owner, VERP: from.verp})
	}
	x.seen[k] = true
	x.Groups[i].Rcpts = append(x.Groups[i].Rcpts, p)
	return nil
}
