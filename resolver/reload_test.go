package resolver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/vfs/crashfs"
)

// TestReloadNameServers: after a reload other name servers are asked, and what the old ones said is forgotten; a question
// under way ends with the old one. Without such a change the cache stays.
func TestReloadNameServers(t *testing.T) {
	old := serveZone(t, "a.example. 300 IN MX 1 mx.a.example.", "mx.a.example. 300 IN A 10.0.0.1")
	other := serveZone(t, "a.example. 300 IN MX 1 mx.a.example.", "mx.a.example. 300 IN A 10.0.0.2", "u.slow. 300 IN MX 1 mx.a.example.")
	p, r := start(t, "", withDNS(old))
	hop := func() string { return fmt.Sprint(route(t, p, "u@a.example").Hops) }
	if got := hop(); !strings.Contains(got, "10.0.0.1") {
		t.Fatal(got)
	}
	before := r.now.Load().dns.Stats()
	asked := old.queries.Load()
	reload(t, r, func(c *Config, _ *Deps) { c.DNS.Timeout, c.DNS.Retries, c.MXMax = 200*time.Millisecond, 1, 3 })
	if got := hop(); !strings.Contains(got, "10.0.0.1") || old.queries.Load() != asked {
		t.Errorf("%s, %d questions more", got, old.queries.Load()-asked)
	}
	if now := r.now.Load().dns.Stats(); now.Lookups < before.Lookups || now.Queries != before.Queries || now.Entries == 0 {
		t.Errorf("%+v, before %+v", now, before)
	}
	slow := supervise.NewGroup(t.Context())
	slow.Go(func(ctx context.Context) error {
		a, err := p.Route.Ask(ctx, msg.RouteQ{Rcpt: path("u@x.slow")})
		if err == nil && a.Reply.Code != 451 {
			t.Errorf("%+v", a)
		}
		return err
	})
	for old.queries.Load() == asked {
		time.Sleep(time.Millisecond)
	}
	reload(t, r, withDNS(other))
	if got := hop(); !strings.Contains(got, "10.0.0.2") {
		t.Errorf("%s after the name server has moved", got)
	}
	if n := len(r.retired); n != 1 {
		t.Errorf("%d former configurations are kept", n)
	}
	if err := slow.Wait(); err != nil { // the new one has more time
		t.Error(err)
	}
	reload(t, r, nil)
	for len(r.retired) > 0 { // its question may just be ending
		time.Sleep(time.Millisecond)
		reload(t, r, nil)
	}
	if now := r.now.Load().dns.Stats(); now.Lookups <= before.Lookups || now.Queries <= before.Queries {
		t.Errorf("the counters go back: %+v, before %+v", now, before)
	}
}

// TestReloadBlocklist: a client is looked up in a list from the reload on that adds it.
func TestReloadBlocklist(t *testing.T) {
	s := serveZone(t, "1.2.0.192.list.example. 300 IN A 127.0.0.2")
	r := world{
		mt: "local.example lmtp:\n", access: "bl:127.0.0.2 error:550 5.7.1 listed\n",
		config: func(c *Config, d *Deps) { withDNS(s)(c, d) },
	}.resolver(t)
	ports := r.deps.Ports
	ask := func() msg.Verdict {
		return askCheck(t, ports, msg.CheckQ{Stage: msg.StageConnect, Client: msg.Client{IP: addr("192.0.2.1")}})
	}
	if v := ask(); v.Action != msg.Accept {
		t.Fatalf("%+v", v)
	}
	reload(t, r, func(c *Config, _ *Deps) { c.DNSBLs = []DNSBLConfig{{Domain: "list.example", Tag: "bl"}} })
	if v := ask(); v.Reply.Code != 550 {
		t.Errorf("%+v", v)
	}
	reload(t, r, func(c *Config, _ *Deps) { c.DNSBLs = nil })
	if v := ask(); v.Action != msg.Accept {
		t.Errorf("%+v", v)
	}
}

// TestReloadGreylisting: greylisting is turned on, changed and turned off by reloads, and keeps what it knows.
func TestReloadGreylisting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on := GreylistConfig{
			Present: true, Wait: time.Hour, Expire: 5 * time.Hour, WhiteExpire: 10 * time.Hour, WhiteTimeout: 20 * time.Hour,
			ExpireLimit: 100, Netmask: 0xFFFFFFFF, Prefix6: 64,
		}
		p, r := start(t, "local.example lmtp:\n", func(_ *Config, d *Deps) { d.SpoolDir, d.FS = "spool", crashfs.FS(crashfs.New(), nil) })
		grey := func(ip string) bool {
			return askCheck(t, p, msg.CheckQ{
				Stage: msg.StageRcpt, Mail: msg.Mail{From: path("s@x.example")}, Rcpt: msg.Rcpt{To: path("u@local.example")},
				Client: msg.Client{IP: addr(ip)}, Rules: &msg.CheckRules{Access: true, Greylist: msg.GreylistSimple},
			}).Greylisted
		}
		set := func(g GreylistConfig) { reload(t, r, func(c *Config, _ *Deps) { c.Greylist = g }) }
		if grey("192.0.2.1") {
			t.Error("greylisted without greylisting")
		}
		n, err := r.Prepare(Config{Greylist: on}, r.deps)
		if err != nil {
			t.Fatal(err)
		}
		n.Discard()
		if grey("192.0.2.1") {
			t.Error("greylisted after a check")
		}
		set(on)
		if !grey("192.0.2.1") || !grey("192.0.2.2") {
			t.Error("not greylisted")
		}
		time.Sleep(time.Minute)
		if !grey("192.0.2.1") {
			t.Error("not greylisted after a minute")
		}
		shorter := on
		shorter.Wait = 30 * time.Second
		set(shorter)
		if grey("192.0.2.1") {
			t.Error("greylisted after the time that a reload has made shorter")
		}
		set(GreylistConfig{})
		if grey("192.0.2.3") {
			t.Error("greylisted after it was turned off")
		}
		set(on)
		if grey("192.0.2.1") || !grey("192.0.2.2") || !grey("192.0.2.4") {
			t.Error("it has forgotten what it knew")
		}
	})
}

// TestReloadStores: a store that cannot be opened refuses a reload that wants it for the first time, and nothing changes.
func TestReloadStores(t *testing.T) {
	p, r := start(t, "a.example lmtp:\n", nil) // without a spool
	for name, change := range map[string]func(*Config){
		"greylisting": func(c *Config) { c.Greylist.Present = true },
		"mta_sts":     func(c *Config) { c.MTASTS.Present = true },
	} {
		cfg := r.cfg
		change(&cfg)
		if _, err := r.Prepare(cfg, r.deps); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := route(t, p, "u@a.example"); len(a.Hops) != 1 {
		t.Errorf("%+v", a)
	}
}

// TestReloadSTS: policies count from the reload on that turns them on.
func TestReloadSTS(t *testing.T) {
	s := serveZone(t, "a.example. 300 IN MX 1 mx.a.example.", "mx.a.example. 300 IN A 10.0.0.1")
	p, r := start(t, "", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		d.SpoolDir = t.TempDir()
	})
	for _, on := range []bool{true, false, true} {
		reload(t, r, func(c *Config, _ *Deps) { c.MTASTS.Present = on })
		if is := r.now.Load().sts != nil; is != on || (r.endSTS != nil) != on {
			t.Errorf("MTA-STS %v", is)
		}
		if a := route(t, p, "u@a.example"); len(a.Hops) != 1 {
			t.Errorf("%+v", a)
		}
	}
}

// TestReloadBeforeAndAfter: a reload of a Resolver that does not run yet, or not any more, opens nothing twice and leaves
// nothing open.
func TestReloadBeforeAndAfter(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/mt", "a.example lmtp:\n")
	on := GreylistConfig{Present: true, Expire: time.Hour, WhiteExpire: time.Hour, WhiteTimeout: time.Hour, Netmask: 0xFFFFFFFF, Prefix6: 64}
	deps := Deps{Ports: msg.NewPorts(), ConfigDir: dir, ResolvConf: "/nonexistent", SpoolDir: "spool", FS: crashfs.FS(crashfs.New(), nil), Log: slog.New(slog.DiscardHandler)}
	for _, before := range []GreylistConfig{{}, on} {
		r, err := New(Config{Greylist: before, DNS: DNSConfig{Servers: []netip.Addr{addr("127.0.0.1")}}}, deps)
		if err != nil {
			t.Fatal(err)
		}
		with := func(c *Config, _ *Deps) { c.Greylist = on }
		reload(t, r, with)
		g := supervise.NewGroup(t.Context())
		g.Go(r.Run)
		waitOpen(t, deps.Ports)
		if r.now.Load().grey == nil {
			t.Error("no greylisting")
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		reload(t, r, with) // the next round could not open the store if it were open
	}
}
