package resolver

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// start runs a Resolver with the given mailertable and gives its ports.
func start(t testing.TB, mt string, change func(*Config, *Deps)) (*msg.Ports, *Resolver) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mt"), mt)
	cfg := Config{Delimiter: "+"}
	deps := Deps{
		Ports: msg.NewPorts(), Hostname: "mail.example.net", ConfigDir: dir, LMTPSocket: "lmtpsock",
		ResolvConf: filepath.Join(dir, "none"),
	}
	if change != nil {
		change(&cfg, &deps)
	}
	r, err := New(cfg, deps)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(r.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	waitOpen(t, deps.Ports)
	return deps.Ports, r
}

func waitOpen(t testing.TB, p *msg.Ports) {
	t.Helper()
	for range 300_000 {
		if _, err := p.Status["smar"].Ask(t.Context(), msg.StatusQ{}); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the module does not serve")
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func route(t *testing.T, p *msg.Ports, addr string) msg.RouteA {
	t.Helper()
	a, err := p.Route.Ask(t.Context(), msg.RouteQ{Rcpt: path(addr)})
	if err != nil {
		t.Fatalf("Route %s: %v", addr, err)
	}
	return a
}

func path(addr string) smtp.Path {
	i := strings.LastIndexByte(addr, '@')
	if i < 0 {
		return smtp.Path{Local: addr}
	}
	return smtp.Path{Local: addr[:i], Domain: addr[i+1:]}
}

func hops(a msg.RouteA) string {
	var words []string
	for _, h := range a.Hops {
		words = append(words, h.Protocol.String()+" "+h.String())
	}
	return strings.Join(words, ", ")
}

// The examples of README 3.9.3; the addresses and values in brackets, which its
// conversion to text lost, are restored.
const readmeTable = `# comment
localhost	lmtp:
spam.filter.domain	{ port=2525; protocol=esmtp; ip={10.2.3.4} }
LMTPHOST.MY.DOMAIN	{ protocol=lmtp; port = 525; ip= { 10.2.3.5 } }
my.domain	esmtp:[10.2.3.6]
many.domain	2526^esmtp:[10.2.3.7] [IPv6:2001:db8::7]
.	[127.0.0.1]
`

func TestStaticRoutes(t *testing.T) {
	p, _ := start(t, readmeTable, nil)
	for _, c := range []struct{ addr, dest, hops string }{
		{"a@localhost", "lmtp:lmtpsock", "lmtp lmtpsock"},
		{"a@LocalHost", "lmtp:lmtpsock", "lmtp lmtpsock"},
		{"postmaster", "lmtp:lmtpsock", "lmtp lmtpsock"},
		{"a@spam.filter.domain", "esmtp:[10.2.3.4]:2525", "esmtp [10.2.3.4]:2525"},
		{"a@lmtphost.my.domain", "lmtp:[10.2.3.5]:525", "lmtp [10.2.3.5]:525"},
		{"a@my.domain", "esmtp:[10.2.3.6]:25", "esmtp [10.2.3.6]:25"},
		{"a@many.domain", "esmtp:[10.2.3.7][2001:db8::7]:2526", "esmtp [10.2.3.7]:2526, esmtp [2001:db8::7]:2526"},
		{"a@sub.my.domain", "esmtp:[127.0.0.1]:25", "esmtp [127.0.0.1]:25"},
		{"a@elsewhere.example", "esmtp:[127.0.0.1]:25", "esmtp [127.0.0.1]:25"},
	} {
		t.Run(c.addr, func(t *testing.T) {
			before := time.Now()
			a := route(t, p, c.addr)
			if !a.Reply.IsZero() || a.Dest != c.dest || hops(a) != c.hops {
				t.Errorf("got %v %q %q, want %q %q", a.Reply, a.Dest, hops(a), c.dest, c.hops)
			}
			if d := a.Expires.Sub(before); d < time.Hour || d > time.Hour+time.Minute {
				t.Errorf("expires in %v, want 1h (README 7.2)", d)
			}
			if len(a.Trace) != 1 || a.Trace[0].Check != "mailertable" || !strings.Contains(a.Trace[0].Map, "mt:") {
				t.Errorf("trace %+v does not name the line", a.Trace)
			}
		})
	}
}

func TestConnectOnlyTo(t *testing.T) {
	p, _ := start(t, "local.example lmtp:\nmx.example 2525^esmtp:host.example\n", func(_ *Config, d *Deps) {
		d.ConnectOnlyTo = netip.MustParseAddr("127.0.0.9")
		d.RemotePort = 2600
	})
	for addr, want := range map[string]string{
		"a@local.example": "lmtp:lmtpsock",
		"a@mx.example":    "esmtp:[127.0.0.9]:2600",
		"a@other.example": "esmtp:[127.0.0.9]:2600",
	} {
		if a := route(t, p, addr); a.Dest != want || len(a.Hops) != 1 {
			t.Errorf("%s: %q, want %q", addr, a.Dest, want)
		}
	}
}

func TestAddressLiterals(t *testing.T) {
	p, _ := start(t, "[192.0.2.9] lmtp:\n", nil)
	for addr, want := range map[string]string{
		"a@[192.0.2.1]":          "esmtp:[192.0.2.1]:25",
		"a@[IPv6:2001:db8::1]":   "esmtp:[2001:db8::1]:25",
		"postmaster@[192.0.2.9]": "lmtp:lmtpsock",
	} {
		if a := route(t, p, addr); a.Dest != want {
			t.Errorf("%s: %q, want %q", addr, a.Dest, want)
		}
	}
}

func TestBadMailertable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mt"), strings.Join([]string{
		"good.example lmtp:",
		"no-value",
		"port.example 0^esmtp:[10.0.0.1]",
		"good.example lmtp:",
		"@at.example lmtp:",
		"ip.example { ip = {10.0.0.300}; }",
	}, "\n"))
	_, err := New(Config{}, Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"})
	if err == nil {
		t.Fatal("a bad mailertable was accepted")
	}
	for _, want := range []string{"mt:2: ", "mt:3: ", "mt:4: ", "mt:5: ", "mt:6: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s:\n%v", want, err)
		}
	}
	if _, err := New(Config{}, Deps{Ports: msg.NewPorts(), ConfigDir: t.TempDir(), ResolvConf: "/nonexistent"}); err == nil {
		t.Error("a missing mailertable was accepted")
	}
}

// reload puts another configuration in effect.
func reload(t *testing.T, r *Resolver, change func(*Config, *Deps)) {
	t.Helper()
	cfg, deps := r.now.Load().cfg, r.now.Load().deps
	if change != nil {
		change(&cfg, &deps)
	}
	n, err := r.Prepare(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	n.Commit()
}

func TestReload(t *testing.T) {
	p, r := start(t, "a.example lmtp:\n", nil)
	mt := filepath.Join(r.deps.ConfigDir, "mt")
	write(t, mt, "a.example esmtp:[10.1.1.1]\n")
	reload(t, r, nil)
	if a := route(t, p, "x@a.example"); a.Dest != "esmtp:[10.1.1.1]:25" {
		t.Errorf("after reload: %q", a.Dest)
	}
	write(t, mt, "a.example broken:broken\n")
	if _, err := r.Prepare(r.now.Load().cfg, r.now.Load().deps); err == nil {
		t.Error("a broken mailertable was loaded")
	}
	if a := route(t, p, "x@a.example"); a.Dest != "esmtp:[10.1.1.1]:25" {
		t.Errorf("after a failed reload: %q, want the old route", a.Dest)
	}
}

func askCheck(t *testing.T, p *msg.Ports, q msg.CheckQ) msg.Verdict {
	t.Helper()
	v, err := p.Check.Ask(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	// The log names what decided (server's line "refused").
	if d := v.Decision(); v.Action != msg.Accept && (d.Check == "" || d.Key == "" && d.Map == "" && d.Effect == "") {
		t.Errorf("nothing says what decided: %+v", v)
	}
	return v
}

func TestRelayWithoutAccessMap(t *testing.T) {
	p, _ := start(t, "local.example lmtp:\nrelay.example [10.1.1.1]\n", nil)
	for _, c := range []struct {
		rcpt     string
		relaying bool
		code     int
	}{
		{"a@local.example", false, 0},
		{"a@LOCAL.example", false, 0},
		{"a@relay.example", false, 550},
		{"a@relay.example", true, 0},
		{"a@other.example", false, 550},
		{"a@other.example", true, 0},
		{"a@sub.local.example", false, 550},
	} {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(c.rcpt)}, Relaying: c.relaying})
		if v.Reply.Code != c.code || (v.Action == msg.Reject) != (c.code != 0) {
			t.Errorf("%s relaying=%v: %v %v, want %d", c.rcpt, c.relaying, v.Action, v.Reply, c.code)
		}
		if c.code != 0 && (v.Reply.Enhanced != smtp.EnhancedCode{5, 7, 1} || len(v.Trace) == 0) {
			t.Errorf("%s: reply %v, trace %v", c.rcpt, v.Reply, v.Trace)
		}
	}
	if v := askCheck(t, p, msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: netip.MustParseAddr("192.0.2.1")}}); v.Action != msg.Accept || v.Relay {
		t.Errorf("connect: %+v, want plain accept", v)
	}
}

// The examples of README 3.9.3; addresses that its conversion to text lost are
// restored.
const readmeAccess = `from:@spammer.domain error:551 5.7.1 No spammers
from:@.spammer.domain error:551 5.7.1 No spammers in subdomains either
to:root error:551 5.7.1 No mail to root
to:abuse quick:ok
cltaddr:10. error:551 5.7.1 No direct mail from 10.x.y.z
cltaddr:10.12. relay
cltaddr:127.0.0.1 quick:relay
cltaddr:2001:db8:0:1: relay
to:@primary.domain relay
to:@bad.domain error:9 no
`

func TestAccessMap(t *testing.T) {
	zone := serveZone(t)
	p, _ := start(t, "local.domain lmtp:\n. [10.1.1.1]\n", func(c *Config, d *Deps) {
		withDNS(zone)(c, d)
		c.Access = MapRef{Present: true, File: "access"}
		write(t, filepath.Join(d.ConfigDir, "access"), readmeAccess)
	})
	client := func(ip string) msg.CheckQ {
		return msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: netip.MustParseAddr(ip)}}
	}
	mail := func(a string) msg.CheckQ {
		return msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path(a)}}
	}
	rcpt := func(a string) msg.CheckQ {
		return msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(a)}}
	}
	for name, c := range map[string]struct {
		q     msg.CheckQ
		code  int
		relay bool
		quick bool
	}{
		"net":                   {client("10.1.2.3"), 551, false, false},
		"longer net":            {client("10.12.2.3"), 0, true, false},
		"quick relay":           {client("127.0.0.1"), 0, true, true},
		"ipv4 in ipv6":          {client("::ffff:127.0.0.1"), 0, true, true},
		"ipv6 net":              {client("2001:db8:0:1::5"), 0, true, false},
		"other ipv6":            {client("2001:db8:0:2::5"), 0, false, false},
		"sender":                {mail("a@spammer.domain"), 551, false, false},
		"sender of subdomain":   {mail("a@x.spammer.domain"), 551, false, false},
		"good sender":           {mail("a@good.domain"), 0, false, false},
		"null sender":           {mail(""), 0, false, false},
		"relay domain":          {rcpt("a@primary.domain"), 0, false, false},
		"other domain":          {rcpt("a@secondary.domain"), 550, false, false},
		"local":                 {rcpt("a@local.domain"), 0, false, false},
		"local part":            {rcpt("root@local.domain"), 551, false, false},
		"quoted local part":     {rcpt(`"root"@local.domain`), 551, false, false},
		"quick ok":              {rcpt("abuse@local.domain"), 0, false, true},
		"ok does not relay":     {rcpt("abuse@secondary.domain"), 550, false, false},
		"unreadable entry":      {rcpt("a@bad.domain"), 451, false, false},
		"unknown stage of data": {msg.CheckQ{Stage: msg.StageData}, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := askCheck(t, p, c.q)
			if v.Reply.Code != c.code || v.Quick != c.quick || v.Relay != c.relay {
				t.Errorf("got %v relay=%v quick=%v, want %d %v %v; trace %+v", v.Reply, v.Relay, v.Quick, c.code, c.relay, c.quick, v.Trace)
			}
		})
	}
}

func TestStatusAndStop(t *testing.T) {
	p, _ := start(t, "a.example lmtp:\n", nil)
	if _, err := p.Route.Ask(t.Context(), msg.RouteQ{Rcpt: smtp.Path{Local: "x", Domain: "asks.dns.example"}}); err != nil {
		t.Fatal(err)
	}
	s, err := p.Status["smar"].Ask(t.Context(), msg.StatusQ{})
	if err != nil || s.Module != "smar" {
		t.Fatalf("%+v, %v", s, err)
	}
	if !slices.Contains(s.Values, msg.StatusValue{Name: "mailertable_entries", Number: 1}) {
		t.Errorf("values %v", s.Values)
	}
	if !slices.Contains(s.Values, msg.StatusValue{Name: "waiting_questions_peak", Number: 1}) {
		t.Errorf("the most questions that waited: %v", s.Values)
	}
}

func BenchmarkRouteStatic(b *testing.B) {
	dir := b.TempDir()
	os.WriteFile(filepath.Join(dir, "mt"), []byte("example.org lmtp:\n. [127.0.0.1]\n"), 0o600)
	r, err := New(Config{Delimiter: "+"}, Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"})
	if err != nil {
		b.Fatal(err)
	}
	q := msg.RouteQ{Rcpt: smtp.Path{Local: "user", Domain: "mail.example.org"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.routeFast(&q); !ok {
			b.Fatal("not fast")
		}
	}
}

func BenchmarkCheckRcpt(b *testing.B) {
	dir := b.TempDir()
	os.WriteFile(filepath.Join(dir, "mt"), []byte("example.org lmtp:\n"), 0o600)
	r, err := New(Config{Delimiter: "+"}, Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent"})
	if err != nil {
		b.Fatal(err)
	}
	q := msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: smtp.Path{Local: "user", Domain: "example.org"}}}
	b.ReportAllocs()
	for b.Loop() {
		if v, ok := r.checkFast(&q); !ok || v.Action != msg.Accept {
			b.Fatal("not accepted")
		}
	}
}
