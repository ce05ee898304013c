package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// secure makes TLS of the connection behind STARTTLS and says EHLO again.
func (k *smtpConn) secure(t *testing.T, certificates ...tls.Certificate) {
	t.Helper()
	k.say(t, "EHLO c", "STARTTLS", "STARTTLS", "220")
	k.c = tls.Client(k.c, &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
	k.r, k.w = bufio.NewReader(k.c), bufio.NewWriter(k.c)
	k.say(t, "EHLO c", "250")
}

// TestServerTLSRequirements: what the access map demands of a client's TLS holds at MAIL, with
// each violation, and is met by the client's own certificate alone.
func TestServerTLSRequirements(t *testing.T) {
	t.Parallel()
	m := runTLS(t, "")
	writeFile(t, m.mta.dir+"/access", `cltaddr:127. relay
smtps_session_conf:127.0.0.2 tls_requirements { flags = { verified }; }
smtps_session_conf:127.0.0.3 tls_requirements { flags = { verified }; cert_subject = "/CN=client.test"; violation = tempfail; }
smtps_session_conf:127.0.0.4 tls_requirements { flags = { encrypted }; violation = abort; }
`)
	if out, err := m.command("ctl", "reload"); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	own, err := tls.LoadX509KeyPair(m.file("client.pem"), m.file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	const mail = "MAIL FROM:<a@client.test>"
	for _, c := range []struct {
		from, plain, secured string
		certificate          bool
	}{
		{"127.0.0.2", "530", "550 5.7.0 verified", false},
		{"127.0.0.2", "530", "250", true},
		{"127.0.0.3", "450", "450 4.7.0 verified cert_subject", false},
		{"127.0.0.3", "450", "250", true},
		{"127.0.0.4", "421", "250", false},
		{"127.0.0.5", "250", "250", false},
	} {
		k, _ := dialFrom(t, c.from, m.smtp)
		k.say(t, "EHLO c", "STARTTLS", mail, c.plain)
		if c.plain == "421" {
			if line, err := k.readReply(); err == nil {
				t.Errorf("%s: after 421 came %q", c.from, line)
			}
			k, _ = dialFrom(t, c.from, m.smtp)
		} else {
			k.say(t, "RSET", "250")
		}
		if c.certificate {
			k.secure(t, own)
		} else {
			k.secure(t)
		}
		k.say(t, mail, c.secured)
	}
	m.logs("violation=permfail", "violation=tempfail", "violation=abort")
}

// TestServerTLSFlood: while clients make handshakes as fast as they can, and more than may
// compute at a time have begun one and say no more, mail is taken, by TLS too, and each of the
// others gets its handshake.
func TestServerTLSFlood(t *testing.T) {
	t.Parallel()
	const silent, flooding, rounds, mails = 20, 10, 4, 20
	m := runTLS(t, "handshakes_max = 1;")
	_, p, _ := strings.Cut(m.implicit, ":")
	at := "127.0.0.1:" + p
	var quiet []net.Conn
	defer func() {
		for _, c := range quiet {
			c.Close()
		}
	}()
	for range silent {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		quiet = append(quiet, c)
		if _, err := c.Write([]byte{0x16, 3, 1, 2, 0, 1}); err != nil { // of a ClientHello that never ends
			t.Fatal(err)
		}
	}
	errs := newErrorList()
	var wg sync.WaitGroup
	for range flooding {
		wg.Go(func() {
			for range rounds {
				d := &net.Dialer{Timeout: hangs}
				// A version and a cipher for which the server computes most.
				c, err := tls.DialWithDialer(d, "tcp", at, &tls.Config{
					InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
				})
				if err != nil {
					errs.add(err)
					return
				}
				c.Close()
			}
		})
	}
	sendAll(t, m.smtp, 2, mails, func(id int) message { return testMessage(id, 1000, fmt.Sprintf("u%d@sink.test", id)) })
	k, _ := dialFrom(t, "127.0.0.1", m.smtp)
	k.secure(t)
	if err := k.send(testMessage(mails, 1000, "tls@sink.test")); err != nil {
		t.Error(err)
	}
	wg.Wait()
	errs.report(t)
	m.sink.waitFor(mails + 1)
}
