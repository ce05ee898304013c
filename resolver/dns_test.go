package resolver

import (
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

func serveZone(t *testing.T, lines ...string) *nameServer {
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
			Servers: []netip.Addr{s.addr.Addr()}, Port: int(s.addr.Port()), Timeout: 500 * time.Millisecond,
			Connect: true, CacheSize: 1 << 20,
		}
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
		{"u@x.slow", "mx:x.slow", "", "451 4.4.3"},
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
	before := s.queries.Load()
	route(t, p, "other@mail.test")
	if n := s.queries.Load() - before; n != 0 {
		t.Errorf("a route that was known cost %d queries", n)
	}
}

// A name server that is silent must not hold up questions that need no DNS.
func TestSlowServerBlocksNobody(t *testing.T) {
	s := serveZone(t)
	p, _ := start(t, "local.example lmtp:\n", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		c.DNS.Timeout = 3 * time.Second
	})
	var slow sync.WaitGroup
	for i := range 200 {
		slow.Go(func() {
			addr := "u@" + strings.Repeat("a", 1+i%40) + ".slow"
			a, err := p.Route.Ask(t.Context(), msg.RouteQ{Rcpt: path(addr)})
			if err != nil || !a.Reply.Temporary() {
				t.Errorf("%s: %v %v", addr, a.Reply, err)
			}
		})
	}
	begin := time.Now()
	for range 1000 {
		if a := route(t, p, "u@local.example"); a.Dest != "lmtp:lmtpsock" {
			t.Fatalf("%+v", a)
		}
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("1000 static routes took %v", d)
	}
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
