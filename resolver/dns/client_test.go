package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// fakeServer is a name server on loopback, UDP and TCP on one port. handle may
// return nil to stay silent.
type fakeServer struct {
	addr     netip.AddrPort
	udp, tcp atomic.Int64
}

type handler func(network string, q *mdns.Msg) []*mdns.Msg

func serve(t *testing.T, handle handler) *fakeServer {
	t.Helper()
	pc, l := listen(t)
	s := &fakeServer{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	answer := func(network string, n *atomic.Int64) mdns.HandlerFunc {
		return func(w mdns.ResponseWriter, q *mdns.Msg) {
			n.Add(1)
			for _, m := range handle(network, q) {
				if err := w.WriteMsg(m); err != nil && !errors.Is(err, net.ErrClosed) { // a late one
					t.Errorf("fake server: %v", err)
				}
			}
		}
	}
	var started sync.WaitGroup
	started.Add(2)
	servers := []*mdns.Server{
		{PacketConn: pc, Handler: answer("udp", &s.udp), NotifyStartedFunc: started.Done},
		{Listener: l, Handler: answer("tcp", &s.tcp), NotifyStartedFunc: started.Done},
	}
	var ended sync.WaitGroup
	for _, srv := range servers {
		ended.Go(func() { srv.ActivateAndServe() })
	}
	started.Wait()
	t.Cleanup(func() {
		for _, srv := range servers {
			srv.Shutdown()
		}
		ended.Wait()
	})
	return s
}

// listen finds a port that is free for UDP and for TCP.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func newClient(t *testing.T, change func(*Config), servers ...*fakeServer) *Client {
	t.Helper()
	cfg := Config{Retries: 1, Timeout: time.Minute, Connect: true, CacheSize: 1 << 20}
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, s.addr)
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func rr(t testing.TB, text string) mdns.RR {
	t.Helper()
	r, err := mdns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reply(t testing.TB, q *mdns.Msg, records ...string) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	for _, text := range records {
		r := rr(t, text)
		if r.Header().Rrtype == mdns.TypeSOA {
			m.Ns = append(m.Ns, r)
		} else {
			m.Answer = append(m.Answer, r)
		}
	}
	return m
}

func one(m *mdns.Msg) []*mdns.Msg { return []*mdns.Msg{m} }

const soa = "example.org. 300 IN SOA ns. root. 1 2 3 4 60"

func texts(a *Answer) string {
	var words []string
	for _, r := range a.RRs {
		words = append(words, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	return strings.Join(words, ", ")
}

func TestAnswers(t *testing.T) {
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		switch name := q.Question[0].Name; name {
		case "mx.example.org.":
			return one(reply(t, q, "mx.example.org. 100 IN MX 10 a.example.org.", "mx.example.org. 50 IN MX 20 b.example.org.",
				"forged.example.org. 100 IN MX 5 evil."))
		case "alias.example.org.":
			return one(reply(t, q, "alias.example.org. 10 IN CNAME Mid.example.org.", "mid.example.org. 20 IN CNAME mx.example.org.",
				"mx.example.org. 100 IN MX 10 a.example.org."))
		case "half.example.org.":
			return one(reply(t, q, "half.example.org. 10 IN CNAME mx.example.org."))
		case "loop.example.org.":
			return one(reply(t, q, "loop.example.org. 10 IN CNAME loop2.example.org.", "loop2.example.org. 10 IN CNAME loop.example.org."))
		case "none.example.org.":
			return one(reply(t, q, soa))
		case "nosoa.example.org.":
			return one(reply(t, q))
		case "missing.example.org.", "dangling.example.org.":
			m := reply(t, q, soa)
			m.Rcode = mdns.RcodeNameError
			if name[0] == 'd' {
				m.Answer = append(m.Answer, rr(t, "dangling.example.org. 10 IN CNAME gone.example.org."))
			}
			return one(m)
		}
		m := reply(t, q)
		m.Rcode = mdns.RcodeServerFailure
		return one(m)
	})
	c := newClient(t, nil, s)
	for _, tc := range []struct {
		name   string
		status Status
		rrs    string
		final  string
		ttl    time.Duration
	}{
		{"mx.example.org", Success, "10 a.example.org., 20 b.example.org.", "mx.example.org.", 50 * time.Second},
		{"MX.Example.ORG.", Success, "10 a.example.org., 20 b.example.org.", "mx.example.org.", 50 * time.Second},
		{"alias.example.org", Success, "10 a.example.org.", "mx.example.org.", 10 * time.Second},
		{"half.example.org", Success, "10 a.example.org., 20 b.example.org.", "mx.example.org.", 10 * time.Second},
		{"loop.example.org", Temporary, "", "", failureTTL},
		{"none.example.org", NoData, "", "none.example.org.", 60 * time.Second},
		{"nosoa.example.org", NoData, "", "nosoa.example.org.", 0},
		{"missing.example.org", NXDomain, "", "missing.example.org.", 60 * time.Second},
		{"dangling.example.org", NXDomain, "", "gone.example.org.", 10 * time.Second},
		{"broken.example.org", Temporary, "", "", failureTTL},
		{"bad name.example.org", NXDomain, "", "", maxNegative},
		{strings.Repeat("a", 64) + ".org", NXDomain, "", "", maxNegative},
		{strings.Repeat("a.", 200), NXDomain, "", "", maxNegative},
	} {
		t.Run(tc.name[:min(len(tc.name), 20)], func(t *testing.T) {
			a := c.Lookup(t.Context(), tc.name, mdns.TypeMX)
			if a.Status != tc.status || texts(a) != tc.rrs || tc.final != "" && a.Name != tc.final {
				t.Errorf("%v %q %q, want %v %q %q (%s)", a.Status, texts(a), a.Name, tc.status, tc.rrs, tc.final, a.Err)
			}
			if left := time.Until(a.Expires); left > tc.ttl || left < tc.ttl-5*time.Second {
				t.Errorf("expires in %v, want %v", left, tc.ttl)
			}
		})
	}
}

func TestTruncatedGoesToTCP(t *testing.T) {
	s := serve(t, func(network string, q *mdns.Msg) []*mdns.Msg {
		m := reply(t, q)
		if network == "udp" {
			m.Truncated = true
			return one(m)
		}
		for i := range 500 {
			m.Answer = append(m.Answer, rr(t, fmt.Sprintf("big.example.org. 60 IN A 10.0.%d.%d", i/250, i%250)))
		}
		return one(m)
	})
	c := newClient(t, nil, s)
	a := c.Lookup(t.Context(), "big.example.org", mdns.TypeA)
	if a.Status != Success || len(a.RRs) != 500 || s.udp.Load() != 1 || s.tcp.Load() != 1 {
		t.Errorf("%v, %d records, %d UDP and %d TCP queries", a.Status, len(a.RRs), s.udp.Load(), s.tcp.Load())
	}
	only := newClient(t, func(c *Config) { c.TCP = true }, s)
	if a := only.Lookup(t.Context(), "big.example.org", mdns.TypeA); a.Status != Success || s.udp.Load() != 1 {
		t.Errorf("use_TCP: %v %s, %d UDP queries", a.Status, a.Err, s.udp.Load()-1)
	}
}

// TestTruncatedByTCP: a reply that is truncated by TCP as well says nothing of records that it does not have: mail would be
// bounced because of it. Those that it has are taken.
func TestTruncatedByTCP(t *testing.T) {
	for _, tt := range []struct {
		records []string
		want    Status
	}{
		{nil, Temporary},
		{[]string{"cut.example.org. 60 IN A 10.0.0.1"}, Success},
	} {
		s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
			m := reply(t, q, tt.records...)
			m.Truncated = true
			return one(m)
		})
		if a := newClient(t, nil, s).Lookup(t.Context(), "cut.example.org", mdns.TypeA); a.Status != tt.want || len(a.RRs) != len(tt.records) {
			t.Errorf("with %q: %v %s, %q", tt.records, a.Status, a.Err, texts(a))
		}
	}
}

// TestMissingRecords: a reply that ends before the records that its header announces is malformed, not one without
// records.
func TestMissingRecords(t *testing.T) {
	q := new(mdns.Msg)
	q.SetQuestion("x.example.org.", mdns.TypeA)
	for _, records := range [][]string{nil, {"x.example.org. 60 IN A 10.0.0.1"}} {
		wire, err := reply(t, q, records...).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if fits(wire, q, true) == nil {
			t.Errorf("%q does not fit", records)
		}
		wire[7]++ // ANCOUNT
		if m := fits(wire, q, true); m != nil {
			t.Errorf("one record less than announced: taken as %v", m)
		}
	}
}

// A reply must repeat id and question; forgeries are ignored, and many of them make
// the client use TCP.
func TestForgedReplies(t *testing.T) {
	forge := func(t *testing.T, q *mdns.Msg) []*mdns.Msg {
		wrongID := reply(t, q, "x.example.org. 60 IN A 10.6.6.6")
		wrongID.Id++
		wrongName := reply(t, q, "x.example.org. 60 IN A 10.6.6.6")
		wrongName.Question[0].Name = "y.example.org."
		wrongType := reply(t, q, "x.example.org. 60 IN A 10.6.6.6")
		wrongType.Question[0].Qtype = mdns.TypeMX
		query := reply(t, q, "x.example.org. 60 IN A 10.6.6.6")
		query.Response = false
		return []*mdns.Msg{wrongID, wrongName, wrongType, query}
	}
	t.Run("few", func(t *testing.T) {
		s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
			return append(forge(t, q), reply(t, q, "x.example.org. 60 IN A 10.0.0.1"))
		})
		a := newClient(t, nil, s).Lookup(t.Context(), "x.example.org", mdns.TypeA)
		if texts(a) != "10.0.0.1" || s.tcp.Load() != 0 {
			t.Errorf("%v %q, %d TCP queries", a.Status, texts(a), s.tcp.Load())
		}
	})
	t.Run("many", func(t *testing.T) {
		s := serve(t, func(network string, q *mdns.Msg) []*mdns.Msg {
			if network == "tcp" {
				return one(reply(t, q, "x.example.org. 60 IN A 10.0.0.1"))
			}
			var all []*mdns.Msg
			for range 5 {
				all = append(all, forge(t, q)...)
			}
			return all
		})
		a := newClient(t, nil, s).Lookup(t.Context(), "x.example.org", mdns.TypeA)
		if texts(a) != "10.0.0.1" || s.tcp.Load() != 1 {
			t.Errorf("%v %q, %d TCP queries", a.Status, texts(a), s.tcp.Load())
		}
	})
}

func TestMixCase(t *testing.T) {
	var seen sync.Map
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		seen.Store(q.Question[0].Name, true)
		lower := reply(t, q, "mixed-case-name.example.org. 60 IN A 10.6.6.6")
		lower.Question[0].Name = strings.ToLower(lower.Question[0].Name)
		return []*mdns.Msg{lower, reply(t, q, "mixed-case-name.example.org. 60 IN A 10.0.0.1")}
	})
	a := newClient(t, func(c *Config) { c.MixCase = true }, s).Lookup(t.Context(), "mixed-case-name.example.org", mdns.TypeA)
	if texts(a) != "10.0.0.1" {
		t.Errorf("%v %q", a.Status, texts(a))
	}
	if _, plain := seen.Load("mixed-case-name.example.org."); plain {
		t.Error("the question was asked in lower case")
	}
}

func TestWithoutEDNS(t *testing.T) {
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		if q.IsEdns0() != nil {
			m := new(mdns.Msg)
			m.SetRcode(q, mdns.RcodeFormatError)
			m.Question = nil
			return one(m)
		}
		return one(reply(t, q, "old.example.org. 60 IN A 10.0.0.1"))
	})
	if a := newClient(t, nil, s).Lookup(t.Context(), "old.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
		t.Errorf("%v %q %s", a.Status, texts(a), a.Err)
	}
}

// A server that is silent, lame or broken is passed over for the next one, and a
// silent one is asked last from then on.
func TestNextServer(t *testing.T) {
	good := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		return one(reply(t, q, q.Question[0].Name+" 60 IN A 10.0.0.1"))
	})
	for name, h := range map[string]handler{
		"silent": func(string, *mdns.Msg) []*mdns.Msg { return nil },
		"servfail": func(_ string, q *mdns.Msg) []*mdns.Msg {
			m := reply(t, q)
			m.Rcode = mdns.RcodeServerFailure
			return one(m)
		},
		"refused": func(_ string, q *mdns.Msg) []*mdns.Msg {
			m := reply(t, q)
			m.Rcode = mdns.RcodeRefused
			return one(m)
		},
		"referral": func(_ string, q *mdns.Msg) []*mdns.Msg {
			m := reply(t, q)
			m.RecursionAvailable = false
			m.Ns = append(m.Ns, rr(t, "org. 60 IN NS a.root."))
			return one(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := serve(t, h)
			c := newClient(t, func(c *Config) {
				if name == "silent" {
					c.Timeout = 300 * time.Millisecond
				}
			}, bad, good)
			if a := c.Lookup(t.Context(), "a.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
				t.Fatalf("%v %q %s", a.Status, texts(a), a.Err)
			}
			asked := bad.udp.Load()
			if asked == 0 {
				t.Error("the first server was not asked")
			}
			if a := c.Lookup(t.Context(), "b.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
				t.Errorf("%v %q %s", a.Status, texts(a), a.Err)
			}
			if name == "silent" && bad.udp.Load() != asked {
				t.Error("a server that was silent is still asked first")
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(pc.LocalAddr().String())
	pc.Close()
	c, err := New(Config{Servers: []netip.AddrPort{addr}, Retries: 3, Timeout: time.Hour, Connect: true, CacheSize: 1000}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The port is closed, so it does not wait for the hour.
	if a := c.Lookup(t.Context(), "a.example.org", mdns.TypeA); a.Status != Temporary || a.Err == "" {
		t.Errorf("%v %q", a.Status, a.Err)
	}
}

// README 3.9.2 item 4c: the time limit of a request is (retries + 1) * timeout.
func TestTimeLimit(t *testing.T) {
	s := serve(t, func(string, *mdns.Msg) []*mdns.Msg { return nil })
	c := newClient(t, func(c *Config) { c.Retries, c.Timeout = 2, 100*time.Millisecond }, s)
	start := time.Now()
	a := c.Lookup(t.Context(), "a.example.org", mdns.TypeA)
	if d := time.Since(start); a.Status != Temporary || d < 250*time.Millisecond {
		t.Errorf("%v after %v, want a temporary failure after 300ms", a.Status, d)
	}
	if n := s.udp.Load(); n < 1 || n > 3 { // those that a busy machine sends too late are left out
		t.Errorf("%d queries, want 3", n)
	}
}

// A late answer to an earlier try does not fit to the next: it has another port.
func TestLateAnswer(t *testing.T) {
	var n atomic.Int64
	answered := make(chan struct{})
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		if n.Add(1) == 1 {
			<-answered
			return one(reply(t, q, "late.example.org. 60 IN A 10.6.6.6"))
		}
		return one(reply(t, q, "late.example.org. 60 IN A 10.0.0.1"))
	})
	c := newClient(t, func(c *Config) { c.Retries, c.Timeout = 50, 200*time.Millisecond }, s)
	if a := c.Lookup(t.Context(), "late.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
		t.Errorf("%v %q %s", a.Status, texts(a), a.Err)
	}
	close(answered)
}

func TestJoinAndCache(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		<-release
		return one(reply(t, q, "a.example.org. 60 IN A 10.0.0.1"))
	})
	c := newClient(t, func(c *Config) { c.Timeout = 5 * time.Second }, s)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := c.Lookup(context.Background(), "a.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
				t.Errorf("%v %s", a.Status, a.Err)
			}
		})
	}
	for c.Stats().Lookups < 20 {
		time.Sleep(time.Millisecond)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if a := c.Lookup(ended, "a.example.org", mdns.TypeA); a.Status != Temporary {
		t.Errorf("a caller that gave up got %v", a.Status)
	}
	close(release)
	wg.Wait()
	c.Lookup(t.Context(), "a.example.org", mdns.TypeA)
	if st := c.Stats(); s.udp.Load() != 1 || st.Joined != 20 || st.Hits != 1 || st.Queries != 1 || st.Entries != 1 {
		t.Errorf("%d queries at the server, %+v", s.udp.Load(), st)
	}
}

func TestCloseEndsLookups(t *testing.T) {
	s := serve(t, func(string, *mdns.Msg) []*mdns.Msg { return nil })
	c := newClient(t, func(c *Config) { c.Timeout = time.Minute }, s)
	done := make(chan Status)
	go func() { done <- c.Lookup(context.Background(), "a.example.org", mdns.TypeA).Status }()
	for s.udp.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	select {
	case st := <-done:
		if st != Temporary {
			t.Errorf("got %v", st)
		}
	case <-time.After(5 * time.Minute):
		t.Error("the lookup did not end")
	}
}

func TestSecure(t *testing.T) {
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		m := reply(t, q, q.Question[0].Name+" 60 IN A 10.0.0.1")
		m.AuthenticatedData = q.AuthenticatedData && strings.HasSuffix(q.Question[0].Name, "signed.example.org.")
		return one(m)
	})
	for _, tc := range []struct {
		dnssec bool
		name   string
		want   bool
	}{{true, "signed.example.org", true}, {true, "plain.example.org", false}, {false, "signed.example.org", false}} {
		c := newClient(t, func(c *Config) { c.DNSSEC = tc.dnssec }, s)
		if a := c.Lookup(t.Context(), tc.name, mdns.TypeA); a.Secure != tc.want {
			t.Errorf("%+v: secure=%v", tc, a.Secure)
		}
		c.servers[0].trusted = false // as if it were on another machine
		if a := c.Lookup(t.Context(), "other."+tc.name, mdns.TypeA); a.Secure {
			t.Errorf("%+v: a server that is not trusted is believed", tc)
		}
	}
}

func TestUnconnected(t *testing.T) {
	s := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		return one(reply(t, q, "a.example.org. 60 IN A 10.0.0.1"))
	})
	c := newClient(t, func(c *Config) { c.Connect = false }, s)
	if a := c.Lookup(t.Context(), "a.example.org", mdns.TypeA); texts(a) != "10.0.0.1" {
		t.Errorf("%v %s", a.Status, a.Err)
	}
}

func TestCacheBound(t *testing.T) {
	c := newCache(10000)
	now := time.Now()
	for i := range 1000 {
		k := key{fmt.Sprintf("n%d.", i), mdns.TypeA}
		c.put(k, &Answer{Name: k.name, RRs: []mdns.RR{rr(t, "x. 60 IN A 10.0.0.1")}, Expires: now.Add(time.Minute)}, now)
		if c.size > 10000 || len(c.entries) != c.used.Len() {
			t.Fatalf("size %d, %d entries, %d in the list", c.size, len(c.entries), c.used.Len())
		}
		c.get(key{"n0.", mdns.TypeA}, now)
	}
	if c.get(key{"n0.", mdns.TypeA}, now) == nil {
		t.Error("an entry in use was dropped")
	}
	if c.get(key{"n1.", mdns.TypeA}, now) != nil || len(c.entries) < 10 {
		t.Errorf("old entry kept, or only %d entries", len(c.entries))
	}
	if c.get(key{"n0.", mdns.TypeA}, now.Add(time.Minute)) != nil {
		t.Error("an expired entry was given")
	}
}

func FuzzReply(f *testing.F) {
	q := new(mdns.Msg)
	q.SetQuestion("a.example.org.", mdns.TypeMX)
	q.Id = 7
	for _, records := range [][]string{
		{"a.example.org. 60 IN MX 10 b."},
		{"a.example.org. 60 IN CNAME b.", "b. 60 IN CNAME a.example.org."},
		{soa},
	} {
		m := reply(f, q, records...)
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := fits(wire, q, false)
		if m == nil {
			return
		}
		if m.Id != 7 || !m.Response {
			t.Error("a reply that does not fit was taken")
		}
		r := reading{name: "a.example.org.", ttl: maxTTL}
		if r.read(m, mdns.TypeMX) {
			a := r.answer(true)
			if len(a.RRs) > maxRecords || time.Until(a.Expires) > maxTTL {
				t.Error("answer beyond its bounds")
			}
		}
		if r.links > maxCNAME+1 {
			t.Errorf("%d aliases followed", r.links)
		}
	})
}
