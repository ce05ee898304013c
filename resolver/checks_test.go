package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/maps"
	"meta1/mta/msg"
	"meta1/mta/vfs/crashfs"
)

// world is a Resolver with maps and a zone.
type world struct {
	mt, access, aliases, users string
	zone                       []string
	config                     func(*Config, *Deps)
}

func (w world) start(t *testing.T) *msg.Ports {
	t.Helper()
	return w.resolver(t).deps.Ports
}

func (w world) resolver(t *testing.T) *Resolver {
	t.Helper()
	s := serveZone(t, w.zone...)
	_, r := start(t, w.mt, func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		for name, text := range map[string]string{"access.db": w.access, "aliases.db": w.aliases, "users.cdb": w.users} {
			if text != "" {
				if _, err := maps.Create(filepath.Join(d.ConfigDir, name), strings.NewReader(text), maps.CreateOptions{Source: name}); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Access = MapRef{Present: w.access != "", File: "access.db"}
		c.Aliases.MapRef = MapRef{Present: w.aliases != "", File: "aliases.db"}
		if w.users != "" {
			c.Maps = append(c.Maps, MapConfig{Name: "users", Type: "cdb", File: "users.cdb"})
			c.LocalUser.Name = "users"
		}
		if w.config != nil {
			w.config(c, d)
		}
	})
	return r
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func steps(v msg.Verdict) string {
	var words []string
	for _, s := range v.Trace {
		words = append(words, s.Check)
	}
	return strings.Join(words, " ")
}

// README 3.12.2, connect.
func TestConnect(t *testing.T) {
	p := world{
		mt: "local.example lmtp:\n",
		zone: []string{
			"1.2.0.192.in-addr.arpa. 60 IN PTR good.example.", "good.example. 60 IN A 192.0.2.1",
			"2.2.0.192.in-addr.arpa. 60 IN PTR liar.example.", "liar.example. 60 IN A 192.0.2.99",
			"3.2.0.192.in-addr.arpa. 60 IN PTR x.fail.",
			"5.2.0.192.in-addr.arpa. 60 IN PTR liar.example.", "5.2.0.192.in-addr.arpa. 60 IN PTR host.spammer.domain.",
			"host.spammer.domain. 60 IN A 192.0.2.5",
			"8.2.0.192.in-addr.arpa. 60 IN PTR localhost.", "localhost. 60 IN A 192.0.2.8",
			"9.2.0.192.in-addr.arpa. 60 IN PTR Mail.Example.NET.", "mail.example.net. 60 IN A 192.0.2.9",
			"10.2.0.192.in-addr.arpa. 60 IN PTR localhost.localdomain.", "localhost.localdomain. 60 IN A 192.0.2.10",
			"11.2.0.192.in-addr.arpa. 60 IN PTR localhost.", "11.2.0.192.in-addr.arpa. 60 IN PTR eleven.example.", "eleven.example. 60 IN A 192.0.2.11",
			"7.2.0.192.in-addr.arpa. 60 IN PTR spammer.domain.", "spammer.domain. 60 IN A 192.0.2.7",
			"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 IN PTR six.example.", "six.example. 60 IN AAAA 2001:db8::1",
			"9.9.0.10.bl1.example. 60 IN A 127.0.0.2", "9.9.0.10.bl2.example. 60 IN A 127.0.0.3",
			"10.9.0.10.bl2.example. 60 IN A 127.0.0.3",
			"11.9.0.10.bl1.example. 60 IN A 127.0.0.9", "11.9.0.10.bl2.example. 60 IN A 127.0.0.4",
			"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl1.example. 60 IN A 127.0.0.2",
		},
		access: `cltresolve:tempptr error:451 4.7.1 reverse lookup failed
cltresolve:tempa error:451 4.7.1 forward lookup failed
cltresolve:no cont
cltname:spammer.domain. quick:error:551 5.7.1 No mail from spammers
cltname:.spammer.domain. error:551 5.7.1 Nor from their hosts
cltname:good.example. ok
cltname:localhost. quick:relay
cltname:localdomain. quick:relay
cltname:.localdomain. quick:relay
cltname:mail.example.net. quick:relay
cltaddr:10.1. relay
cltaddr:10.2. quick:relay
cltaddr:10.3. quick:ok
cltaddr:10.4. discard
cltaddr:10.5. reject
cltaddr:10.6. cont
cltaddr:10.7. nonsense
bl1:127.0.0.2 error:550 5.7.1 listed at bl1
bl2:127.0.0.3 error:451 4.7.1 listed at bl2
bl2:127.0.0. error:450 4.7.1 somehow listed at bl2
bl3:temp error:451 4.7.1 temporary lookup failure
smtps_session_conf:10.8. session_feature=notls;
smtps_session_conf:10.9. broken
smtps_se_conf:good.example. tls_requirements { flags=encrypted; }
`,
		config: func(c *Config, _ *Deps) {
			c.DNSBLs = []DNSBLConfig{{"bl1.example", "bl1"}, {"bl2.example", "bl2"}}
		},
	}.start(t)
	for _, c := range []struct {
		ip    string
		reply string
		name  string // and cltresolve
		marks msg.Marks
		quick bool
	}{
		{"192.0.2.1", "", "good.example. ok", msg.MarkOK, false},
		{"192.0.2.2", "", " no", 0, false},
		{"192.0.2.3", "451 4.7.1 forward", " tempa", 0, false},
		{"192.0.2.4", "", " no", 0, false},
		{"192.0.2.8", "", " no", 0, false},
		{"192.0.2.9", "", " no", 0, false},
		{"192.0.2.10", "", " no", 0, false},
		{"192.0.2.11", "", "eleven.example. ok", 0, false},
		{"127.0.0.1", "", "localhost. ok", msg.MarkRelay | msg.MarkQuickRelay, true},
		{"192.0.2.5", "551 5.7.1 Nor", "host.spammer.domain. ok", 0, false},
		{"192.0.2.7", "551 5.7.1 No mail", "spammer.domain. ok", 0, true},
		{"2001:db8::1", "", "six.example. ok", 0, false},
		{"2001:db8::2", "550 5.7.1 listed at bl1", " no", 0, false},
		{"10.1.0.1", "", " no", msg.MarkRelay, false},
		{"10.2.0.1", "", " no", msg.MarkRelay | msg.MarkQuickRelay, true},
		{"10.3.0.1", "", " no", msg.MarkOK | msg.MarkQuickOK, true},
		{"10.4.0.1", "discard", " no", 0, false},
		{"10.5.0.1", "550 5.7.0 Rejected.", " ", 0, false},
		{"10.6.0.1", "", " no", 0, false},
		{"10.7.0.1", "", " no", 0, false},
		{"10.0.9.9", "550 5.7.1 listed at bl1", " no", 0, false},
		{"10.0.9.10", "451 4.7.1 listed at bl2", " no", 0, false},
		{"10.0.9.11", "450 4.7.1 somehow", " no", 0, false},
		{"10.0.9.12", "", " no", 0, false},
	} {
		for _, round := range []string{"dns", "cache"} {
			t.Run(c.ip+"/"+round, func(t *testing.T) {
				v := askCheck(t, p, msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: addr(c.ip)}})
				reply := v.Reply.String()
				if v.Action == msg.Discard {
					reply = "discard"
				}
				if v.Reply.IsZero() && v.Action == msg.Accept {
					reply = ""
				}
				if !strings.HasPrefix(reply, c.reply) || c.reply == "" && reply != "" || v.ClientName+" "+v.ClientResolve != c.name ||
					v.Marks != c.marks || v.Quick != c.quick || v.Relay != (c.marks&msg.MarkRelay != 0) {
					t.Errorf("got %q %q marks %b quick %v relay %v, want %q %q %b %v; %+v",
						reply, v.ClientName+" "+v.ClientResolve, v.Marks, v.Quick, v.Relay, c.reply, c.name, c.marks, c.quick, v.Trace)
				}
			})
		}
	}
	t.Run("access off", func(t *testing.T) {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: addr("10.5.0.1")}, Rules: &msg.CheckRules{}})
		if v.Action != msg.Accept || v.ClientResolve != "" {
			t.Errorf("%+v", v)
		}
	})
	t.Run("session configuration", func(t *testing.T) {
		ask := func(ip string) msg.Verdict {
			return askCheck(t, p, msg.CheckQ{
				Stage: msg.StageConnect, Client: msg.Client{IP: addr(ip)},
				Rules: &msg.CheckRules{Access: true, SessionConf: true},
			})
		}
		if v := ask("10.8.0.1"); v.SessionConf == nil || v.SessionConf.SessionFeature != "notls" {
			t.Errorf("by address: %+v", v)
		}
		if v := ask("192.0.2.1"); v.SessionConf == nil || v.SessionConf.TLS == nil || !v.SessionConf.TLS.Encrypted {
			t.Errorf("by name: %+v", v)
		}
		if v := ask("10.9.0.1"); v.Reply.Code != 451 {
			t.Errorf("broken: %+v", v)
		}
		if v := ask("192.0.2.4"); v.SessionConf != nil {
			t.Errorf("none: %+v", v)
		}
	})
}

// README 3.9.2 item 5: tag:temp, tag:perm, and no entry.
func TestDNSBLFailures(t *testing.T) {
	for _, c := range []struct {
		lists []DNSBLConfig
		code  int
		steps string
	}{
		{[]DNSBLConfig{{"none.example", "bl0"}, {"list.refused", "bl1"}, {"list.fail", "bl2"}, {"list.fail", "bl1"}}, 451, "bl1 bl2 bl1"},
		{[]DNSBLConfig{{"list.fail", "bl2"}, {"list.refused", "bl2"}, {"list.fail", "bl1"}}, 550, "bl2 bl2"},
		{[]DNSBLConfig{{"list.fail", "bl2"}, {"list.refused", "bl1"}}, 0, "bl2 bl1"},
	} {
		p := world{
			mt: "local.example lmtp:\n",
			access: "bl1:temp error:451 4.7.1 temporary lookup failure at dnsbl.tld\n" +
				"bl2:perm error:550 5.7.1 permanent lookup failure\n",
			config: func(cfg *Config, _ *Deps) { cfg.DNSBLs = c.lists },
		}.start(t)
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: addr("10.0.0.1")}})
		if v.Reply.Code != c.code || steps(v) != "cltaddr client name cltresolve "+c.steps {
			t.Errorf("%+v: %v; %+v", c.lists, v.Reply, v.Trace)
		}
	}
}

func TestEhloAndCertificate(t *testing.T) {
	p := world{
		mt: "local.example lmtp:\n",
		access: `ehlo:bad.example error:550 5.7.1 not with that name
ehlo:.dyn.example reject
certissuer:/CN=Darth+20Mail+20+28Cert+29/ relay
certissuer:/CN=Other+20CA/ cont
certsubject:/CN=DeathStar/ relay
certissuer:/CN=Bad/ reject
`,
	}.start(t)
	for helo, code := range map[string]int{"bad.example": 550, "BAD.example": 550, "x.dyn.example": 550, "dyn.example": 0, "good": 0, "": 0} {
		if v := askCheck(t, p, msg.CheckQ{Stage: msg.StageEhlo, Client: msg.Client{Helo: helo}}); v.Reply.Code != code {
			t.Errorf("%s: %v", helo, v.Reply)
		}
		quick := msg.CheckQ{Stage: msg.StageEhlo, Client: msg.Client{Helo: helo}, Marks: msg.MarkOK | msg.MarkQuickOK}
		if v := askCheck(t, p, quick); !v.Reply.IsZero() {
			t.Errorf("%s, with quick:ok for the client: %v", helo, v.Reply)
		}
	}
	for _, c := range []struct {
		issuer, subject string
		relay           bool
	}{
		{"/CN=Darth Mail (Cert)/", "/CN=x/", true},
		{"/CN=Other CA/", "/CN=DeathStar/", true},
		{"/CN=Other CA/", "/CN=Luke/", false},
		{"/CN=Bad/", "/CN=DeathStar/", false},
		{"/CN=Unknown/", "/CN=DeathStar/", false},
	} {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageTLS, CertIssuer: c.issuer, CertSubject: c.subject})
		if v.Relay != c.relay || v.Action != msg.Accept {
			t.Errorf("%+v: %+v", c, v)
		}
	}
}

// README 3.12.2, MAIL.
func TestMail(t *testing.T) {
	p := world{
		mt:   "local.example lmtp:\ninternal.example [10.66.0.1]\n",
		zone: []string{"good.example. 60 IN MX 10 a.good.example.", "a.good.example. 60 IN A 192.0.2.1", "bad.example. 60 IN MX 10 a.bad.example.", "a.bad.example. 60 IN A 10.66.1.2", "ok.example. 60 IN A 10.66.1.3"},
		access: `mxbadip:10. error:551 5.7.1 Bad IP address in MX/A list
mxbadip:127.0.0.1 error:551 5.7.1 Bad IP address in MX/A list
from:user@ok.example ok
from:quick@ok.example quick:ok
from:relay@good.example relay
from:@spam.example error:551 5.7.1 No spammers
`,
		aliases: "alice: local:\nlist: <a@good.example> <b@good.example>\n",
	}.start(t)
	for _, c := range []struct {
		from  string
		marks msg.Marks
		reply string
	}{
		{"", 0, ""},
		{"u@good.example", 0, ""},
		{"u@missing.example", 0, "553 5.1.8"},
		{"u@missing.example", msg.MarkOK | msg.MarkQuickOK, ""},
		{"u@missing.example", msg.MarkRelay | msg.MarkQuickRelay, ""},
		{"u@missing.example", msg.MarkOK | msg.MarkRelay, "553 5.1.8"},
		{"u@x.fail", 0, "451 4.1.8"},
		{"u@bad.example", 0, "551 5.7.1 Bad IP"},
		{"user@ok.example", 0, ""},
		{"quick@ok.example", 0, ""},
		{"relay@good.example", 0, ""},
		{"u@spam.example", 0, "553 5.1.8"},
		{"other@ok.example", 0, "551 5.7.1 Bad IP"},
		{"u@internal.example", 0, ""},
		{"alice@local.example", 0, ""},
		{"Alice@LOCAL.example", 0, ""},
		{"list@local.example", 0, ""},
		{"bob@local.example", 0, "550 5.1.8"},
		{"postmaster@local.example", 0, ""},
	} {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path(c.from)}, Marks: c.marks})
		if v.Relay || v.Marks != 0 || v.Quick != strings.HasPrefix(c.from, "quick") {
			t.Errorf("%s: relay %v, marks %b, quick %v", c.from, v.Relay, v.Marks, v.Quick)
		}
		if !strings.HasPrefix(v.Reply.String(), c.reply) || v.Reply.IsZero() != (c.reply == "") {
			t.Errorf("%s %b: %v, want %q; %+v", c.from, c.marks, v.Reply, c.reply, v.Trace)
		}
	}
}

// README 3.12.2, RCPT; 4.3.2, 4.4 and 4.5.
func TestRcpt(t *testing.T) {
	p := world{
		mt: "local.example lmtp:\n. [10.0.0.1]\n",
		access: `to:user1@my.domain relay
to:postmaster@my.domain relay
to:user1@other.domain relay
to:@other.domain error:451 4.3.3 Try main MX server
to:blocked@local.example error:550 5.7.1 no
to:drop@x.example discard
to:dropall@local.example quick:discard
to:@pass.domain relay
to:listed%user@pass.domain relay
`,
		aliases: "real%user: local:\nblocked: local:\ndropall: local:\nuser++: local:\nabuse: user+abuse\n",
		users:   "alice x\nbob@local.example x\n",
	}.start(t)
	for _, c := range []struct {
		rcpt     string
		relaying bool
		marks    msg.Marks
		rules    *msg.CheckRules
		reply    string
	}{
		{"alice@local.example", false, 0, nil, ""},
		{"bob@local.example", false, 0, nil, ""},
		{"abuse@local.example", false, 0, nil, ""},
		{"user+x@local.example", false, 0, nil, ""},
		{"user@local.example", false, 0, nil, "550 5.1.1"},
		{"user+@local.example", false, 0, nil, "550 5.1.1"},
		{"alice+x@local.example", false, 0, nil, "550 5.1.1"},
		{"nobody@local.example", false, 0, nil, "550 5.1.1"},
		{"nobody@local.example", true, msg.MarkRelay | msg.MarkQuickRelay, nil, "550 5.1.1"},
		{"PostMaster@local.example", false, 0, nil, ""},
		{"alice@local.example", false, 0, &msg.CheckRules{LMTPNoRelay: true}, "550 5.7.1 Relaying"},
		{"alice@local.example", true, 0, &msg.CheckRules{LMTPNoRelay: true}, ""},
		{"blocked@local.example", false, 0, nil, "550 5.7.1 no"},
		{"blocked@local.example", false, 0, &msg.CheckRules{}, ""},
		{"blocked@local.example", true, msg.MarkRelay | msg.MarkQuickRelay, nil, ""},
		{"blocked@local.example", true, msg.MarkOK | msg.MarkQuickOK, nil, ""},
		{"blocked@local.example", false, msg.MarkOK | msg.MarkQuickOK, nil, ""},
		{"blocked@local.example", false, msg.MarkOK, nil, "550 5.7.1 no"},
		{"blocked@local.example", false, msg.MarkOK | msg.MarkQuickOK, &msg.CheckRules{Access: true, LMTPNoRelay: true}, "550 5.7.1 no"},
		{"user3@other.domain", false, msg.MarkOK | msg.MarkQuickOK, nil, "451 4.3.3"},
		{"user1@other.domain", false, msg.MarkOK | msg.MarkQuickOK, nil, ""},
		{"user2@my.domain", false, msg.MarkOK | msg.MarkQuickOK, nil, "550 5.7.1 Relaying"},
		{"blocked@local.example", true, msg.MarkRelay, nil, "550 5.7.1 no"},
		{"user1@my.domain", false, 0, nil, ""},
		{"user2@my.domain", false, 0, nil, "550 5.7.1 Relaying"},
		{"user2@my.domain", true, msg.MarkRelay, nil, ""},
		{"user1@my.domain", false, 0, &msg.CheckRules{}, "550 5.7.1 Relaying"},
		{"user1@other.domain", false, 0, nil, ""},
		{"user3@other.domain", false, 0, nil, "451 4.3.3"},
		{"user3@other.domain", true, msg.MarkRelay, nil, "451 4.3.3"},
		{"user3@other.domain", true, msg.MarkRelay | msg.MarkQuickRelay, nil, ""},
		{"drop@x.example", false, 0, nil, "discard"},
		{"dropall@local.example", false, 0, nil, "quick discard"},
		{"v%remote@my.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"remote!v@my.domain", false, 0, nil, "550 5.7.1 Routing"},
		{`"v@remote.example"@pass.domain`, false, 0, nil, "550 5.7.1 Routing"},
		{`"v@[192.0.2.1]"@pass.domain`, false, 0, nil, "550 5.7.1 Routing"},
		{"a%b%c@pass.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"a!b!c@pass.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"x.example!a%b@pass.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"v%[192.0.2.1]@pass.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"!#$%&'*+-/=?^_`{|}~@pass.domain", false, 0, nil, ""},
		{`"odd@one"@pass.domain`, false, 0, nil, ""},
		{`"@"@pass.domain`, false, 0, nil, ""},
		{"100%@pass.domain", false, 0, nil, ""},
		{"hey!@pass.domain", false, 0, nil, ""},
		{"v%remote@pass.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"v%remote@pass.domain", false, msg.MarkOK | msg.MarkQuickOK, nil, "550 5.7.1 Routing"},
		{"v%remote@pass.domain", true, msg.MarkRelay, nil, ""},
		{"v%remote@pass.domain", false, 0, &msg.CheckRules{Access: true, UntrustedRouting: true}, ""},
		{"plain@pass.domain", false, 0, nil, ""},
		{"v%remote@other.domain", false, 0, nil, "550 5.7.1 Routing"},
		{"listed%user@pass.domain", false, 0, nil, ""},
		{"Listed%User@Pass.domain", false, 0, nil, ""},
		{"nobody%x@local.example", false, 0, nil, "550 5.1.1"},
		{"real%user@local.example", false, 0, nil, ""},
	} {
		v := askCheck(t, p, msg.CheckQ{
			Stage: msg.StageRcpt, Mail: msg.Mail{From: path("s@x.example")}, Rcpt: msg.Rcpt{To: path(c.rcpt)},
			Relaying: c.relaying, Marks: c.marks, Rules: c.rules,
		})
		got := v.Reply.String()
		switch {
		case v.Action == msg.Discard && v.Quick:
			got = "quick discard"
		case v.Action == msg.Discard:
			got = "discard"
		case v.Action == msg.Accept:
			got = ""
		}
		if !strings.HasPrefix(got, c.reply) || got != "" && c.reply == "" || v.Relay {
			t.Errorf("%+v: got %q; %+v", c, got, v.Trace)
		}
	}
}

// README 3.10.3; the address that its conversion to text lost is restored.
func TestProtectedRecipients(t *testing.T) {
	p := world{
		mt: "local.dom lmtp:\n. [10.0.0.1]\n",
		access: `protectedrcpt:list1@local.dom list:<list1@local.dom>
protectedrcpt:list3 from:<moderator3@local.dom> cltaddr:192.0.2.7 cltaddr:10.
protectedrcpt:list4@local.dom temp: from:<moderator3@local.dom>
protectedrcpt:closed@local.dom reject
`,
		aliases: `list1: <user1-1@l1-1.dom> <user2-1@l1-1.dom> <list2@local.dom>
list2: <user1-2@l2-1.dom> <user2-2@l2-2.dom>
list3: <user1-3@l3-1.dom> <user2-3@l3-2.dom>
list4: <x@y.dom>
closed: <x@y.dom>
open: <x@y.dom>
`,
	}.start(t)
	both := msg.CheckRules{Access: true, ProtectSender: true, ProtectClient: true}
	generic, detail, sender := both, both, both
	generic.ProtectGeneric, detail.ProtectDetail, sender.ProtectClient = true, true, false
	for _, c := range []struct {
		rcpt, from, ip string
		rules          msg.CheckRules
		reply          string
	}{
		{"list1@local.dom", "user1-1@l1-1.dom", "192.0.2.1", both, ""},
		{"list1@local.dom", "User2-1@L1-1.dom", "192.0.2.1", both, ""},
		{"list1@local.dom", "user1-2@l2-1.dom", "192.0.2.1", both, "550 5.7.1"},
		{"list1@local.dom", "user1-1+x@l1-1.dom", "192.0.2.1", both, "550 5.7.1"},
		{"list1@local.dom", "user1-1+x@l1-1.dom", "192.0.2.1", detail, ""},
		{"list3@local.dom", "moderator3@local.dom", "192.0.2.1", both, ""},
		{"list3@local.dom", "other@local.dom", "192.0.2.7", both, ""},
		{"list3@local.dom", "other@local.dom", "192.0.2.7", sender, "550 5.7.1"},
		{"list3@local.dom", "other@local.dom", "10.1.1.1", both, "550 5.7.1"},
		{"list3@local.dom", "other@local.dom", "10.1.1.1", generic, ""},
		{"list4@local.dom", "other@local.dom", "10.1.1.1", both, "451 4.7.1"},
		{"list4@local.dom", "", "10.1.1.1", both, "451 4.7.1"},
		{"closed@local.dom", "moderator3@local.dom", "10.1.1.1", both, "550 5.7.0"},
		{"open@local.dom", "anyone@x.dom", "10.1.1.1", both, ""},
		{"closed@local.dom", "moderator3@local.dom", "10.1.1.1", msg.CheckRules{Access: true}, ""},
	} {
		v := askCheck(t, p, msg.CheckQ{
			Stage: msg.StageRcpt, Mail: msg.Mail{From: path(c.from)}, Rcpt: msg.Rcpt{To: path(c.rcpt)},
			Client: msg.Client{IP: addr(c.ip)}, Rules: &c.rules,
		})
		if !strings.HasPrefix(v.Reply.String(), c.reply) || v.Reply.IsZero() != (c.reply == "") {
			t.Errorf("%+v: %v; %+v", c, v.Reply, v.Trace)
		}
	}
}

// README 3.9.4: greylisting comes after all other checks, and not for clients that
// the access map or authentication let through.
func TestGreylisting(t *testing.T) {
	p := world{
		mt:     "local.example lmtp:\n",
		access: "smtps_rcpt_conf:some@local.example flags = greylisting;\nto:quick@local.example quick:ok\nto:ok@local.example ok\n",
		config: func(c *Config, d *Deps) {
			c.Greylist = GreylistConfig{
				Present: true, Wait: 50 * time.Millisecond, Expire: time.Hour, WhiteExpire: time.Hour, WhiteTimeout: 2 * time.Hour,
				ExpireLimit: 100, Netmask: 0xFFFFFFFF, Prefix6: 64,
			}
			d.SpoolDir, d.FS = "spool", crashfs.FS(crashfs.New(), nil)
		},
	}.start(t)
	ask := func(ip, rcpt string, marks msg.Marks, rules msg.CheckRules) msg.Verdict {
		return askCheck(t, p, msg.CheckQ{
			Stage: msg.StageRcpt, Mail: msg.Mail{From: path("s@x.example")}, Rcpt: msg.Rcpt{To: path(rcpt)},
			Client: msg.Client{IP: addr(ip)}, Marks: marks, Rules: &rules,
		})
	}
	simple := msg.CheckRules{Access: true, Greylist: msg.GreylistSimple}
	full := msg.CheckRules{Access: true, Greylist: msg.GreylistFull}
	for _, c := range []struct {
		name, ip, rcpt string
		marks          msg.Marks
		rules          msg.CheckRules
		grey           bool
	}{
		{"off", "192.0.2.1", "u@local.example", 0, msg.CheckRules{Access: true}, false},
		{"marked ok", "192.0.2.1", "u@local.example", msg.MarkOK, simple, false},
		{"marked relay", "192.0.2.1", "u@local.example", msg.MarkRelay, simple, false},
		{"quick recipient", "192.0.2.1", "quick@local.example", 0, simple, false},
		{"rejected recipient", "192.0.2.1", "u@remote.example", 0, simple, false},
		{"first", "192.0.2.1", "u@local.example", 0, simple, true},
		{"recipient with ok", "192.0.2.5", "ok@local.example", 0, simple, true},
		{"full", "192.0.2.2", "u@local.example", 0, full, true},
		{"by recipient", "192.0.2.3", "some@local.example", 0, msg.CheckRules{Access: true, RcptConf: true}, true},
		{"not by recipient", "192.0.2.4", "u@local.example", 0, msg.CheckRules{Access: true, RcptConf: true}, false},
	} {
		v := ask(c.ip, c.rcpt, c.marks, c.rules)
		if v.Greylisted != c.grey || c.grey && (v.Reply.Code != 421 || v.Action != msg.Reject) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	if v := ask("192.0.2.2", "another@local.example", 0, full); !v.Greylisted {
		t.Errorf("full, another recipient: %+v", v)
	}
	accepted := func(what, ip, rcpt string, rules msg.CheckRules) {
		v := ask(ip, rcpt, 0, rules)
		for range 5000 {
			if v.Action == msg.Accept {
				return
			}
			time.Sleep(60 * time.Millisecond) // longer than the client has to wait
			v = ask(ip, rcpt, 0, rules)
		}
		t.Errorf("%s, once the wait is over: %+v", what, v)
	}
	accepted("simple", "192.0.2.1", "another@local.example", simple)
	accepted("full", "192.0.2.2", "u@local.example", full)
}

// TestGreylistCannotBeOpened: a full or broken disk, or a damaged store, stops no mail.
func TestGreylistCannotBeOpened(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EACCES} {
		full := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				return errno
			}
			return nil
		})
		p := world{
			mt: "local.example lmtp:\n",
			config: func(c *Config, d *Deps) {
				c.Greylist = GreylistConfig{Present: true, Wait: time.Minute, Expire: time.Hour, WhiteExpire: time.Hour, WhiteTimeout: 2 * time.Hour, ExpireLimit: 100, Prefix6: 64}
				d.SpoolDir, d.FS = "spool", crashfs.FS(errorfs.Wrap(crashfs.New(), full), nil)
			},
		}.start(t)
		v := askCheck(t, p, msg.CheckQ{
			Stage: msg.StageRcpt, Mail: msg.Mail{From: path("s@x.example")}, Rcpt: msg.Rcpt{To: path("u@local.example")},
			Client: msg.Client{IP: addr("192.0.2.1")}, Rules: &msg.CheckRules{Greylist: msg.GreylistSimple},
		})
		if v.Action != msg.Accept || v.Greylisted {
			t.Errorf("%v: %+v", errno, v)
		}
	}
}

func BenchmarkCheckRcptMaps(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mt"), []byte("example.org lmtp:\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"access.db": "to:@spam.example reject\ncltaddr:10. relay\n", "aliases.db": "user: local:\n"} {
		if _, err := maps.Create(filepath.Join(dir, name), strings.NewReader(text), maps.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	r, err := New(Config{
		Delimiter: "+", Access: MapRef{Present: true, File: "access.db"}, Aliases: AliasConfig{MapRef: MapRef{Present: true, File: "aliases.db"}},
	}, Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("rcpt", func(b *testing.B) {
		q := msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path("user@example.org")}}
		b.ReportAllocs()
		for b.Loop() {
			if v, ok := r.checkFast(&q); !ok || v.Action != msg.Accept {
				b.Fatal("not accepted")
			}
		}
	})
	b.Run("mail", func(b *testing.B) {
		q := msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path("user@example.org")}}
		b.ReportAllocs()
		for b.Loop() {
			if v, ok := r.checkFast(&q); !ok || v.Action != msg.Accept {
				b.Fatal("not accepted")
			}
		}
	})
	b.Run("route", func(b *testing.B) {
		q := msg.RouteQ{Rcpt: path("user@example.org")}
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := r.routeFast(&q); !ok {
				b.Fatal("not fast")
			}
		}
	})
}
