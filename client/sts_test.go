package client

import (
	"crypto/x509"
	"strings"
	"testing"

	"meta1/client/metrics"
	"meta1/mta/msg"
)

// TestMTASTS: what the policy of a domain does to a delivery (RFC 8461 section 5).
func TestMTASTS(t *testing.T) {
	kind := newCerts().kind
	roots := x509.NewCertPool()
	roots.AddCert(newCerts().ca.Certificate)
	for _, c := range []struct {
		name   string
		cert   string // "" for a server without TLS
		sts    msg.STS
		tlsa   msg.TLSAA
		class  string
		wish   bool   // TLS-Required: no
		want   string // the level of TLS; or the reply
		metric metrics.STSResult
	}{
		{name: "trusted", cert: "trusted", sts: msg.STSEnforce, want: "verified", metric: metrics.STSTrusted},
		{name: "untrusted", cert: "untrusted", sts: msg.STSEnforce, want: "451 4.7.5 the MTA-STS policy of the domain does not allow the certificate of host mx.example", metric: metrics.STSUntrusted},
		{name: "expired", cert: "expired", sts: msg.STSEnforce, want: "451 4.7.5 the MTA-STS policy", metric: metrics.STSUntrusted},
		{name: "wrong name", cert: "wrongname", sts: msg.STSEnforce, want: "451 4.7.5 the MTA-STS policy", metric: metrics.STSUntrusted},
		{name: "no TLS", sts: msg.STSEnforce, want: "451 4.7.4 host mx.example", metric: metrics.STSResults},
		{name: "testing", cert: "untrusted", sts: msg.STSTesting, want: "encrypted", metric: metrics.STSTesting},
		{name: "testing and trusted", cert: "trusted", sts: msg.STSTesting, want: "verified", metric: metrics.STSTrusted},
		{name: "testing without TLS", sts: msg.STSTesting, want: "none", metric: metrics.STSResults},
		{name: "no policy", cert: "untrusted", want: "encrypted", metric: metrics.STSResults},
		{name: "DANE goes before it", cert: "untrusted", sts: msg.STSEnforce, tlsa: secureAnswer("3 1 1", kind["untrusted"]), want: "dane", metric: metrics.STSResults},
		{name: "DANE that cannot be used", cert: "untrusted", sts: msg.STSEnforce, tlsa: secureAnswer("1 1 1", kind["untrusted"]), want: "451 4.7.5 the MTA-STS policy", metric: metrics.STSUntrusted},
		{name: "the sender wants it all the same", cert: "untrusted", sts: msg.STSEnforce, wish: true, want: "encrypted", metric: metrics.STSResults},
		{name: "the class turns TLS off", cert: "untrusted", sts: msg.STSEnforce, class: "off", want: "none", metric: metrics.STSResults},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &tlsServer{offer: "PIPELINING"}
			if c.cert != "" {
				s = newTLSServer(c.cert)
			}
			cfg := Config{SessionFeatures: []SessionFeature{{Name: "off", Flags: []string{"no_starttls"}}}}
			q := to(s.start(t))
			q.Hop.STS, q.Hop.DANE, q.Dest = c.sts, true, "mx:b.example"
			q.Mail.TLSOptional = c.wish
			if c.class != "" {
				q.SessionConf = parseConf(t, "session_feature="+c.class+";")
			}
			r := start(t, cfg, Deps{Roots: roots}, nil)
			var dns smar
			dns.set(c.tlsa)
			defer dns.serve(t, r.ports)()
			a := r.deliver(t, q)
			got := a.Rcpts[0].String()
			if a.Rcpts[0].Accepted() {
				got = a.TLS.Level.String()
			}
			if !strings.HasPrefix(got, c.want) || a.HostFailed || a.TLSUnmet == a.Rcpts[0].Accepted() {
				t.Errorf("%s, want %s; %+v", got, c.want, a)
			}
			if messages, _, _ := s.took(); len(messages) > 0 != a.Rcpts[0].Accepted() {
				t.Errorf("the server has %q", messages)
			}
			for result := range metrics.STSResults {
				want := 0.0
				if result == c.metric {
					want = 1
				}
				if n := counted(t, r.metrics.STS[result]); n != want {
					t.Errorf("%v was counted %v times", result, n)
				}
			}
		})
	}
}

// TestMTASTSConnections: mail under a policy goes over no connection that was made without it,
// and no TLS session is resumed whose certificate would not do.
func TestMTASTSConnections(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AddCert(newCerts().ca.Certificate)
	s := newTLSServer("untrusted")
	q := to(s.start(t))
	r := start(t, trusting(t), Deps{ReuseConnections: true, Roots: roots}, nil)
	for i, step := range []struct {
		sts            msg.STS
		accept, reused bool
	}{{sts: msg.STSNone, accept: true}, {sts: msg.STSNone, accept: true, reused: true}, {sts: msg.STSEnforce}, {sts: msg.STSEnforce}, {sts: msg.STSNone, accept: true, reused: true}} {
		q.Hop.STS = step.sts
		if a := r.deliver(t, q); a.Rcpts[0].Accepted() != step.accept || a.Reused != step.reused {
			t.Errorf("step %d: %+v", i, a)
		}
	}
}
