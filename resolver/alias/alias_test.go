package alias

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// table is a Finder over full addresses with the steps of README 3.12.1.
type table struct{ m maps.Map }

func newTable(t testing.TB, text string) table {
	t.Helper()
	m, err := maps.ReadText(strings.NewReader(text), "aliases", false)
	if err != nil {
		t.Fatal(err)
	}
	return table{m: m}
}

func (t table) find(ctx context.Context, p smtp.Path, steps maps.Steps) (Entry, bool, error) {
	if p.Local == "broken" {
		return Entry{}, false, smtp.NewReply(451, "4.3.0", "map is broken")
	}
	k, sub, v, r := maps.FindAddress(ctx, t.m, "", maps.ParseAddress(p.Local, p.Domain, "+"), steps)
	return Entry{Map: "aliases", Key: k, Sub: sub, Value: v}, r == maps.OK, nil
}

func (t table) Alias(ctx context.Context, p smtp.Path) (Entry, bool, error) {
	return t.find(ctx, p, maps.AllAddress|maps.MatchDetail)
}

func (t table) HasAlias(ctx context.Context, p smtp.Path) (bool, error) {
	_, ok, err := t.find(ctx, p, maps.FullAddress|maps.LocalPart)
	return ok, err
}

func path(t testing.TB, s string) smtp.Path {
	t.Helper()
	p, err := smtp.ParseMailbox(s, smtp.ASCII)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// show lists the recipients of all groups.
func show(groups []msg.Expansion) string {
	var words []string
	for _, g := range groups {
		for _, p := range g.Rcpts {
			words = append(words, p.Addr())
		}
	}
	return strings.Join(words, " ")
}

// first is the first group.
func first(r Result) (g msg.Expansion) {
	if len(r.Groups) > 0 {
		g = r.Groups[0]
	}
	return g
}

// The first entries are README 3.9.3's, 3.12.3's, 4.3.2's and 3.14's; addresses that
// its conversion to text lost are restored.
const entries = `myalias localuser
mylist <user1@my.dom> <user2@my.dom> <user3@my.dom>
owner-mylist someuser
otherlist <user5@my.dom> <user6@other.dom>
verp-otherlist something
postmaster <user@host.domain>
abuse user+abuse
user local:
alias*@.domain user${extension}@${subdomain}.domain
self self
both <both@home.example> <elsewhere@x.example>
ring1 ring2
ring2 ring1
l1 l2
l2 l3
l3 l4
l4 l5
l5 end@x.example
l6 l1
twice <a@x.example> <a@X.example> <A@x.example> <mylist@home.example>
bomb1 <bomb2@home.example> <b2@home.example> <b3@home.example>
quoted <"john doe"@x.example> <"a>b"@x.example>
macros ${user}.${detail}.${delimiter}${domain}@x.example
inject "${user}"@x.example
comma <a@x.example>, <b@x.example>
words two words
nospace <a@x.example><b@x.example>
open <a@x.example
nobody <>
bad <a@b@c..d>
failing <broken@home.example>
owner-self2 <x@x.example>
`

func TestExpand(t *testing.T) {
	f := newTable(t, entries)
	for _, c := range []struct{ addr, rcpts, owner, note string }{
		{"myalias@home.example", "localuser@home.example", "", ""},
		{"mylist@home.example", "user1@my.dom user2@my.dom user3@my.dom", "owner-mylist@home.example", ""},
		{"mylist+x@home.example", "user1@my.dom user2@my.dom user3@my.dom", "owner-mylist@home.example", ""},
		{"MyList@home.example", "user1@my.dom user2@my.dom user3@my.dom", "owner-MyList@home.example", ""},
		{"otherlist@home.example", "user5@my.dom user6@other.dom", "", "verp"},
		{"postmaster@home.example", "user@host.domain", "", ""},
		{"abuse@home.example", "user+abuse@home.example", "", ""},
		{"user@home.example", "", "", "local"},
		{"alias@host.domain", "user@host.domain", "", ""},
		{"alias+detail@host2.domain", "user+detail@host2.domain", "", ""},
		{"nothing@home.example", "", "", "none"},
		{"self@home.example", "", "", "local"},
		{"both@home.example", "both@home.example elsewhere@x.example", "", ""},
		{"ring1@home.example", "ring1@home.example", "", "local-ish"},
		{"l1@home.example", "end@x.example", "", ""},
		{"l6@home.example", "", "", "550 5.4.6"},
		{"twice@home.example", "a@x.example A@x.example user1@my.dom user2@my.dom user3@my.dom", "", ""},
		{"quoted@home.example", `"john doe"@x.example "a>b"@x.example`, "", ""},
		{"macros+d@home.example", "macros.d.+home.example@x.example", "", ""},
		{"inject@home.example", `"${user}"@x.example`, "", ""},
		{"comma@home.example", "", "", "451 4.3.5"},
		{"words@home.example", "", "", "451 4.3.5"},
		{"nospace@home.example", "", "", "451 4.3.5"},
		{"open@home.example", "", "", "451 4.3.5"},
		{"nobody@home.example", "", "", "451 4.3.5"},
		{"bad@home.example", "", "", "451 4.3.5"},
		{"failing@home.example", "", "", "451 4.3.0"},
		{"owner-self2@home.example", "x@x.example", "", ""},
	} {
		t.Run(c.addr, func(t *testing.T) {
			r, err := Expand(t.Context(), f, Options{Home: "home.example", Delimiters: "+", ReplaceMacros: true}, path(t, c.addr))
			note := ""
			var reply smtp.Reply
			switch {
			case errors.As(err, &reply):
				note = reply.String()
			case !r.Found:
				note = "none"
			case r.Local && c.note == "local-ish":
				r.Groups, note = []msg.Expansion{{Rcpts: []smtp.Path{path(t, c.addr)}}}, c.note
			case r.Local:
				note = "local"
			case first(r).VERP:
				note = "verp"
			}
			if show(r.Groups) != c.rcpts || first(r).Owner.Addr() != c.owner || !strings.HasPrefix(note, c.note) || c.note == "" && note != "" {
				t.Errorf("got %q owner %q %q, want %q %q %q", show(r.Groups), first(r).Owner.Addr(), note, c.rcpts, c.owner, c.note)
			}
			if r.Found && len(r.Trace) == 0 {
				t.Error("no trace")
			}
		})
	}
}

func TestPreserveDomain(t *testing.T) {
	f := newTable(t, "vuser@virt.example: user1\nvuser user1\n")
	for preserve, want := range map[bool]string{true: "user1@virt.example", false: "user1@home.example"} {
		r, err := Expand(t.Context(), f, Options{Home: "home.example", PreserveDomain: preserve}, path(t, "vuser@virt.example"))
		if err != nil || show(r.Groups) != want {
			t.Errorf("preserve=%v: %q %v, want %q", preserve, show(r.Groups), err, want)
		}
	}
}

// A local part that a peer made up must stay one address.
func TestMacrosCannotInject(t *testing.T) {
	f := newTable(t, "@x.example <${user}${extension}@y.example> <${detail}@y.example>\n")
	for _, local := range []string{`"a> <victim@z.example"`, `"a\" <b@c>"`, `"a+b> <c@d"`, `"${domain}"`, `"a b"`} {
		r, err := Expand(t.Context(), f, Options{Home: "h.example", Delimiters: "+", ReplaceMacros: true}, smtp.Path{Local: local, Domain: "x.example"})
		if err != nil {
			continue // an empty detail is no address
		}
		if len(first(r).Rcpts) > 2 {
			t.Errorf("%s became %s", local, show(r.Groups))
		}
		for _, p := range first(r).Rcpts {
			if p.Domain != "y.example" {
				t.Errorf("%s became %s", local, show(r.Groups))
			}
			if _, err := smtp.ParseMailbox(p.Addr(), smtp.UTF8); err != nil {
				t.Errorf("%s became %s: %v", local, p, err)
			}
		}
	}
}

// 100,000 members; and lists that name each other so often that following each
// would never end.
func TestLarge(t *testing.T) {
	var b strings.Builder
	b.WriteString("big ")
	for i := range 100000 {
		fmt.Fprintf(&b, "<user%d@example.org> ", i)
	}
	b.WriteString("\n")
	for level := range 5 {
		fmt.Fprintf(&b, "n%d ", level)
		for range 200 {
			fmt.Fprintf(&b, "<n%d@home.example> ", level+1)
		}
		b.WriteString("\n")
	}
	b.WriteString("huge ")
	for i := range MaxMembers + 1 {
		fmt.Fprintf(&b, "<u%d@e.org> ", i)
	}
	b.WriteString("\n")
	f := newTable(t, b.String())
	start := time.Now()
	r, err := Expand(t.Context(), f, Options{Home: "home.example", Delimiters: "+"}, path(t, "big@home.example"))
	if err != nil || len(first(r).Rcpts) != 100000 {
		t.Errorf("%d members, %v", len(first(r).Rcpts), err)
	}
	if r, err := Expand(t.Context(), f, Options{Home: "home.example"}, path(t, "n0@home.example")); err != nil || show(r.Groups) != "n5@home.example" {
		t.Errorf("%s %v", show(r.Groups), err)
	}
	t.Logf("took %v", time.Since(start))
	if _, err := Expand(t.Context(), f, Options{Home: "home.example"}, path(t, "huge@home.example")); err == nil {
		t.Error("too many members were accepted")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Expand(ended, f, Options{Home: "home.example"}, path(t, "big@home.example")); err == nil {
		t.Error("the expansion went on after the end of its context")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"<a@b> <c@d>", "user", `<"a>b"@c>`, "<a${user}@${subdomain}.c>", "<>", "local:"} {
		f.Add(s, "u+d")
	}
	f.Fuzz(func(t *testing.T, value, local string) {
		list, err := parse(value)
		if err != nil {
			return
		}
		for _, m := range list {
			m = replaceMacros(m, maps.ParseAddress(local, "x.example", "+"), "s")
			p, err := mailbox(m, "h.example")
			if err != nil {
				continue
			}
			if _, err := smtp.ParseMailbox(p.Addr(), smtp.UTF8); err != nil {
				t.Errorf("%q gives the bad address %q", value, p.Addr())
			}
		}
	})
}

// TestPrograms: what is a program or a file to other MTAs is no address, unless it has a domain.
func TestPrograms(t *testing.T) {
	for value, bad := range map[string]bool{
		"|/usr/bin/vacation": true, `"|/usr/bin/procmail -t"`: true, "/var/mail/archive": true, `"/var/mail/a b"`: true,
		"/C=de/S=joe/@x400.example": false, "<|odd@example.org>": false, `"a|b"`: false, "a/b": false,
	} {
		if err := CheckEntry("joe", value); (err != nil) != bad {
			t.Errorf("%s: %v", value, err)
		}
	}
	for _, value := range []string{`"`, `<">`} {
		if CheckEntry("joe", value) == nil {
			t.Errorf("%s is taken", value)
		}
	}
}
