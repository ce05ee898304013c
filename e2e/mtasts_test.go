package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testCA issues certificates.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{file: testDir(t) + "/ca.pem"}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	var der []byte
	der, ca.key = ca.sign(t, template)
	var err error
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writeFile(t, ca.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return ca
}

// sign makes a certificate; that of the CA itself while it has none.
func (ca *testCA) sign(t *testing.T, c *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, by := ca.cert, ca.key
	if parent == nil {
		parent, by = c, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by); err != nil {
		t.Fatal(err)
	}
	return der, key
}

func (ca *testCA) issue(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	der, key := ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// issueFile is issue into a file.
func (ca *testCA) issueFile(t *testing.T, name string) (path string) {
	t.Helper()
	c := ca.issue(t, name)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	path = testDir(t) + "/" + name + ".pem"
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	return path
}

// stsWorld is name server and policy host of several domains.
type stsWorld struct {
	mu       sync.Mutex
	records  map[string]string // name and type -> data
	policies map[string]string // domain -> the policy; "301" and the like: the reply
}

func (w *stsWorld) ServeDNS(rw dns.ResponseWriter, q *dns.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := new(dns.Msg).SetReply(q)
	name := strings.ToLower(q.Question[0].Name)
	for record, data := range w.records {
		if record == name+" "+dns.TypeToString[q.Question[0].Qtype] {
			if rr, err := dns.NewRR(name + " 1 IN " + dns.TypeToString[q.Question[0].Qtype] + " " + data); err == nil {
				rr.Header().Name = q.Question[0].Name
				r.Answer = append(r.Answer, rr)
			}
		}
	}
	_ = rw.WriteMsg(r)
}

func (w *stsWorld) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	policy := w.policies[strings.TrimPrefix(r.Host, "mta-sts.")]
	w.mu.Unlock()
	rw.Header().Set("Content-Type", "text/plain")
	switch policy {
	case "":
		http.NotFound(rw, r)
	case "301":
		http.Redirect(rw, r, "https://mta-sts.good.test"+r.URL.Path, http.StatusMovedPermanently)
	default:
		_, _ = io.WriteString(rw, policy)
	}
}

// domain adds a domain with one mail host.
func (w *stsWorld) domain(name, host, addr, policy string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[name+". MX"] = "10 " + host + "."
	w.records[host+". A"] = addr
	w.records["_mta-sts."+name+". TXT"] = `"v=STSv1; id=1;"`
	w.records["mta-sts."+name+". A"] = "127.0.0.53"
	w.policies[name] = policy
}

// forget has somebody forge DNS: no domain has a policy any more.
func (w *stsWorld) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for record := range w.records {
		if strings.Contains(record, "mta-sts.") {
			delete(w.records, record)
		}
	}
	clear(w.policies)
}

// TestMTASTS sends to hosts whose domains have MTA-STS policies (RFC 8461), fetched over real
// HTTPS, which port 443 of an address of this host needs.
func TestMTASTS(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may listen on port 443")
	}
	ca, other := newTestCA(t), newTestCA(t)
	w := &stsWorld{records: map[string]string{}, policies: map[string]string{}}

	dnsAddr := freeAddr(t)
	udp, err := net.ListenPacket("udp", dnsAddr)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", dnsAddr)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: w}, {Listener: tcp, Handler: w}} {
		ended := make(chan error, 1)
		go func() { ended <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}

	wrong := other.issue(t, "mta-sts.wrongca.test")
	cert := ca.issue(t, "mta-sts.good.test", "mta-sts.badcert.test", "mta-sts.badmx.test", "mta-sts.testing.test", "mta-sts.redirect.test", "mta-sts.missing.test", "mta-sts.malformed.test")
	https, err := net.Listen("tcp", "127.0.0.53:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: w, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName == "mta-sts.wrongca.test" {
				return &wrong, nil
			}
			return &cert, nil
		}},
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(https, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})

	// One sink has a certificate for mx.good.test, the other one of another authority.
	smtpPort := port(t, freeAddr(t))
	good, bad := testDir(t)+"/mail", testDir(t)+"/mail"
	for _, s := range []struct{ addr, cert, dump string }{
		{"127.0.0.54:" + smtpPort, ca.issueFile(t, "mx.good.test"), good},
		{"127.0.0.55:" + smtpPort, other.issueFile(t, "mx.bad.test"), bad},
	} {
		if err := os.Mkdir(s.dump, 0o700); err != nil {
			t.Fatal(err)
		}
		startPeer(t, s.addr, exec.Command(meta1(t), "sink", "--listen", s.addr, "--tls", "starttls", "--cert", s.cert, "--dump", s.dump))
	}
	policy := func(mode, mx string) string {
		return "version: STSv1\r\nmode: " + mode + "\r\nmx: " + mx + "\r\nmax_age: 86400\r\n"
	}
	w.domain("good.test", "mx.good.test", "127.0.0.54", policy("enforce", "*.good.test"))
	w.domain("badcert.test", "mx.bad.test", "127.0.0.55", policy("enforce", "mx.bad.test"))
	w.domain("badmx.test", "mx.bad.test", "127.0.0.55", policy("enforce", "mx.badmx.test"))
	w.domain("testing.test", "mx.bad.test", "127.0.0.55", policy("testing", "mx.bad.test"))
	w.domain("redirect.test", "mx.bad.test", "127.0.0.55", "301")
	w.domain("missing.test", "mx.bad.test", "127.0.0.55", "")
	w.domain("malformed.test", "mx.bad.test", "127.0.0.55", "hello")
	w.domain("wrongca.test", "mx.bad.test", "127.0.0.55", policy("enforce", "mx.wrong.test"))

	m := run(t, settings{
		smar:  fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; } mta_sts { CAcert_file = %q; }", port(t, dnsAddr), ca.file),
		smtpc: "remote_port = " + smtpPort + ";",
	})
	send := func(domain string) {
		t.Helper()
		if text, err := commandIn(t, "", nil, "source", "--server", m.smtp, "--count", "1", "--from", "a@good.test", "--to", "u@"+domain); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	arrived := func(dump string, n int) {
		t.Helper()
		must(t, func() error {
			names, err := files(dump)
			if err == nil && len(names) != n {
				err = fmt.Errorf("%d messages in %s, want %d", len(names), dump, n)
			}
			return err
		})
	}
	send("good.test")
	arrived(good, 1)
	for _, domain := range []string{"testing.test", "redirect.test", "missing.test", "malformed.test", "wrongca.test"} {
		send(domain)
	}
	arrived(bad, 5)
	m.queueEmpty()
	send("badcert.test")
	must(t, func() error {
		return m.queueShows(1, "the MTA-STS policy of the domain does not allow the certificate of host mx.bad.test")
	})
	if text, err := m.command("queue", "remove", "--all"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	send("badmx.test")
	must(t, func() error { return m.queueShows(1, "no MX host of the domain is one that its MTA-STS policy names") })
	arrived(bad, 5)

	// What was learnt once counts, whatever somebody does to DNS, over a restart as well.
	w.forget()
	m.stop()
	m.start()
	send("badcert.test")
	must(t, func() error {
		queue, err := m.queue()
		if err != nil || len(queue) != 2 {
			return fmt.Errorf("%d messages in the queue, %w", len(queue), err)
		}
		for _, e := range queue {
			if r := e.Recipients[0].DelayReason; !strings.Contains(r, "MTA-STS") {
				return fmt.Errorf("%s waits for %q", e.Recipients[0].Address, r)
			}
		}
		return nil
	})
	arrived(bad, 5)
	must(t, func() error {
		if want := "an enforced MTA-STS policy would keep mail back"; !strings.Contains(readFile(t, m.log), want) {
			return fmt.Errorf("the log does not tell %q", want)
		}
		return nil
	})
}
