package client

import (
	"cmp"
	"crypto/x509"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestRequireTLS: mail that was sent with REQUIRETLS goes to a host that gives all that RFC
// 8689 section 4.2.1 asks for, and to no other; a bounce goes as well as it can.
func TestRequireTLS(t *testing.T) {
	for name, c := range map[string]struct {
		cert   string // "" for no TLS
		offer  string
		secure bool // the way to the host
		from   smtp.Path
		dane   string // kinds of TLSA records that match
		sts    msg.STS
		code   int
		status string
		why    string
	}{
		"all there":      {"trusted", "REQUIRETLS", true, question().Mail.From, "", 0, 250, "2.0.0", ""},
		"dane":           {"untrusted", "REQUIRETLS", true, question().Mail.From, "3 1 1", 0, 250, "2.0.0", ""},
		"not offered":    {"trusted", "PIPELINING", true, question().Mail.From, "", 0, 550, "5.7.30", "does not offer REQUIRETLS"},
		"not verified":   {"untrusted", "REQUIRETLS", true, question().Mail.From, "", 0, 550, "5.7.30", "no trusted CA"},
		"other name":     {"wrongname", "REQUIRETLS", true, question().Mail.From, "", 0, 550, "5.7.30", "the certificate is for other.example"},
		"insecure way":   {"trusted", "REQUIRETLS", false, question().Mail.From, "", 0, 550, "5.7.30", "not secured by DNSSEC"},
		"policy":         {"trusted", "REQUIRETLS", false, question().Mail.From, "", msg.STSEnforce, 250, "2.0.0", ""},
		"testing":        {"trusted", "REQUIRETLS", false, question().Mail.From, "", msg.STSTesting, 550, "5.7.30", "nor by an MTA-STS policy"},
		"no TLS":         {"", "REQUIRETLS", true, question().Mail.From, "", 0, 550, "5.7.10", "does not offer STARTTLS"},
		"bounce":         {"trusted", "REQUIRETLS", true, smtp.Path{}, "", 0, 250, "2.0.0", ""},
		"bounce, no TLS": {"", "REQUIRETLS", true, smtp.Path{}, "", 0, 250, "2.0.0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTLSServer(cmp.Or(c.cert, "trusted"))
			if c.cert == "" {
				s.cfg = nil
			}
			s.offer = c.offer
			roots := x509.NewCertPool()
			roots.AddCert(newCerts().ca.Certificate)
			r := start(t, trusting(t), Deps{Roots: roots}, nil)
			answers := &smar{}
			if c.dane != "" {
				answers.set(secureAnswer(c.dane, newCerts().kind[c.cert]))
			}
			stop := answers.serve(t, r.ports)
			defer stop()
			q := to(s.start(t))
			q.Hop.DANE, q.Hop.STS, q.Mail.RequireTLS, q.Mail.From = c.secure, c.sts, true, c.from
			a := r.deliver(t, q)
			if a.Rcpts[0].Code != c.code || a.Rcpts[0].Enhanced.String() != c.status || !strings.Contains(a.Rcpts[0].Text(), c.why) {
				t.Fatalf("%+v", a)
			}
			messages, _, _ := s.took()
			if c.code != 250 {
				if len(messages) > 0 || !a.Own || a.HostFailed {
					t.Errorf("the server has %q; %+v", messages, a)
				}
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if declared := strings.Contains(strings.Join(s.mails, ""), " REQUIRETLS"); declared != (c.cert != "") || len(messages) != 1 {
				t.Errorf("the server was told %q and has %q", s.mails, messages)
			}
		})
	}
}

// TestTLSOptional: with TLS-Required: no the records of the recipient's side are not asked for.
func TestTLSOptional(t *testing.T) {
	s := newTLSServer("untrusted")
	r := start(t, trusting(t), Deps{}, nil)
	answers := &smar{}
	answers.set(msg.TLSAA{Reply: smtp.NewReply(451, "4.7.5", "no answer")})
	stop := answers.serve(t, r.ports)
	defer stop()
	q := to(s.start(t))
	q.Hop.DANE = true
	if a := r.deliver(t, q); a.Rcpts[0].Code != 451 {
		t.Errorf("without the wish: %+v", a)
	}
	q.Mail.TLSOptional = true
	if a := r.deliver(t, q); a.Rcpts[0].Code != 250 {
		t.Errorf("with it: %+v", a)
	}
}
