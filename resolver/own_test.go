package resolver

import (
	"fmt"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestOwnPostmaster: mail for our postmaster is taken from anybody (RFC 5321 section
// 4.5.1), whatever the mailertable and the access map have, unless an entry refuses it.
func TestOwnPostmaster(t *testing.T) {
	for _, w := range []world{
		{mt: ""},
		{mt: "example.org lmtp:\n"},
		{mt: "mail.example.net [192.0.2.1]\n", access: "to:joe@example.org relay\n"},
		{mt: "mail.example.net lmtp:\n", aliases: "joe: local:\n"},
	} {
		p := w.start(t)
		ask := func(rcpt smtp.Path, rules *msg.CheckRules) smtp.Reply {
			return askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Mail: msg.Mail{From: path("s@x.example")}, Rcpt: msg.Rcpt{To: rcpt}, Rules: rules}).Reply
		}
		for _, rcpt := range []smtp.Path{
			{Local: "postmaster"},
			{Local: "PostMaster"},
			path("postmaster@mail.example.net"),
			path("POSTMASTER@Mail.Example.NET"), path(`"postmaster"@mail.example.net`),
		} {
			for _, rules := range []*msg.CheckRules{nil, {}, {Access: true, LMTPNoRelay: true}} {
				if r := ask(rcpt, rules); !r.IsZero() {
					t.Errorf("mailertable %q, %v: %v", w.mt, rcpt, r)
				}
			}
		}
		for _, rcpt := range []string{"postmaster@other.example", "postmaster@sub.mail.example.net", "postmaster+x@mail.example.net", "nobody@mail.example.net"} {
			if r := ask(path(rcpt), &msg.CheckRules{LMTPNoRelay: true}); r.Code != 550 {
				t.Errorf("mailertable %q, %s: %v", w.mt, rcpt, r)
			}
		}
	}
	p := world{mt: "", access: "to:postmaster@mail.example.net error:550 5.7.1 Ask the hostmaster\n"}.start(t)
	v := askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: smtp.Path{Local: "postmaster"}}})
	if v.Reply.Text() != "Ask the hostmaster" {
		t.Errorf("refused by name: %v", v.Reply)
	}
	v = askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: smtp.Path{Local: "postmaster"}}, Marks: msg.MarkOK | msg.MarkQuickOK})
	if !v.Reply.IsZero() {
		t.Errorf("quick:ok for the client: %v", v.Reply)
	}
}

// TestOwnSender: mail of this host's programs comes from our own name, which is an alias, as
// <root@mx.example>: a bounce to it finds its way, so that it is no reason to refuse.
func TestOwnSender(t *testing.T) {
	p := world{mt: "", aliases: "root@mail.example.net: <joe@joe.example>\n", config: func(c *Config, _ *Deps) {
		c.Aliases.AllDomains = true
	}}.start(t)
	for from, code := range map[string]int{"root@mail.example.net": 0, "Root@Mail.example.net": 0, "other@mail.example.net": 553} {
		if v := askCheck(t, p, msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path(from)}}); v.Reply.Code != code {
			t.Errorf("%s: %v", from, v.Reply)
		}
	}
}

// TestBarePostmaster: <postmaster> goes to our own name if the mailertable has it, else to
// a domain that is local.
func TestBarePostmaster(t *testing.T) {
	for mt, dest := range map[string]string{
		"mail.example.net [192.0.2.1]\nexample.org lmtp:\n":                   "esmtp:[192.0.2.1]:25",
		".sub.example lmtp:\nb.example 24^lmtp:[10.0.0.2]\na.example lmtp:\n": "lmtp:[10.0.0.2]:24",
		"a.example lmtp:\nlocalhost 24^lmtp:[10.0.0.3]\n":                     "lmtp:[10.0.0.3]:24",
		". [10.0.0.4]\n": "esmtp:[10.0.0.4]:25",
	} {
		p, _ := start(t, mt, nil)
		if a := route(t, p, "postmaster"); a.Dest != dest {
			t.Errorf("mailertable %q: %q %v, want %q", mt, a.Dest, a.Reply, dest)
		}
	}
}

// TestCheckOwn: config check says which of our own addresses lead nowhere.
func TestCheckOwn(t *testing.T) {
	for _, c := range []struct {
		world world
		want  []string // beginnings
	}{
		{world{mt: "example.org lmtp:\n"}, []string{"mail for <postmaster@mail.example.net> comes back", "mail for <root@mail.example.net> comes back"}},
		{world{mt: "mail.example.net esmtp:Mail.Example.NET\n"}, []string{"mail for <postmaster@", "mail for <root@"}},
		{world{mt: "mail.example.net { flags = no_MX_lookup; host = mail.example.net; }\n"}, []string{"mail for <postmaster@", "mail for <root@"}},
		{world{mt: "mail.example.net lmtp:\n"}, nil},
		{world{mt: ". esmtp:smart.example\n"}, nil},
		{world{mt: ".example.net [192.0.2.1]\n"}, nil},
		{world{mt: "mail.example.net lmtp:\n", aliases: "joe: local:\n"}, []string{"mail for <root@mail.example.net> is refused"}},
		{world{mt: "mail.example.net lmtp:\n", aliases: "root: <joe@example.org>\n"}, nil},
		{world{mt: "mail.example.net lmtp:\n", aliases: "joe: local:\n", users: "root x\n"}, nil},
		{world{mt: "", aliases: "postmaster@mail.example.net: <joe@example.org>\n", config: func(c *Config, _ *Deps) {
			c.Aliases.AllDomains = true
		}}, []string{"mail for <root@"}},
		{world{mt: "", config: func(_ *Config, d *Deps) { d.ConnectOnlyTo = addr("192.0.2.1") }}, nil},
	} {
		got := c.world.resolver(t).CheckOwn(t.Context())
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i].Error(), c.want[i])
		}
		if !ok {
			t.Errorf("mailertable %q, aliases %q: %s, want %q", c.world.mt, c.world.aliases, fmt.Sprint(got), c.want)
		}
	}
}
