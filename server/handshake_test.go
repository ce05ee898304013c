package server

import (
	"context"
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
)

// startTLSServer runs a server with the certificates of the tests.
func startTLSServer(t testing.TB, options string, l *pipeListener) *bench {
	cfg, fake := loadConfig(t, options), newFakeMTA()
	deps := fake.deps(l)
	deps.TLS = newFakeTLS(&cfg.TLS)
	return startDeps(t, cfg, fake, deps)
}

// startTLS says STARTTLS.
func (c *talker) startTLS() {
	c.t.Helper()
	c.reply("220")
	c.say("EHLO client", "250")
	c.say("STARTTLS", "220")
}

// secure makes the handshake.
func (c *talker) secure() *talker {
	c.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{RootCAs: testPKI().roots, ServerName: "mx.example.org"})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return newTalker(c.t, conn)
}

// TestHandshakesOfSlowClients: clients that begin a handshake and are silent then keep nobody
// from one of his own, and from his mail.
func TestHandshakesOfSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { handshakes_max = 1; handshake_timeout = 20s; }", l)
		slow := make([]*talker, 50)
		for i := range slow {
			slow[i] = l.talker(t)
			slow[i].startTLS()
			slow[i].send("\x16\x03\x01\x01") // the beginning of a record that does not come
		}
		c := l.talker(t)
		c.startTLS()
		c = c.secure()
		c.say("EHLO client", "250")
		c.say("MAIL FROM:<a@b>", "250")
		c.say("QUIT", "221")
		_ = c.conn.Close()
		began := time.Now()
		for _, s := range slow {
			s.eof()
		}
		if d := time.Since(began); d > 21*time.Second {
			t.Errorf("the slow ones ended after %v", d)
		}
		if n := counted(t, b.server.metrics.tlsFailed.WithLabelValues(string(tlsTimeout))); n != 50 {
			t.Errorf("%v timeouts counted", n)
		}
		b.end(t)
	})
}

// TestHandshakesWithoutTurn: while others compute, STARTTLS gets 454 after a quarter of
// handshake_timeout, a handshake in progress ends with it, and sessions without one go on.
func TestHandshakesWithoutTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { handshakes_max = 1; handshake_timeout = 20s; }", l)
		plain, early, late := l.talker(t), l.talker(t), l.talker(t)
		early.startTLS()
		if err := b.server.turns.take(time.Now()); err != nil {
			t.Fatal(err)
		}
		plain.reply("220")
		plain.say("EHLO client", "250")
		late.reply("220")
		late.say("EHLO client", "250")
		began := time.Now()
		late.say("STARTTLS", "454 4.7.0")
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("STARTTLS without a turn took %v", d)
		}
		late.say("MAIL FROM:<a@b>", "250") // it may go on in plain text
		conn := tls.Client(early.conn, &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err == nil {
			t.Error("a handshake without a turn")
		}
		if d := time.Since(began); d > 21*time.Second {
			t.Errorf("it took %v", d)
		}
		plain.say("MAIL FROM:<a@b>", "250")
		b.server.turns.give()
		late.say("RSET", "250")
		late.say("STARTTLS", "220")
		late = late.secure()
		late.say("EHLO client", "250")
		if n := counted(t, b.server.metrics.tlsFailed.WithLabelValues(string(tlsBusy))); n != 2 {
			t.Errorf("%v counted as busy, want 2", n)
		}
		for _, c := range []*talker{plain, early, late} {
			_ = c.conn.Close()
		}
		b.end(t)
	})
}

// TestStopDuringHandshake: the server ends at once whatever a handshake waits for.
func TestStopDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { handshakes_max = 1; }", l)
		silent, waiting, begun := l.talker(t), l.talker(t), l.talker(t)
		silent.startTLS()
		begun.startTLS()
		if err := b.server.turns.take(time.Now()); err != nil { // nobody gets a turn
			t.Fatal(err)
		}
		go func() {
			_ = tls.Client(begun.conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
		}()
		waiting.reply("220")
		waiting.say("EHLO client", "250")
		waiting.send("STARTTLS\r\n")
		synctest.Wait()
		began := time.Now()
		b.stop()
		waiting.reply("454")
		waiting.reply("421 4.3.2")
		waiting.eof()
		silent.eof()
		b.end(t)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("stopping took %v", d)
		}
		if n := counted(t, b.server.metrics.tlsFailed.WithLabelValues(string(tlsStopping))); n != 3 {
			t.Errorf("%v counted as stopping, want 3", n)
		}
	})
}

// TestStopInTLS: a session in TLS gets its 421 and the farewell of TLS.
func TestStopInTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { }", l)
		c := l.talker(t)
		c.startTLS()
		c = c.secure()
		c.say("EHLO client", "250")
		sending := l.talker(t)
		sending.startTLS()
		sending = sending.secure()
		for _, line := range []string{"EHLO client", "MAIL FROM:<a@b>", "RCPT TO:<b@example.org>"} {
			sending.say(line, "250")
		}
		sending.say("DATA", "354")
		sending.send("half a message\r\n")
		synctest.Wait()
		b.stop()
		c.reply("421 4.3.2")
		c.eof()
		time.Sleep(5 * time.Second)
		sending.send("the other half\r\n.\r\n") // the read that was woken up goes on
		sending.reply("250")
		sending.reply("421")
		sending.eof()
		b.end(t)
		if len(b.fake.committed) != 1 {
			t.Errorf("%d messages", len(b.fake.committed))
		}
	})
}

// TestTimeoutInTLS: a client that is silent gets its 421 by TLS.
func TestTimeoutInTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { } IO_timeout = 60s;", l)
		c := l.talker(t)
		c.startTLS()
		c = c.secure()
		c.say("EHLO client", "250")
		began := time.Now()
		c.reply("421 4.4.2")
		c.eof()
		if d := time.Since(began); d < 50*time.Second || d > 70*time.Second {
			t.Errorf("it took %v", d)
		}
		b.end(t)
	})
}

// panicTLS fails at each handshake.
type panicTLS struct{ TLSSource }

func (panicTLS) ServerConfig() *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("no such certificate") }}
}

// TestPanicInHandshake: a failure of the program in a handshake ends its session alone, says
// nothing in plain text, and keeps no turn.
func TestPanicInHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		cfg, fake := loadConfig(t, "tls { handshakes_max = 1; }"), newFakeMTA()
		deps := fake.deps(l)
		deps.TLS = panicTLS{}
		b := startDeps(t, cfg, fake, deps)
		for range 3 {
			c := l.talker(t)
			c.startTLS()
			conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
			if err := conn.Handshake(); err != io.EOF {
				t.Errorf("the client gets %v, want %v", err, io.EOF)
			}
		}
		if n := len(b.server.turns.places); n != 0 {
			t.Errorf("%d turns are taken", n)
		}
		b.end(t)
		if !strings.Contains(fake.log.String(), "no such certificate") {
			t.Errorf("log: %s", fake.log)
		}
	})
}

// TestCertificateQuestion checks what SMAR is asked about a client's certificate.
func TestCertificateQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		b := startTLSServer(t, "tls { flags = { check_access_map_for_relaying }; }", l)
		var asked []msg.CheckQ
		b.fake.check = func(q msg.CheckQ) msg.Verdict {
			asked = append(asked, q)
			return msg.Verdict{Relay: q.Stage == msg.StageTLS, Marks: msg.MarkRelay}
		}
		conn, err := l.dial("192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		c := newTalker(t, conn)
		c.startTLS()
		s := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{testPKI().client}})
		if err := s.HandshakeContext(context.Background()); err != nil {
			t.Fatal(err)
		}
		c = newTalker(t, s)
		c.say("EHLO client", "250")
		c.say("MAIL FROM:<a@b>", "250")
		c.say("RCPT TO:<b@example.org>", "250")
		c.say("QUIT", "221")
		_ = s.Close()
		b.end(t)
		if len(asked) != 3 || asked[0].Stage != msg.StageTLS || asked[0].CertSubject != "/CN=client.example" || asked[0].CertIssuer != "/CN=ca.test" ||
			asked[0].Client.TLS == nil || !asked[2].Relaying || asked[2].Marks != msg.MarkRelay {
			t.Errorf("asked %+v", asked)
		}
	})
}
