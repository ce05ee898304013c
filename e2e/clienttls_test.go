package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// tlsPeer is a real mail server with a certificate of a kind.
type tlsPeer struct {
	name   string
	addr   string
	log    string // its log
	mark   string // of a message that came by TLS in it
	fault  string // why its certificate is not verified, "" if it is
	verify string // in our log
}

// TestTLSPeers delivers over STARTTLS to Postfix (OpenSSL) and Exim (GnuTLS), with certificates
// that are in order and some that are not: mail that demands nothing arrives at each, encrypted;
// mail that demands a verified certificate with the host's name only where it is in order.
func TestTLSPeers(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	ca := tlstest.Root(t, "Test CA")
	writeFile(t, dir+"/ca.pem", string(ca.PEM()))
	until := time.Now().Add(-time.Hour)
	good := tlstest.Spec{CN: "mx.peer.test", Names: []string{"mx.peer.test"}}
	expired := good
	expired.From, expired.To = until.AddDate(-1, 0, 0), until
	other := tlstest.Spec{CN: "other.test", Names: []string{"other.test"}}
	peers := []*tlsPeer{
		postfixTLS(t, "postfix", ca.Issue(t, good)),
		eximTLS(t, "exim", ca.Issue(t, good)),
		postfixTLS(t, "expired", ca.Issue(t, expired)),
		eximTLS(t, "selfsigned", tlstest.SelfSigned(t, good)),
		eximTLS(t, "wrongname", ca.Issue(t, other)),
	}
	peers[2].verify, peers[2].fault = "FAIL", "expired"
	peers[3].verify, peers[3].fault = "FAIL", "self-signed"
	peers[4].fault = "the certificate is for other.test"
	mailertable, access := "", "cltaddr:127. relay\n"
	for _, p := range peers {
		mailertable += toPort(t, p.name+".test", p.addr) + toPort(t, p.name+"-strict.test", p.addr)
		access += "smtpc_rcpt_conf:@" + p.name + "-strict.test tls_requirements { flags = verified; hostnames = { .peer.test }; violation = tempfail; }\n"
	}
	m := newMTA(t, settings{
		mailertable: mailertable, qmgr: "smtpc { flags = { lookup_rcpt_conf }; }",
		smtpc: fmt.Sprintf(`tls { CAcert_file = "%s/ca.pem"; }`, dir),
	})
	writeFile(t, m.dir+"/access", access)
	m.start()
	for i, p := range peers {
		for _, domain := range []string{p.name, p.name + "-strict"} {
			msg := testMessage(i, 5000, "joe@"+domain+".test")
			msg.from = ""
			if err := sendOne(m.smtp, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	waiting := 0
	for _, p := range peers {
		if p.fault != "" {
			waiting++
		}
	}
	must(t, func() error {
		queue, err := m.queue()
		if err == nil && len(queue) != waiting {
			err = fmt.Errorf("%d messages wait, want %d", len(queue), waiting)
		}
		if err != nil {
			return err
		}
		for _, e := range queue {
			if err := strictFails(peers, e.Recipients[0].Address, e.Recipients[0].DelayReason); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range peers {
		level := map[string]string{"OK": "verified", "FAIL": "encrypted"}[p.verify]
		must(t, func() error { // the log is written behind the delivery
			ours, err := os.ReadFile(m.log)
			line := lineWith(string(ours), "event=delivered,", "rcpt=<joe@"+p.name+".test>")
			if err == nil && !strings.Contains(line, "tls="+level+", verify="+p.verify) {
				err = fmt.Errorf("%s: the log says %q", p.name, line)
			}
			if strict := lineWith(string(ours), "event=delivered,", "rcpt=<joe@"+p.name+"-strict.test>"); err == nil && (strict != "") != (p.fault == "") {
				err = fmt.Errorf("%s: what demands a verified certificate: %q", p.name, strict)
			}
			return err
		})
		must(t, func() error {
			theirs, err := os.ReadFile(p.log)
			if err == nil && !strings.Contains(string(theirs), p.mark) {
				err = fmt.Errorf("%s: its log has no %q", p.name, p.mark)
			}
			return err
		})
	}
}

// strictFails returns nil when the recipient of a peer whose certificate is not in order waits
// for that reason.
func strictFails(peers []*tlsPeer, address, reason string) error {
	for _, p := range peers {
		if address == "joe@"+p.name+"-strict.test" {
			if p.fault != "" && strings.Contains(reason, p.fault) {
				return nil
			}
			return fmt.Errorf("%s waits for %q, not for %q", address, reason, p.fault)
		}
	}
	return fmt.Errorf("%s waits for %q", address, reason)
}

// lineWith is the first line that has all the words, "" if there is none.
func lineWith(text string, words ...string) string {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return line
		}
	}
	return ""
}

// postfixTLS is a Postfix with a certificate that throws mail away.
func postfixTLS(t *testing.T, name string, cert *tlstest.Cert) *tlsPeer {
	t.Helper()
	certFile, keyFile := cert.Write(t, testDir(t), name)
	p := startPostfix(t, map[string]string{"*": "discard:"},
		"smtpd_tls_security_level = may", "smtpd_tls_loglevel = 1", "smtpd_tls_cert_file = "+certFile, "smtpd_tls_key_file = "+keyFile)
	return &tlsPeer{name: name, addr: p.smtp, log: p.log, mark: "TLS connection established from", verify: "OK"}
}

// eximTLS is an Exim with a certificate that throws mail away.
func eximTLS(t *testing.T, name string, cert *tlstest.Cert) *tlsPeer {
	t.Helper()
	needRoot(t, "Exim changes the user")
	dir := testDir(t)
	certFile, keyFile := cert.Write(t, dir, name)
	p := &tlsPeer{name: name, addr: freeAddr(t), log: dir + "/mainlog", mark: " X=TLS", verify: "OK"}
	conf := dir + "/exim.conf"
	host, listens, _ := strings.Cut(p.addr, ":")
	writeFile(t, conf, fmt.Sprintf(`exim_user = root
exim_group = root
primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/%%slog
pid_file_path = %[1]s/pid
local_interfaces = <; [%[2]s]:%[3]s
tls_advertise_hosts = *
tls_certificate = %[4]s
tls_privatekey = %[5]s
never_users =
acl_smtp_rcpt = all
begin acl
all:
  accept
begin routers
hole:
  driver = accept
  transport = hole
begin transports
hole:
  driver = appendfile
  file = /dev/null
  user = nobody
`, dir, host, listens, certFile, keyFile))
	daemon(t, peerCommand(t, "exim4", "-bdf", "-C", conf), p.addr)
	return p
}

// TestTLSBreaks: a server that offers STARTTLS and breaks gets mail without TLS, unless it
// demands TLS; then it waits, until the server is repaired.
func TestTLSBreaks(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	cert := tlstest.SelfSigned(t, tlstest.Spec{CN: "x.test"})
	pair, err := tls.X509KeyPair(cert.PEM(), cert.KeyPEM(t))
	if err != nil {
		t.Fatal(err)
	}
	broken := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	s.tls.Store(broken)
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: "smtpc { flags = { lookup_rcpt_conf }; }"})
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\nsmtpc_rcpt_conf:@strict.test tls_requirements { flags = encrypted; violation = tempfail; }\n")
	m.start()
	send := func(id int, rcpt string) {
		msg := testMessage(id, 1000, rcpt)
		msg.from = ""
		if err := sendOne(m.smtp, msg); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		send(i, fmt.Sprintf("joe%d@plain.test", i))
	}
	send(10, "joe@strict.test")
	s.waitFor(10)
	must(t, func() error { return m.queueShows(1, "TLS handshake with") })
	for _, a := range s.arrivals() {
		if a.tls != "" || a.rcpts[0] == "joe@strict.test" {
			t.Errorf("a message for %v came by TLS %q", a.rcpts, a.tls)
		}
	}
	samples := scrape(t, m.metrics)
	if samples[`meta1_smtpc_tls_connections_total{level="none"}`] == "0" || samples["meta1_smtpc_tls_failures_total"] == "0" {
		t.Errorf("%s connections without TLS, %s failures", samples[`meta1_smtpc_tls_connections_total{level="none"}`], samples["meta1_smtpc_tls_failures_total"])
	}
	s.tls.Store(&tls.Config{Certificates: broken.Certificates})
	s.waitFor(11)
	m.queueEmpty()
	if last := s.arrivals()[10]; last.tls != "TLS 1.3" || last.rcpts[0] != "joe@strict.test" {
		t.Errorf("the last message, for %v, came by TLS %q", last.rcpts, last.tls)
	}
}
