package confparse

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Reload says when a changed value of an option takes effect.
type Reload string

// The classes of a reload. The zero Reload stands for Restart.
const (
	// AtOnce: with the reload, for everything that is asked from then on.
	AtOnce Reload = "at once"
	// NewSessions: for sessions, connections and deliveries that begin later. Those that have begun
	// keep what they began with.
	NewSessions Reload = "new sessions"
	// Restart: with the next start of the process; Option.Why says why.
	Restart Reload = "restart"
	// NoEffect: the option changes nothing where it stands.
	NoEffect Reload = "no effect"
)

// Declare gives a class to all rows of a table that have none: its options, its sections, and what
// stands in these, whether the table exists already or is made later. why is the reason for Restart.
// It returns t. A row of its own, or a Declare further in, counts before it.
func (t *Table) Declare(r Reload, why string) *Table {
	t.declare(r, why, 0)
	return t
}

// Reloads gives a class to the rows of some names, whatever they had, but not to what stands in them.
// It returns t.
func (t *Table) Reloads(r Reload, why string, names ...string) *Table {
	for i := range t.Options {
		if o := &t.Options[i]; slices.Contains(names, o.Name) {
			o.Reload, o.Why = r, why
		}
	}
	return t
}

func (t *Table) declare(r Reload, why string, depth int) {
	if t == nil || depth > maxDeclare {
		return
	}
	for i := range t.Options {
		o := &t.Options[i]
		if o.Reload == "" {
			o.Reload, o.Why = r, why
		}
		o.Sub.declare(r, why, depth+1)
		if make := o.New; make != nil {
			o.New = func(name string) *Table { return make(name).Declare(r, why) }
		}
	}
	if make := t.Any; make != nil {
		t.Any = func(keyword, name string) *Table { return make(keyword, name).Declare(r, why) }
	}
}

// maxDeclare bounds how deep tables may stand in each other.
const maxDeclare = 32

// class is when a change of a row takes effect, and why not before. service says that it stands in a
// service section.
func (o *Option) class(service bool) (Reload, string) {
	switch {
	case o.Effect == None, o.Effect == NotYet, o.Effect == Host && !service:
		return NoEffect, ""
	case o.Reload == "":
		return Restart, o.Why
	}
	return o.Reload, o.Why
}

// Change is an option or section whose value differs between two configurations.
type Change struct {
	// Option is its path as in [Result.Origin]; sections that cannot be told apart by their titles have
	// their number behind them: "smar/dnsbl#2/tag".
	Option string `json:"option"`
	// Old and New are the values in the syntax of the configuration file: "" for none, *** for a secret,
	// { } for a section that is there.
	Old string `json:"old"`
	New string `json:"new"`
	// Where is file:line:col of the new value, or of the section that lacks it now; "" for a default.
	Where string `json:"where,omitempty"`
	// Reload says when it takes effect; Why is why it takes a restart.
	Reload Reload `json:"effect"`
	Why    string `json:"why,omitempty"`
}

// Changes lists what differs between two configurations, in the order of the newer one, what has gone
// last. Of a section that has come or gone it is one entry, without one for each of its options.
func Changes(old, now *Result) []Change {
	if old.Root == nil || now.Root == nil {
		return nil
	}
	d := &difference{}
	d.sections("", old.Root, now.Root)
	return d.all
}

type difference struct{ all []Change }

// sections compares a section with what it was.
func (d *difference) sections(path string, old, now *Section) {
	add := func(o *Option, c Change) {
		c.Reload, c.Why = o.class(now.service())
		c.Option = joinPath(path, o.Name)
		d.all = append(d.all, c)
	}
	for i := range now.Table.Options {
		o := &now.Table.Options[i]
		if o.kind() == KindSection {
			continue
		}
		was, is := old.own(o), now.own(o)
		if was != is && (was == nil || is == nil || !reflect.DeepEqual(was.Value, is.Value)) {
			c := Change{Old: was.masked(), New: is.masked()}
			if is != nil && is.IsSet {
				c.Where = is.Origin().String()
			}
			if c.Old != c.New || o.Secret { // an empty list is as good as none
				add(o, c)
			}
		}
	}
	known := old.titled()
	for _, s := range now.numbered() {
		p, was := joinPath(path, s.title), known[s.title]
		if was == nil || was.Present != s.Present && s.row != nil && s.row.Present != nil {
			c := Change{Option: p}
			if s.Present {
				c.New, c.Where = "{ }", s.Pos().String()
			} else {
				c.Old = "{ }"
			}
			c.classify(s.Section)
			d.all = append(d.all, c)
			continue
		}
		d.sections(p, was, s.Section)
	}
	left := now.titled()
	for _, s := range old.numbered() {
		if left[s.title] == nil {
			c := Change{Option: joinPath(path, s.title), Old: "{ }"}
			c.classify(s.Section)
			d.all = append(d.all, c)
		}
	}
}

// classify gives the class of a section that has come or gone.
func (c *Change) classify(s *Section) {
	if s.row != nil {
		c.Reload, c.Why = s.row.class(s.service())
		return
	}
	c.Reload, c.Why = serviceClass(s)
}

// serviceClass is the class of a service section that comes or goes: Restart, with the reason, if that is the class of any of its
// options, else AtOnce.
func serviceClass(s *Section) (Reload, string) {
	for i := range s.Table.Options {
		if class, why := s.Table.Options[i].class(true); class == Restart {
			return Restart, why
		}
	}
	return AtOnce, ""
}

func (s *Section) service() bool {
	for ; s != nil; s = s.parent {
		if s.Service {
			return true
		}
	}
	return false
}

// own is the setting of a row that has the same name and kind; nil if it has no value.
func (s *Section) own(o *Option) *Setting {
	for _, v := range s.Settings {
		if v.Option.kind() == o.kind() && v.Option.Name == o.Name {
			return v
		}
	}
	return nil
}

// masked is the value as a change shows it.
func (s *Setting) masked() string {
	switch {
	case s == nil:
		return ""
	case s.Option.Secret && s.Value != "":
		return "***"
	}
	text := s.Text()
	if text == "{ }" || text == `""` {
		return ""
	}
	return text
}

// titledSection is a section with the title that tells it from its neighbours.
type titledSection struct {
	*Section
	title string
}

// numbered are the sections in s; those of one title get their numbers, if there are several or the
// row lets them stand several times without a name.
func (s *Section) numbered() []titledSection {
	list := make([]titledSection, 0, len(s.Subs))
	seen := map[string]int{}
	for _, c := range s.Subs {
		title := c.Title()
		seen[strings.ToLower(title)]++
		if n := seen[strings.ToLower(title)]; n > 1 || c.row != nil && c.row.New != nil && c.Name == "" && c.row.Name != "smtps" {
			title += "#" + strconv.Itoa(n)
		}
		list = append(list, titledSection{c, title})
	}
	return list
}

func (s *Section) titled() map[string]*Section {
	all := map[string]*Section{}
	for _, c := range s.numbered() {
		all[c.title] = c.Section
	}
	return all
}

// Keep puts the values of a running configuration in the place of those that need a restart, in the
// settings and in the fields of the tables: what is declared Restart cannot change without one, whoever
// reads the fields. What the tables have made of sections that may stand several times, which came or went,
// is up to the caller. The two must have come from the same tables.
func (r *Result) Keep(running *Result) {
	if r.Root != nil && running.Root != nil {
		r.Root.keep(running.Root)
	}
}

// KeepIn puts the options and sections of some names that stand in a section of a running configuration in the place of
// those of r, in its settings alone: fields are up to the caller. path is that of the section, "" for the whole; a section
// may be named by its keyword or its title.
func (r *Result) KeepIn(running *Result, path string, names ...string) {
	s, was := r.Root.below(path), running.Root.below(path)
	if s == nil || was == nil {
		return
	}
	named := func(s *Setting) bool { return s.Option.kind() != KindSection && slices.Contains(names, s.Option.Name) }
	s.Settings = slices.DeleteFunc(s.Settings, named)
	for _, v := range was.Settings {
		if named(v) {
			s.Settings = append(s.Settings, v)
		}
	}
	called := func(s *Section) bool { return slices.Contains(names, s.Keyword) || slices.Contains(names, s.Title()) }
	s.Subs = slices.DeleteFunc(s.Subs, called)
	for _, c := range was.Subs {
		if called(c) {
			s.Subs = append(s.Subs, c)
		}
	}
}

// below is the section of a path; nil: there is none.
func (s *Section) below(path string) *Section {
	if path == "" {
		return s
	}
	for title := range strings.SplitSeq(path, "/") {
		if s == nil {
			return nil
		}
		s = s.titled()[title]
	}
	return s
}

// keep is Keep for one section.
func (s *Section) keep(running *Section) {
	for i := range s.Table.Options {
		o := &s.Table.Options[i]
		class, _ := o.class(s.service())
		if o.kind() == KindSection || class != Restart {
			continue
		}
		was, is := running.own(o), s.own(o)
		switch {
		case was == nil && is == nil:
			continue
		case was == nil:
			reflect.ValueOf(o.Into).Elem().SetZero()
			s.Settings = slices.DeleteFunc(s.Settings, func(v *Setting) bool { return v == is })
			continue
		case is == nil:
			is = &Setting{Option: o}
			s.Settings = append(s.Settings, is)
		}
		_ = o.store(was.Value) // it was stored in such a field before
		is.Value, is.IsSet, is.at = was.Value, was.IsSet, was.at
	}
	known, subs := running.titled(), make([]*Section, 0, len(s.Subs))
	for _, c := range s.numbered() {
		was := known[c.title]
		if was == nil && c.stays() {
			continue
		}
		subs = append(subs, c.Section)
		if was == nil {
			continue
		}
		if c.row != nil && c.row.Present != nil {
			if class, _ := c.row.class(s.service()); class == Restart {
				*c.row.Present, c.Present = was.Present, was.Present
			}
		}
		c.keep(was)
	}
	here := s.titled()
	for _, was := range running.numbered() {
		if here[was.title] == nil && was.stays() {
			subs = append(subs, was.Section)
		}
	}
	s.Subs = subs
}

// stays reports whether a section comes and goes with a restart only.
func (s *Section) stays() bool {
	if s.row == nil {
		class, _ := serviceClass(s)
		return s.parent != nil && class == Restart
	}
	class, _ := s.row.class(s.service())
	return class == Restart
}
