package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/mta/msg"
)

// nameServer is a name server on loopback with fixed records. Names below slow. get
// no answer, names below fail. a server failure.
type nameServer struct {
	addr    netip.AddrPort
	queries atomic.Int64
}

func serveZone(t testing.TB, lines ...string) *nameServer {
	t.Helper()
	var records []mdns.RR
	for _, l := range lines {
		rr, err := mdns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	var started, ended sync.WaitGroup
	started.Add(1)
	srv := &mdns.Server{PacketConn: pc, NotifyStartedFunc: started.Done, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		s.queries.Add(1)
		if m := answerFrom(records, q); m != nil {
			w.WriteMsg(m)
		}
	})}
	ended.Go(func() { srv.ActivateAndServe() })
	started.Wait()
	t.Cleanup(func() { srv.Shutdown(); ended.Wait() })
	return s
}

func answerFrom(records []mdns.RR, q *mdns.Msg) *mdns.Msg {
	asked := q.Question[0]
	name := mdns.CanonicalName(asked.Name)
	m := new(mdns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	soa, _ := mdns.NewRR(". 300 IN SOA ns. root. 1 2 3 4 60")
	m.Ns = []mdns.RR{soa}
	m.Rcode = mdns.RcodeNameError
	switch {
	case strings.HasSuffix(name, ".slow."):
		return nil
	case strings.HasSuffix(name, ".fail."):
		m.Rcode, m.Ns = mdns.RcodeServerFailure, nil
		return m
	case strings.HasSuffix(name, ".refused."):
		m.Rcode, m.Ns = mdns.RcodeRefused, nil
		return m
	}
	for _, rr := range records {
		if rr.Header().Name != name {
			continue
		}
		m.Rcode = mdns.RcodeSuccess
		if rr.Header().Rrtype == asked.Qtype {
			m.Answer, m.Ns = append(m.Answer, rr), nil
		}
	}
	return m
}

func withDNS(s *nameServer) func(*Config, *Deps) {
	return func(c *Config, _ *Deps) {
		c.DNS = DNSConfig{
			Servers: []netip.Addr{s.addr.Addr()}, Port: int(s.addr.Port()), Timeout: time.Minute,
			Connect: true, CacheSize: 1 << 20,
		}
	}
}

// TestEqualHosts: each message has the hosts of equal preference in an order of its own,
// also when the answers of DNS are cached (RFC 5321 section 5.1); others stay in their place.
func TestEqualHosts(t *testing.T) {
	s := serveZone(t,
		"mail.test. 300 IN MX 10 a.mail.test.", "mail.test. 300 IN MX 10 b.mail.test.", "mail.test. 300 IN MX 10 c.mail.test.",
		"mail.test. 300 IN MX 10 d.mail.test.", "mail.test. 300 IN MX 20 e.mail.test.",
		"a.mail.test. 300 IN A 10.0.0.1", "b.mail.test. 300 IN A 10.0.0.2", "c.mail.test. 300 IN A 10.0.0.3",
		"d.mail.test. 300 IN A 10.0.0.4", "e.mail.test. 300 IN A 10.0.0.5",
	)
	p, _ := start(t, "", withDNS(s))
	orders := map[string]int{}
	for range 2000 {
		order := ""
		for _, hop := range route(t, p, "u@mail.test").Hops {
			order += hop.Host[:1]
		}
		if !strings.HasSuffix(order, "e") || len(order) != 5 {
			t.Fatalf("order %s", order)
		}
		orders[order]++
	}
	if len(orders) != 24 {
		t.Errorf("%d orders of four hosts: %v", len(orders), orders)
	}
}

func TestRoutesByDNS(t *testing.T) {
	s := serveZone(t,
		"mail.test. 300 IN MX 20 b.mail.test.", "mail.test. 300 IN MX 10 a.mail.test.",
		"a.mail.test. 300 IN A 10.0.0.1", "b.mail.test. 300 IN A 10.0.0.2", "b.mail.test. 300 IN AAAA 2001:db8::2",
		"relay.test. 300 IN A 10.0.0.3", "relay.test. 300 IN MX 10 a.mail.test.",
		"lmtp.test. 300 IN A 10.0.0.4", "null.test. 300 IN MX 0 .",
		"mail.example.net. 300 IN A 10.0.0.5",
	)
	p, _ := start(t, `.mx.example relay.test
.host.example { host=relay.test; flags=no_MX_lookup; port=2525; }
lm.example { protocol=lmtp; host=lmtp.test; port=24; }
mail.test { IPv_Select=IPv6_Preferred; }
`, withDNS(s))
	for _, c := range []struct{ addr, dest, hops, reply string }{
		{"u@mail.test", "mx:mail.test/IPv6_Preferred", "esmtp a.mail.test[10.0.0.1]:25, esmtp b.mail.test[2001:db8::2]:25, esmtp b.mail.test[10.0.0.2]:25", ""},
		{"u@x.mx.example", "mx:relay.test", "esmtp a.mail.test[10.0.0.1]:25", ""},
		{"u@x.host.example", "esmtp:relay.test:2525", "esmtp relay.test[10.0.0.3]:2525", ""},
		{"u@lm.example", "lmtp:lmtp.test:24", "lmtp lmtp.test[10.0.0.4]:24", ""},
		{"u@relay.test", "mx:relay.test", "esmtp a.mail.test[10.0.0.1]:25", ""},
		{"u@null.test", "mx:null.test", "", "556 5.1.10"},
		{"u@missing.test", "mx:missing.test", "", "550 5.1.2"},
		{"u@x.fail", "mx:x.fail", "", "451 4.4.3"},
		{"u@mail.example.net", "mx:mail.example.net", "", "554 5.4.6"},
	} {
		t.Run(c.addr, func(t *testing.T) {
			for _, from := range []string{"dns", "cache"} {
				a := route(t, p, c.addr)
				if a.Dest != c.dest || hops(a) != c.hops || !strings.HasPrefix(a.Reply.String(), c.reply) || a.Reply.IsZero() != (c.reply == "") {
					t.Errorf("%s: %q %q %v, want %q %q %s", from, a.Dest, hops(a), a.Reply, c.dest, c.hops, c.reply)
				}
				if len(a.Trace) == 0 || !a.Expires.After(time.Now()) {
					t.Errorf("%s: trace %v, expires %v", from, a.Trace, a.Expires)
				}
			}
		})
	}
	impatient, _ := start(t, "", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		c.DNS.Timeout = 100 * time.Millisecond
	})
	if a := route(t, impatient, "u@x.slow"); a.Dest != "mx:x.slow" || !strings.HasPrefix(a.Reply.String(), "451 4.4.3") {
		t.Errorf("a server that does not answer: %q %v", a.Dest, a.Reply)
	}
	before := s.queries.Load()
	route(t, p, "other@mail.test")
	if n := s.queries.Load() - before; n != 0 {
		t.Errorf("a route that was known cost %d queries", n)
	}
}

// TestRouteLivesAsDNSSays: what a route is made of is kept by package dns alone, so a domain
// that changes its hosts is believed as soon as its time to live has ended.
func TestRouteLivesAsDNSSays(t *testing.T) {
	s := serveZone(t, "moves.test. 0 IN MX 10 a.moves.test.", "a.moves.test. 300 IN A 10.0.0.1")
	p, _ := start(t, "", withDNS(s))
	for i := range 3 {
		before := s.queries.Load()
		if a := route(t, p, "u@moves.test"); hops(a) != "esmtp a.moves.test[10.0.0.1]:25" {
			t.Errorf("%q %v", hops(a), a.Reply)
		}
		want := int64(1) // the MX record
		if i == 0 {
			want = 3
		}
		if n := int64(s.queries.Load() - before); n != want {
			t.Errorf("lookup %d: %d queries, want %d", i, n, want)
		}
	}
}

// A name server that is silent must not hold up questions that need no DNS.
func TestSlowServerBlocksNobody(t *testing.T) {
	s := serveZone(t)
	p, _ := start(t, "local.example lmtp:\n", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		c.DNS.Timeout = time.Hour
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var slow sync.WaitGroup
	for i := range 200 {
		slow.Go(func() {
			addr := "u@" + strings.Repeat("a", 1+i%40) + ".slow"
			if a, err := p.Route.Ask(ctx, msg.RouteQ{Rcpt: path(addr)}); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v %v, though no server answered", addr, a.Reply, err)
			}
		})
	}
	for range 1000 { // while all of them wait
		if a := route(t, p, "u@local.example"); a.Dest != "lmtp:lmtpsock" {
			t.Fatalf("%+v", a)
		}
	}
	cancel()
	slow.Wait()
}

// README 3.12.2, MAIL: is the sender's address routeable?
func TestSenderRoutable(t *testing.T) {
	s := serveZone(t, "good.test. 300 IN A 10.0.0.1", "ipmx.test. 300 IN MX 10 10.0.0.1.")
	p, _ := start(t, "local.example lmtp:\n", withDNS(s))
	for addr, want := range map[string]string{
		"u@good.test": "0", "u@local.example": "0", "": "0",
		"u@missing.test": "553 5.1.8", "u@ipmx.test": "553 5.1.8", "u@x.fail": "451 4.1.8",
	} {
		for range 2 {
			v := askCheck(t, p, msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path(addr)}})
			if !strings.HasPrefix(v.Reply.String(), want) {
				t.Errorf("%s: %v, want %s; %+v", addr, v.Reply, want, v.Trace)
			}
		}
	}
}
