package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/client/metrics"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// smar answers questions for TLSA records.
type smar struct {
	mu    sync.Mutex // guards all below
	a     msg.TLSAA
	asked []msg.TLSAQ
}

func (s *smar) set(a msg.TLSAA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.a = a
}

// serve opens the port until stop is called.
func (s *smar) serve(t *testing.T, ports *msg.Ports) (stop func()) {
	t.Helper()
	requests, closePort := ports.TLSA.Open()
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error {
		for {
			select {
			case r := <-requests:
				s.mu.Lock()
				s.asked = append(s.asked, r.Q)
				a := s.a
				s.mu.Unlock()
				r.Answer(a)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return func() {
		closePort()
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// secureAnswer is an answer with records that name the key of a certificate of the tests, or have
// other data.
func secureAnswer(kinds string, cert tls.Certificate) msg.TLSAA {
	a := msg.TLSAA{Base: "mx.example", Names: []string{"mx.example"}, Secure: true}
	for kind := range strings.SplitSeq(kinds, ",") {
		var r msg.TLSA
		if _, err := fmt.Sscan(kind, &r.Usage, &r.Selector, &r.Matching); err != nil {
			panic(err)
		}
		sum := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
		if r.Usage == 2 {
			sum = sha256.Sum256(newCerts().ca.RawSubjectPublicKeyInfo)
		}
		r.Data = string(sum[:])
		a.Records = append(a.Records, r)
	}
	return a
}

// TestDANE: what TLSA records do to a delivery.
func TestDANE(t *testing.T) {
	kind := newCerts().kind
	lookupFailed := msg.TLSAA{Reply: smtp.NewReply(451, "4.7.5", "lookup of TLSA records failed")}
	notSecure := secureAnswer("3 1 1", kind["trusted"])
	notSecure.Secure = false
	for _, c := range []struct {
		name     string
		cert     string // "" for a server without TLS
		a        msg.TLSAA
		want     string // the answer: level, what it says of the certificate, record; or the reply
		noMatch  bool
		class    string
		metric   metrics.DANEResult // that is counted, metrics.DANEResults for none
		requires string
	}{
		{name: "match", cert: "trusted", a: secureAnswer("3 1 1", kind["trusted"]), want: "dane DANE_SEC 3 1 1", metric: metrics.DANEMatch},
		{name: "a CA matches", cert: "trusted", a: secureAnswer("2 1 1", kind["trusted"]), want: "dane DANE_SEC 2 1 1", metric: metrics.DANEMatch},
		{name: "an unknown CA does not matter", cert: "untrusted", a: secureAnswer("3 1 1", kind["untrusted"]), want: "dane DANE_SEC 3 1 1", metric: metrics.DANEMatch},
		{name: "expired", cert: "expired", a: secureAnswer("3 1 1", kind["expired"]), want: "dane DANE_SEC 3 1 1", metric: metrics.DANEMatch},
		{name: "expired, with a CA", cert: "expired", a: secureAnswer("2 1 1", kind["expired"]), want: "451 4.7.5 no TLSA record", noMatch: true, metric: metrics.DANENoMatch},
		{name: "wrong name", cert: "wrongname", a: secureAnswer("3 1 1", kind["wrongname"]), want: "dane DANE_SEC 3 1 1", metric: metrics.DANEMatch},
		{name: "wrong name, with a CA", cert: "wrongname", a: secureAnswer("2 1 1", kind["wrongname"]), want: "451 4.7.5 no TLSA record", noMatch: true, metric: metrics.DANENoMatch},
		{name: "no match", cert: "trusted", a: secureAnswer("3 1 1", kind["untrusted"]), want: "451 4.7.5 no TLSA record", noMatch: true, metric: metrics.DANENoMatch},
		{name: "no TLS", a: secureAnswer("3 1 1", kind["trusted"]), want: "451 4.7.4 host mx.example", metric: metrics.DANEResults},
		{name: "wrong usage", cert: "untrusted", a: secureAnswer("1 1 1,0 0 1", kind["trusted"]), want: "encrypted FAIL", metric: metrics.DANEUnusable},
		{name: "wrong usage, no TLS", a: secureAnswer("1 1 1", kind["trusted"]), want: "451 4.7.4 host mx.example", metric: metrics.DANEUnusable},
		{name: "no records", cert: "untrusted", want: "encrypted FAIL", metric: metrics.DANEResults},
		{name: "no records, no TLS", want: "none", metric: metrics.DANEResults},
		{name: "lookup failed", cert: "trusted", a: lookupFailed, want: "451 4.7.5 lookup of TLSA", metric: metrics.DANEFailed},
		{name: "always", cert: "trusted", a: notSecure, want: "verified OK 3 1 1", metric: metrics.DANEMatch},
		{name: "the class turns TLS off", cert: "trusted", a: secureAnswer("3 1 1", kind["untrusted"]), want: "none", class: "off", metric: metrics.DANEResults},
		{name: "it counts as verified", cert: "untrusted", a: secureAnswer("3 1 1", kind["untrusted"]), requires: "flags=verified;", want: "dane DANE_SEC 3 1 1", metric: metrics.DANEMatch},
		{name: "requirements count besides", cert: "trusted", a: secureAnswer("3 1 1", kind["trusted"]), requires: "common_name=x;", want: "451 4.7.4 smtpc_session_conf", metric: metrics.DANEMatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &tlsServer{offer: "PIPELINING"}
			if c.cert != "" {
				s = newTLSServer(c.cert)
			}
			cfg := trusting(t)
			cfg.SessionFeatures = []SessionFeature{{Name: "off", Flags: []string{"no_starttls"}}}
			q := to(s.start(t))
			q.Hop.DANE, q.Dest = true, "mx:b.example"
			conf := "tls_requirements { " + c.requires + " violation=tempfail; }"
			if c.class != "" {
				conf = "session_feature=" + c.class + ";"
			}
			q.SessionConf = parseConf(t, conf)
			r := start(t, cfg, Deps{}, nil)
			var dns smar
			dns.set(c.a)
			defer dns.serve(t, r.ports)()
			a := r.deliver(t, q)
			got := a.Rcpts[0].String()
			if a.Rcpts[0].Accepted() {
				got = strings.TrimSpace(a.TLS.Level.String() + " " + a.TLS.Verify + " " + a.TLS.Record)
			}
			if !strings.HasPrefix(got, c.want) || a.DANENoMatch != c.noMatch || a.HostFailed || a.TLSUnmet == a.Rcpts[0].Accepted() {
				t.Errorf("%s, want %s; %+v", got, c.want, a)
			}
			messages, _, _ := s.took()
			if len(messages) > 0 != a.Rcpts[0].Accepted() {
				t.Errorf("the server has %q", messages)
			}
			for result := range metrics.DANEResults {
				want := 0.0
				if result == c.metric {
					want = 1
				}
				if n := counted(t, r.metrics.DANE[result]); n != want {
					t.Errorf("%v was counted %v times", result, n)
				}
			}
		})
	}
}

// TestDANEConnections: connections and TLS sessions made under some records serve no other
// ones, and a session is not taken for a certificate that is replaced.
func TestDANEConnections(t *testing.T) {
	kind := newCerts().kind
	s := newTLSServer("trusted")
	q := to(s.start(t))
	q.Hop.DANE, q.Hop.Host = true, "mx.example"
	r := start(t, trusting(t), Deps{ReuseConnections: true}, nil)
	var dns smar
	defer dns.serve(t, r.ports)()
	one, two := secureAnswer("3 1 1", kind["trusted"]), secureAnswer("3 1 1,2 1 1", kind["trusted"])
	two.Base = "real.example"
	for i, step := range []struct {
		a               msg.TLSAA
		reused, resumed bool
		whole           int
	}{{a: one, whole: 1}, {a: one, reused: true, whole: 1}, {a: two, whole: 2}, {a: msg.TLSAA{}, whole: 3}} {
		dns.set(step.a)
		a := r.deliver(t, q)
		if _, _, whole := s.took(); !a.Rcpts[0].Accepted() || a.Reused != step.reused || a.TLS.Resumed || whole != step.whole {
			t.Errorf("step %d: %d handshakes, %+v", i, whole, a)
		}
	}
	if got := fmt.Sprint(s.names); got != "[mx.example real.example mx.example]" {
		t.Errorf("the server was asked for %s", got)
	}
	if len(dns.asked) != 4 || dns.asked[0].Hop != q.Hop {
		t.Errorf("SMAR was asked %+v", dns.asked)
	}
}

// TestDANEResumption: a session is resumed under the records under which it was made.
func TestDANEResumption(t *testing.T) {
	kind := newCerts().kind
	s := newTLSServer("trusted")
	q := to(s.start(t))
	q.Hop.DANE = true
	r := start(t, trusting(t), Deps{}, nil)
	var dns smar
	defer dns.serve(t, r.ports)()
	dns.set(secureAnswer("3 1 1", kind["trusted"]))
	for i, want := range []bool{false, true} {
		if a := r.deliver(t, q); a.TLS.Resumed != want || a.TLS.Level != msg.TLSDANE {
			t.Errorf("delivery %d: %+v", i, a)
		}
	}
}

// TestSMARPauses: while SMAR is restarted a delivery waits for it; if it does not come back,
// neither the host nor the mail is to blame.
func TestSMARPauses(t *testing.T) {
	for _, back := range []time.Duration{5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			server := func(nc net.Conn) { (&tlsServer{offer: "PIPELINING"}).serve(nc) }
			r := start(t, Config{}, Deps{}, newNetwork(server))
			q := to(netip.MustParseAddrPort("192.0.2.1:25"))
			q.Hop.DANE = true
			var dns smar
			serving := make(chan func(), 1)
			timer := time.AfterFunc(back, func() { serving <- dns.serve(t, r.ports) })
			defer func() {
				if !timer.Stop() {
					(<-serving)()
				}
			}()
			begin := time.Now()
			a := r.deliver(t, q)
			took := time.Since(begin)
			if back < resolverPause {
				if !a.Rcpts[0].Accepted() || took < back || took > back+time.Second {
					t.Errorf("after %v: %+v", took, a)
				}
				return
			}
			if a.Rcpts[0].Code != 451 || a.HostFailed || a.Stage != msg.DeliverConnect || took > resolverPause+time.Second {
				t.Errorf("after %v: %+v", took, a)
			}
		})
	}
}

// counted is the value of a counter.
func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
