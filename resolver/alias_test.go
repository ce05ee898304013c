package resolver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

func expanded(a msg.RouteA) string {
	var words []string
	for _, g := range a.Expand {
		for _, p := range g.Rcpts {
			words = append(words, p.Addr())
		}
		if !g.Owner.IsNull() {
			words = append(words, "owner "+g.Owner.Addr())
		}
		if g.VERP {
			words = append(words, "verp")
		}
	}
	return strings.Join(words, ", ")
}

// README 3.9.3, 3.12.3, 3.14, 4.3.2 through the port.
func TestAliasRoutes(t *testing.T) {
	const entries = `myalias: localuser
mylist: <user1@my.dom> <user2@my.dom> <nested@first.dom>
owner-mylist: someuser
nested: <user3@my.dom>
outer: <user7@my.dom> <otherlist@first.dom> <mylist@first.dom>
owner-outer: someuser
otherlist: <user5@my.dom> <user6@other.dom>
verp-otherlist: something
user: local:
alias*@.domain     user${extension}@${subdomain}.domain
myalias@first.dom: user1
another@second.dom: user2
remote@my.dom: <elsewhere@other.dom>
broken: a b c
`
	const mt = "first.dom lmtp:\nsecond.dom lmtp:\nmail.example.net lmtp:\n. [10.0.0.1]\n"
	for _, c := range []struct {
		flags      string
		addr, want string
		sender     string
	}{
		{"localpart", "myalias@second.dom", "localuser@mail.example.net", "s@x.dom"},
		{"localpart", "mylist@first.dom", "user1@my.dom, user2@my.dom, user3@my.dom, owner owner-mylist@first.dom", "s@x.dom"},
		{"localpart", "mylist@first.dom", "user1@my.dom, user2@my.dom, user3@my.dom", ""},
		{"localpart", "mylist+x@first.dom", "lmtp", "s@x.dom"},
		{"localpart detail", "mylist+x@first.dom", "user1@my.dom, user2@my.dom, user3@my.dom, owner owner-mylist@first.dom", "s@x.dom"},
		{"localpart", "otherlist@first.dom", "user5@my.dom, user6@other.dom, verp", "s@x.dom"},
		{"localpart", "outer@first.dom", "user7@my.dom, owner owner-outer@first.dom, user5@my.dom, user6@other.dom, owner owner-outer@first.dom, verp, " +
			"user1@my.dom, user2@my.dom, user3@my.dom, owner owner-mylist@first.dom", "s@x.dom"},
		{"localpart", "outer@first.dom", "user7@my.dom, user5@my.dom, user6@other.dom, user1@my.dom, user2@my.dom, user3@my.dom", ""},
		{"localpart", "user@first.dom", "lmtp", "s@x.dom"},
		{"localpart", "myalias@my.dom", "esmtp", "s@x.dom"},
		{"localpart", "broken@first.dom", "451 4.3.5", "s@x.dom"},
		{"", "myalias@second.dom", "localuser@mail.example.net", "s@x.dom"},
		{"local_domains", "myalias@first.dom", "user1@mail.example.net", "s@x.dom"},
		{"local_domains preserve", "myalias@first.dom", "user1@first.dom", "s@x.dom"},
		{"local_domains", "myalias@second.dom", "lmtp", "s@x.dom"},
		{"local_domains", "remote@my.dom", "esmtp", "s@x.dom"},
		{"local_domains localpart", "mylist@first.dom", "user1@my.dom, user2@my.dom, user3@my.dom, owner owner-mylist@first.dom", "s@x.dom"},
		{"all_domains", "remote@my.dom", "elsewhere@other.dom", "s@x.dom"},
		{"all_domains macros", "alias@host.domain", "user@host.domain", "s@x.dom"},
		{"all_domains macros", "alias+detail@host2.domain", "user+detail@host2.domain", "s@x.dom"},
	} {
		t.Run(c.flags+"/"+c.addr, func(t *testing.T) {
			p := world{mt: mt, aliases: entries, config: func(cfg *Config, _ *Deps) {
				a := &cfg.Aliases
				a.LocalPart, a.LocalDomains = strings.Contains(c.flags, "localpart"), strings.Contains(c.flags, "local_domains")
				a.AllDomains, a.ReplaceMacros = strings.Contains(c.flags, "all_domains"), strings.Contains(c.flags, "macros")
				a.PreserveDomain, a.MatchDetail = strings.Contains(c.flags, "preserve"), strings.Contains(c.flags, "detail")
			}}.start(t)
			a, err := p.Route.Ask(t.Context(), msg.RouteQ{Sender: path(c.sender), Rcpt: path(c.addr)})
			if err != nil {
				t.Fatal(err)
			}
			got := expanded(a)
			switch {
			case len(a.Hops) > 0:
				got = a.Hops[0].Protocol.String()
			case !a.Reply.IsZero():
				got = a.Reply.String()[:len("451 4.3.5")]
			}
			if got != c.want || len(a.Trace) == 0 {
				t.Errorf("got %q, want %q; %+v", got, c.want, a.Trace)
			}
			again, err := p.Route.Ask(t.Context(), msg.RouteQ{Rcpt: path(c.addr), Expanded: true})
			if err != nil || len(again.Hops) == 0 {
				t.Errorf("a recipient that came out of an alias was not routed: %+v %v", again, err)
			}
		})
	}
}

// A list of 100,000 members holds no other question up: while it is expanded others are
// answered, however slow the machine is.
func TestLargeAliasBlocksNobody(t *testing.T) {
	var b strings.Builder
	b.WriteString("big: ")
	for i := range 100000 {
		fmt.Fprintf(&b, "<user%d@local.example> ", i)
	}
	p := world{mt: "local.example lmtp:\n", aliases: b.String() + "\nsmall: local:\n"}.start(t)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for range 2 {
			if a := route(t, p, "big@local.example"); len(a.Expand) != 1 || len(a.Expand[0].Rcpts) != 100000 {
				t.Errorf("%d groups, %v", len(a.Expand), a.Reply)
			}
		}
	})
	n := 0
	for running := true; running; n++ {
		select {
		case <-done:
			running = false
		default:
			if a := route(t, p, "small@local.example"); a.Dest == "" {
				t.Fatalf("%+v", a)
			}
		}
	}
	wg.Wait()
	if n < 20 { // two lists that hold up others let three or four pass
		t.Errorf("only %d routes meanwhile", n)
	}
}

// Nothing changes at a reload when a map is missing or damaged, and all such maps are told.
func TestReloadDamagedMaps(t *testing.T) {
	dir := ""
	var r *Resolver
	s := serveZone(t)
	p, r := start(t, "a.example lmtp:\n", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		dir = d.ConfigDir
		create(t, dir, "access.db", "to:@x.example relay\n")
		create(t, dir, "aliases.db", "alice: local:\n")
		c.Access = MapRef{Present: true, File: "access.db"}
		c.Aliases.MapRef = MapRef{Present: true, Name: "al"}
		c.Maps = []MapConfig{{Name: "al", Type: "sequence", Maps: []string{"one"}}, {Name: "one", Type: "hash", File: "aliases.db"}}
	})
	state := func() string {
		rcpt := func(a string) string {
			return fmt.Sprint(askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(a)}}).Reply.Code)
		}
		return strings.Join([]string{rcpt("u@x.example"), rcpt("alice@a.example"), rcpt("bob@a.example"), rcpt("alice@b.example")}, " ")
	}
	if got := state(); got != "0 0 550 550" {
		t.Fatal(got)
	}
	write(t, filepath.Join(dir, "access.db"), "damaged")
	create(t, dir, "aliases.db", "bob: local:\n")
	write(t, filepath.Join(dir, "mt"), "b.example lmtp:\na.example lmtp:\n")
	fails := func(want ...string) {
		t.Helper()
		_, err := r.Prepare(r.cfg, r.deps)
		for _, name := range want {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s was not reported: %v", name, err)
			}
		}
		if got := state(); got != "0 0 550 550" {
			t.Errorf("after a reload that failed: %s", got)
		}
	}
	fails("access.db")
	os.Remove(filepath.Join(dir, "aliases.db"))
	os.Remove(filepath.Join(dir, "mt"))
	fails("access.db", "aliases.db", "mt")
	create(t, dir, "access.db", "to:@z.example relay\n")
	create(t, dir, "aliases.db", "bob: local:\n")
	write(t, filepath.Join(dir, "mt"), "b.example lmtp:\na.example lmtp:\n")
	reload(t, r, nil)
	if got := state(); got != "550 550 0 550" {
		t.Errorf("after a reload: %s", got)
	}
}

// Lookups during reloads see one set of maps or the other.
func TestReloadIsAtomic(t *testing.T) {
	p, r := start(t, "a.example [10.0.0.1]\nb.example [10.0.0.1]\n", nil)
	mt := filepath.Join(r.deps.ConfigDir, "mt")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := p.Route.Ask(t.Context(), msg.RouteQ{Rcpt: smtp.Path{Local: "u", Domain: "a.example"}})
				if err != nil || a.Dest != "esmtp:[10.0.0.1]:25" && a.Dest != "esmtp:[10.0.0.2]:25" {
					t.Errorf("%+v %v", a, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		write(t, mt+".new", fmt.Sprintf("a.example [10.0.0.%d]\nb.example [10.0.0.%d]\n", i%2+1, i%2+1))
		if err := os.Rename(mt+".new", mt); err != nil {
			t.Fatal(err)
		}
		reload(t, r, nil)
	}
	close(stop)
	wg.Wait()
}

func TestMapErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mt"), "")
	for want, m := range map[string][]MapConfig{
		"contains itself":   {{Name: "a", Type: "sequence", Maps: []string{"b"}}, {Name: "b", Type: "sequence", Maps: []string{"a"}}},
		"needs a file":      {{Name: "a", Type: "hash"}},
		"no such file":      {{Name: "a", Type: "cdb", File: "none"}},
		"not a cdb file":    {{Name: "a", Type: "hash", File: "mt"}},
		"needs either path": {{Name: "a", Type: "socket", MapName: "m"}},
		"not declared":      {{Name: "a", Type: "sequence", Maps: []string{"z"}}},
		"needs maps":        {{Name: "a", Type: "sequence"}},
		"unknown type":      {{Name: "a", Type: "btree", File: "mt"}},
		"mapname":           {{Name: "a", Type: "socket", Path: "/x"}},
	} {
		_, err := New(Config{Maps: m}, Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
	}
	create(t, dir, "x.db", "a b\n")
	if _, err := New(Config{Maps: []MapConfig{{Name: "a", Type: "hash", File: "x.db", CaseSensitive: true}}},
		Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"}); err == nil {
		t.Error("a map made without case_sensitive was taken for one with it")
	}
}

func create(t *testing.T, dir, name, text string) {
	t.Helper()
	if _, err := maps.Create(filepath.Join(dir, name), strings.NewReader(text), maps.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
