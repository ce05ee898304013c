package client

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/tlsconf"
	"meta1/mta/tlsconf/tlstest"
)

// tlsServer is an SMTP server with STARTTLS that remembers what it was given.
type tlsServer struct {
	cfg      *tls.Config
	implicit bool
	offer    string // extensions behind EHLO, besides STARTTLS
	forget   bool   // messages are not kept

	mu       sync.Mutex // guards all below
	messages []string   // accepted, with how they came: "plain:" or "tls:" before them
	resumed  int        // handshakes that resumed a session
	whole    int
	names    []string // SNI
	clients  []string // common names of clients' certificates
	mails    []string // arguments of MAIL
}

func newTLSServer(kind string) *tlsServer {
	return &tlsServer{cfg: &tls.Config{Certificates: []tls.Certificate{newCerts().kind[kind]}}, offer: "PIPELINING"}
}

// secure makes the server's side of a handshake.
func (s *tlsServer) secure(nc net.Conn) (net.Conn, error) {
	tc := tls.Server(nc, s.cfg)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	st := tc.ConnectionState()
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.DidResume {
		s.resumed++
	} else {
		s.whole++
	}
	s.names = append(s.names, st.ServerName)
	for _, c := range st.PeerCertificates[:min(len(st.PeerCertificates), 1)] {
		s.clients = append(s.clients, c.Subject.CommonName)
	}
	return tc, nil
}

// serve speaks one session.
func (s *tlsServer) serve(nc net.Conn) {
	how := "plain:"
	if s.implicit {
		var err error
		if nc, err = s.secure(nc); err != nil {
			return
		}
		how = "tls:"
	}
	r := bufio.NewReader(nc)
	say := func(text string) { _, _ = io.WriteString(nc, text+"\r\n") }
	say("220 mx.example ESMTP")
	for {
		line, err := r.ReadString('\n')
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case err != nil:
			return
		case verb == "EHLO" && how == "plain:" && s.cfg != nil:
			say("250-mx.example\r\n250-STARTTLS\r\n250 " + s.offer)
		case verb == "EHLO":
			say("250-mx.example\r\n250 " + s.offer)
		case verb == "STARTTLS":
			say("220 go on")
			if nc, err = s.secure(nc); err != nil {
				return
			}
			r.Reset(nc)
			how = "tls:"
		case verb == "DATA":
			say("354 go on")
			var b strings.Builder
			for line != ".\r\n" {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				b.WriteString(line)
			}
			if !s.forget {
				s.mu.Lock()
				s.messages = append(s.messages, how+b.String())
				s.mu.Unlock()
			}
			say("250 2.0.0 queued")
		case verb == "MAIL":
			s.mu.Lock()
			s.mails = append(s.mails, line)
			s.mu.Unlock()
			say("250 2.0.0 ok")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

// start serves on an address on loopback.
func (s *tlsServer) start(t *testing.T) netip.AddrPort { return listen(t, s.serve) }

func (s *tlsServer) took() (messages []string, resumed, whole int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages, s.resumed, s.whole
}

// to is the question of all tests, for another address.
func to(addr netip.AddrPort) msg.DeliverQ {
	q := question()
	q.Hop.Addr = addr
	return q
}

// trusting is a section tls that trusts the CA of the tests, with the defaults that matter.
func trusting(t testing.TB) (c Config) {
	t.Helper()
	c.TLS.Trust.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	tlstest.WriteFile(t, c.TLS.Trust.CAFile, newCerts().ca.PEM(), 0o644)
	c.TLS.Trust.MaxDepth = 9
	c.TLS.Cache = tlsconf.Cache{Size: 100, Timeout: time.Hour}
	return c
}

// TestRequirements: what tls_requirements ask for is met or not (README 3.13), for the host and
// for a recipient.
func TestRequirements(t *testing.T) {
	fp := tlsconf.Fingerprint(newCerts().kind["trusted"].Leaf, "sha1")
	for _, c := range []struct {
		cert, requirements string
		why                string // in the reply; "" if they are met
	}{
		{"trusted", "flags=verified;", ""},
		{"untrusted", "flags=verified;", "no trusted CA"},
		{"expired", "flags=verified;", "expired"},
		{"untrusted", "flags=encrypted; cipher_bits_min=128;", ""},
		{"trusted", "cipher_bits_min=512;", "has 128 bits, not 512"},
		{"wrongname", "flags=verified;", ""}, // the name is what hostnames is for
		{"trusted", "flags=verified; hostnames={mx.example};", ""},
		{"trusted", "flags=verified; hostnames={.example};", ""},
		{"wrongname", "flags=verified; hostnames={mx.example};", "the certificate is for other.example"},
		{"untrusted", `cert_fps={"` + fp + `"};`, "fingerprint is"},
		{"trusted", `cert_fps={"00:11","` + fp + `"};`, ""},
		{"trusted", "common_name=mx.example;", ""},
		{"trusted", "common_name=other.example;", "the certificate has mx.example"},
		{"trusted", `cert_issuer="/CN=Test CA";`, ""},
		{"untrusted", `cert_issuer="/CN=Test+20CA";`, "the certificate has /CN=Other CA"},
		{"trusted", `cert_subject="/CN=mx.example";`, ""},
		{"trusted", `root_ca_subjects={"Test CA"};`, ""},
		{"trusted", `root_ca_subjects={"Other CA"};`, "the root CA is Test CA"},
	} {
		for _, of := range []string{"host", "recipient"} {
			t.Run(c.cert+" "+c.requirements+" "+of, func(t *testing.T) {
				t.Parallel()
				s := newTLSServer(c.cert)
				r := start(t, trusting(t), Deps{}, nil)
				q := to(s.start(t))
				conf := parseConf(t, "tls_requirements { "+c.requirements+" violation=permfail; }")
				if of == "host" {
					q.SessionConf = conf
				} else {
					q.RcptConf = []*msg.Conf{conf}
				}
				a := r.deliver(t, q)
				messages, _, _ := s.took()
				if c.why == "" {
					if a.Rcpts[0].Code != 250 || len(messages) != 1 || !strings.HasPrefix(messages[0], "tls:") {
						t.Errorf("%+v, the server has %q", a, messages)
					}
					return
				}
				if a.Rcpts[0].Code != 550 || !strings.Contains(a.Rcpts[0].Text(), c.why) || !a.TLSUnmet || a.HostFailed || len(messages) > 0 {
					t.Errorf("%+v, the server has %q", a, messages)
				}
			})
		}
	}
}

// TestResumption: a session is resumed with the same host under the same policy, and no other.
func TestResumption(t *testing.T) {
	s, other := newTLSServer("trusted"), newTLSServer("trusted")
	cfg := trusting(t)
	cfg.SessionFeatures = []SessionFeature{{Name: "own"}}
	r := start(t, cfg, Deps{}, nil)
	q := to(s.start(t))
	check := func(q msg.DeliverQ, s *tlsServer, resumed, whole int) {
		t.Helper()
		a := r.deliver(t, q)
		if !a.Rcpts[0].Accepted() || a.TLS.Level != msg.TLSVerified {
			t.Errorf("%+v", a)
		}
		if _, gotResumed, gotWhole := s.took(); gotResumed != resumed || gotWhole != whole || a.TLS.Resumed != (resumed > 0) {
			t.Errorf("%d handshakes resumed a session, %d did not; want %d, %d (%+v)", gotResumed, gotWhole, resumed, whole, a.TLS)
		}
	}
	check(q, s, 0, 1)
	check(q, s, 1, 1)
	check(to(other.start(t)), other, 0, 1)
	strict := q
	strict.SessionConf = parseConf(t, "tls_requirements { flags=encrypted }")
	if a := r.deliver(t, strict); a.TLS.Resumed {
		t.Error("a session of another policy was resumed")
	}
	class := q
	class.SessionConf = parseConf(t, "session_feature=own;")
	if a := r.deliver(t, class); a.TLS.Resumed {
		t.Error("a session of another class was resumed")
	}
	// A host whose certificate is not good enough may have a new one next time.
	unmet := q
	unmet.SessionConf = parseConf(t, "tls_requirements { common_name=new.example }")
	for _, resumed := range []bool{true, false, false} {
		if a := r.deliver(t, unmet); a.TLS.Resumed != resumed || !a.TLSUnmet {
			t.Errorf("%+v", a)
		}
	}
}

// TestNoResumption: cache_size 0 turns it off.
func TestNoResumption(t *testing.T) {
	s := newTLSServer("trusted")
	r := start(t, Config{}, Deps{}, nil)
	q := to(s.start(t))
	for range 2 {
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() || a.TLS.Resumed {
			t.Errorf("%+v", a)
		}
	}
}

// TestResumptionFails: a server that breaks when a session is resumed is asked for a whole
// handshake, and nothing is held against it.
func TestResumptionFails(t *testing.T) {
	s := newTLSServer("trusted")
	s.cfg.MaxVersion = tls.VersionTLS12
	s.cfg.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		if len(ticket) == 0 {
			return nil, nil
		}
		return nil, errors.New("broken")
	}
	r := start(t, trusting(t), Deps{}, nil)
	q := to(s.start(t))
	for i := range 3 {
		a := r.deliver(t, q)
		if !a.Rcpts[0].Accepted() || a.TLS.Level != msg.TLSVerified {
			t.Errorf("delivery %d: %+v", i, a)
		}
	}
	if n := r.failures.Len(); n != 0 {
		t.Errorf("%d failures are remembered", n)
	}
}

// TestClientCertificate: a server that asks for a certificate gets that of the class.
func TestClientCertificate(t *testing.T) {
	certFile, keyFile := newCerts().ca.Issue(t, tlstest.Spec{CN: "client.example"}).Write(t, t.TempDir(), "client")
	s := newTLSServer("trusted")
	s.cfg.ClientAuth = tls.RequireAnyClientCert
	cfg := trusting(t)
	section := cfg.TLS
	section.Own = tlsconf.Own{Cert: certFile, Key: keyFile}
	cfg.SessionFeatures = []SessionFeature{{Name: "known"}}
	r := start(t, cfg, Deps{TLSClasses: map[string]*tlsconf.Provider{"known": provider(t, section)}}, nil)
	q := to(s.start(t))
	q.SessionConf = parseConf(t, "session_feature=known; tls_requirements { flags=encrypted }")
	if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
		t.Errorf("%+v", a)
	}
	if fmt.Sprint(s.clients) != "[client.example]" || fmt.Sprint(s.names) != "[mx.example]" {
		t.Errorf("the server saw %v from clients who asked for %v", s.clients, s.names)
	}
	q.SessionConf = parseConf(t, "tls_requirements { flags=encrypted; violation=tempfail }")
	if a := r.deliver(t, q); a.Rcpts[0].Code != 451 || !a.TLSUnmet || a.HostFailed || !strings.Contains(a.Rcpts[0].Text(), "TLS handshake") {
		t.Errorf("without a certificate: %+v", a)
	}
}

// TestLargeContentOverTLS: content of every kind arrives as it is.
func TestLargeContentOverTLS(t *testing.T) {
	line := "." + strings.Repeat("0123456789abcde ", 60) + "\r\n"
	text := "Subject: x\r\n\r\n" + strings.Repeat("..\r\n", 5000) + strings.Repeat(line, 1000) + ".\r\n"
	want := "tls:" + strings.ReplaceAll(text, "\r\n.", "\r\n..") + ".\r\n"
	for name, body := range map[string]msg.Body{"in memory": memBody(text), "in a file": fileBody{data: []byte(text)}} {
		s := newTLSServer("trusted")
		q := to(s.start(t))
		r := start(t, trusting(t), Deps{ReuseConnections: true}, nil)
		q.Body = body
		for range 2 {
			if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
				t.Errorf("%s: %+v", name, a)
			}
		}
		got, _, whole := s.took()
		if len(got) != 2 || got[0] != want || got[1] != want || whole != 1 {
			t.Errorf("%s: %d messages, of %d bytes, want %d; %d connections", name, len(got), len(got[0]), len(want), whole)
		}
	}
}

// TestHandshakeHangs: a host that is silent in the handshake gets mail without TLS after a
// minute for each way, unless the mail needs TLS; then it waits.
func TestHandshakeHangs(t *testing.T) {
	silent := func(nc net.Conn) {
		r := bufio.NewReader(nc)
		say := func(text string) { _, _ = io.WriteString(nc, text+"\r\n") }
		say("220 mx")
		for {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "EHLO"):
				say("250-mx\r\n250 STARTTLS")
			case line == "STARTTLS\r\n":
				say("220 go on")
				_, _ = io.Copy(io.Discard, r)
				return
			case line == "DATA\r\n":
				say("354 go on")
			case !strings.HasPrefix(line, "MAIL") && !strings.HasPrefix(line, "RCPT") && line != ".\r\n":
			default:
				say("250 2.0.0 ok")
			}
		}
	}
	for _, must := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, Config{}, Deps{}, newNetwork(silent))
			q := question()
			if must {
				q.SessionConf = parseConf(t, "tls_requirements { flags=encrypted }")
			}
			begin := time.Now()
			a := r.deliver(t, q)
			took := time.Since(begin)
			if a.Rcpts[0].Accepted() == must || took < 2*handshakeTimeout || took > 2*handshakeTimeout+time.Second {
				t.Errorf("after %v: %+v", took, a)
			}
			if must && (!strings.Contains(a.Rcpts[0].Text(), "it timed out") || !a.TLSUnmet || a.HostFailed) {
				t.Errorf("%+v", a)
			}
			if known := r.failures.Len(); (known == 1) == must {
				t.Errorf("%d hosts are remembered", known)
			}
		})
	}
}
