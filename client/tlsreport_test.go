package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// reported remembers what was counted.
type reported struct {
	mu   sync.Mutex // guards list
	list []*msg.TLSSession
}

func (c *reported) CountTLS(s *msg.TLSSession) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, s)
}

// lines are the sessions in few words.
func (c *reported) lines() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.list {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", s.Domain, s.Policy, s.Result, s.Base)))
	}
	return all
}

// TestTLSReports: as what each session is counted (RFC 8460 section 4.3).
func TestTLSReports(t *testing.T) {
	kind := newCerts().kind
	roots := x509.NewCertPool()
	roots.AddCert(newCerts().ca.Certificate)
	lookupFailed := msg.TLSAA{Reply: smtp.NewReply(451, "4.7.5", "lookup of TLSA records failed")}
	for _, c := range []struct {
		name   string
		cert   string // "" for a server without TLS
		broken bool   // the server knows nothing that we know
		sts    msg.STS
		tlsa   msg.TLSAA
		dest   string
		class  string
		wish   bool // TLS-Required: no
		want   string
	}{
		{name: "no policy", cert: "untrusted", want: "b.example no-policy-found"},
		{name: "no policy and no TLS", want: "b.example no-policy-found starttls-not-supported"},
		{name: "no policy and a handshake that fails", cert: "trusted", broken: true, want: "b.example no-policy-found validation-failure"},
		{name: "trusted", cert: "trusted", sts: msg.STSEnforce, want: "b.example sts"},
		{name: "untrusted", cert: "untrusted", sts: msg.STSEnforce, want: "b.example sts certificate-not-trusted"},
		{name: "expired", cert: "expired", sts: msg.STSEnforce, want: "b.example sts certificate-expired"},
		{name: "wrong name", cert: "wrongname", sts: msg.STSEnforce, want: "b.example sts certificate-host-mismatch"},
		{name: "no TLS", sts: msg.STSEnforce, want: "b.example sts starttls-not-supported"},
		{name: "handshake", cert: "trusted", broken: true, sts: msg.STSEnforce, want: "b.example sts validation-failure"},
		{name: "testing", cert: "untrusted", sts: msg.STSTesting, want: "b.example sts certificate-not-trusted"},
		{name: "testing without TLS", sts: msg.STSTesting, want: "b.example sts starttls-not-supported"},
		{name: "testing and not named", cert: "trusted", sts: msg.STSUnnamed, want: "b.example sts validation-failure"},
		{name: "DANE", cert: "untrusted", sts: msg.STSEnforce, tlsa: secureAnswer("3 1 1", kind["untrusted"]), want: "b.example tlsa  mx.example"},
		{name: "DANE does not match", cert: "trusted", tlsa: secureAnswer("3 1 1", kind["untrusted"]), want: "b.example tlsa validation-failure mx.example"},
		{name: "DANE without TLS", tlsa: secureAnswer("3 1 1", kind["untrusted"]), want: "b.example tlsa starttls-not-supported mx.example"},
		{name: "DANE that cannot be used", cert: "trusted", tlsa: secureAnswer("1 1 1", kind["trusted"]), want: "b.example tlsa tlsa-invalid mx.example"},
		{name: "DANE that cannot be used, without TLS", tlsa: secureAnswer("1 1 1", kind["trusted"]), want: "b.example tlsa starttls-not-supported mx.example"},
		{name: "DANE that cannot be used, and MTA-STS", cert: "untrusted", sts: msg.STSEnforce, tlsa: secureAnswer("1 1 1", kind["trusted"]), want: "b.example tlsa tlsa-invalid mx.example; b.example sts certificate-not-trusted"},
		{name: "DNS", cert: "trusted", tlsa: lookupFailed, want: "b.example tlsa dnssec-invalid mx.example"},
		{name: "a host of the configuration", cert: "trusted", dest: "esmtp:relay.example:25", want: "relay.example no-policy-found"},
		{name: "an address of the configuration", cert: "trusted", dest: "esmtp:192.0.2.1:25"},
		{name: "a port", cert: "trusted", dest: "mx:b.example:587/v4", want: "b.example no-policy-found"},
		{name: "a report", cert: "trusted", sts: msg.STSEnforce, wish: true},
		{name: "TLS is off", cert: "trusted", class: "off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &tlsServer{offer: "PIPELINING"}
			if c.cert != "" {
				s = newTLSServer(c.cert)
			}
			if c.broken {
				s.cfg.MaxVersion, s.cfg.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} // an ECDSA key cannot serve it
			}
			cfg := Config{SessionFeatures: []SessionFeature{{Name: "off", Flags: []string{"no_starttls"}}}}
			q := to(s.start(t))
			q.Hop.STS, q.Hop.DANE, q.Dest = c.sts, true, "mx:b.example"
			if c.dest != "" {
				q.Dest = c.dest
			}
			q.Mail.TLSOptional = c.wish
			if c.class != "" {
				q.SessionConf = parseConf(t, "session_feature="+c.class+";")
			}
			var got reported
			r := start(t, cfg, Deps{Roots: roots, TLSReports: &got}, nil)
			var dns smar
			dns.set(c.tlsa)
			defer dns.serve(t, r.ports)()
			r.deliver(t, q)
			if lines := strings.Join(got.lines(), "; "); lines != c.want {
				t.Errorf("%q, want %q", lines, c.want)
			}
			for _, one := range got.list {
				noConn := one.Result == msg.TLSDNSSECInvalid
				if one.MX != "mx.example" || !noConn && (one.Helo != "mx.example" || !one.Local.IsLoopback() || !one.Remote.IsLoopback()) || noConn && one.Remote.IsValid() ||
					one.Result == msg.TLSValidationFailure && one.Reason == "" || one.Policy == msg.TLSPolicyTLSA && !slices.Equal(one.Records, c.tlsa.Records) {
					t.Errorf("%+v", one)
				}
			}
		})
	}
}

// TestTLSReportsReuse: a session counts once for each domain whose mail goes over it.
func TestTLSReportsReuse(t *testing.T) {
	s := newTLSServer("trusted")
	var got reported
	q := to(s.start(t))
	r := start(t, Config{}, Deps{TLSReports: &got, ReuseConnections: true}, nil)
	for _, dest := range []string{"mx:a.example", "mx:a.example", "mx:b.example", "mx:a.example"} {
		q.Dest = dest
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
			t.Fatal(a)
		}
	}
	if _, _, whole := s.took(); whole != 1 {
		t.Fatalf("%d handshakes", whole)
	}
	if lines := strings.Join(got.lines(), "; "); lines != "a.example no-policy-found; b.example no-policy-found" {
		t.Error(lines)
	}
}
