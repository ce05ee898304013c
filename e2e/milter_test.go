package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// inetMilter is a section milter for a filter that listens on addr.
func inetMilter(t *testing.T, name, addr, more string) string {
	t.Helper()
	return fmt.Sprintf("milter %s { socket { type = inet; address = 127.0.0.1; port = %s; }; %s }\n", name, port(t, addr), more)
}

// startMailfromd starts mailfromd with the script of the tests, and returns where it listens.
func startMailfromd(t *testing.T) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	script, err := filepath.Abs("testdata/milter.mfl")
	if err != nil {
		t.Fatal(err)
	}
	dir := testDir(t)
	cmd := peerCommand(t, "mailfromd", "--no-config", "--no-preprocessor", "--foreground", "--stderr", "--user=nobody",
		"--state-directory="+dir, "--pidfile="+dir+"/pid", "-p", "inet://"+addr, script)
	cmd.Args = append(cmd.Args, "-P", filepath.Join(filepath.Dir(cmd.Path), "../share/mailfromd/8.15"))
	startPeer(t, addr, cmd)
	return addr
}

// smtpTalk is a dialogue of an SMTP client, line by line.
type smtpTalk struct {
	t *testing.T
	*textproto.Conn
}

// talk connects from a loopback address and reads the greeting.
func talk(t *testing.T, from, to string) (s *smtpTalk, greeting string) {
	t.Helper()
	d := net.Dialer{Timeout: hangs, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(hangs))
	s = &smtpTalk{t, textproto.NewConn(c)}
	t.Cleanup(func() { _ = s.Close() })
	return s, s.reply()
}

// reply reads a reply; its lines are joined by LF.
func (s *smtpTalk) reply() string {
	s.t.Helper()
	code, text, err := s.ReadResponse(0)
	if err != nil && code == 0 {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", code, text)
}

// say sends a line and checks the reply.
func (s *smtpTalk) say(line, want string) {
	s.t.Helper()
	if err := s.PrintfLine("%s", line); err != nil {
		s.t.Fatal(err)
	}
	if got := s.reply(); !strings.HasPrefix(got, want) {
		s.t.Errorf("%s: %s, want %s", line, got, want)
	}
}

// send sends a message and checks the reply to its end.
func (s *smtpTalk) send(from, content, want string, to ...string) {
	s.t.Helper()
	s.say("MAIL FROM:<"+from+">", "250")
	for _, r := range to {
		s.say("RCPT TO:<"+r+">", "250")
	}
	s.say("DATA", "354")
	w := s.DotWriter()
	if _, err := w.Write([]byte(content)); err != nil {
		s.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	if got := s.reply(); !strings.HasPrefix(got, want) {
		s.t.Errorf("%s: %s, want %s", from, got, want)
	}
}

// afterReceived is a message without our Received:.
func afterReceived(t *testing.T, data []byte) string {
	t.Helper()
	m := regexp.MustCompile(`^Received: .*\r\n([\t ].*\r\n)*`).Find(data)
	if m == nil {
		t.Fatalf("no Received: in %q", data)
	}
	return string(data[len(m):])
}

// TestMilterMailfromd has mailfromd decide and change at each step.
func TestMilterMailfromd(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	at := startMailfromd(t)
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "mf", at, "flags = { tempfail }; connections_kept = 10;")})
	mailfromdDialogue(t, m, s, "quarantined by milter mf: looks odd")
}

// mailfromdDialogue has mailfromd decide and change at each step, whichever way it is asked.
// held is the reason of a message that is quarantined.
func mailfromdDialogue(t *testing.T, m *mta, s *sink, held string) {
	t.Helper()
	if _, greeting := talk(t, "127.0.0.9", m.smtp); !strings.HasPrefix(greeting, "554 5.7.1 no such client") {
		t.Errorf("greeting %s", greeting)
	}
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	c.say("MAIL FROM:<reject@x.test>", "550 5.7.1 sender refused, 100% sure")
	c.say("MAIL FROM:<later@x.test>", "451 4.3.0 later please")
	c.say("MAIL FROM:<plain@x.test> BODY=8BITMIME", "250")
	c.say("RCPT TO:<norcpt@sink.test>", "550 5.1.1 no such user")
	c.say("RCPT TO:<joe@sink.test>", "250")
	c.say("RSET", "250")
	const content = "Subject: first\r\n folded\r\nX-Junk: 1\r\nx-junk:2\r\n\r\nthe body\r\n"
	c.send("plain@x.test", content, "250", "plain@sink.test")
	c.send("other@x.test", content, "250", "other@sink.test")
	c.send("change@x.test", content, "250", "gone@sink.test", "kept@sink.test")
	c.send("change@x.test", "Subject: big\r\n\r\n"+strings.Repeat("0123456789abcdef\r\n", 200000), "250", "gone@sink.test", "big@sink.test")
	c.send("drop@x.test", content, "250", "drop@sink.test")
	c.send("bad@x.test", content, "554 5.6.0 this content is not wanted", "bad@sink.test")
	c.send("hold@x.test", content, "250", "hold@sink.test")
	s.waitFor(4)

	got := map[string]string{}
	for _, a := range s.arrivals() {
		slices.Sort(a.rcpts)
		text := regexp.MustCompile(`id=S[0-9A-F]+`).ReplaceAllString(afterReceived(t, a.data), "id=TA")
		got[a.rcpts[len(a.rcpts)-1]] = a.from + " " + strings.Join(a.rcpts, " ") + "\n" + text
	}
	const seen = "X-Seen: client=127.0.0.1 helo=client.test id=TA\r\n"
	for rcpt, want := range map[string]string{
		"plain@sink.test": "plain@x.test plain@sink.test\n" + content,
		"other@sink.test": "other@x.test other@sink.test\nSubject: first\r\n folded\r\nX-Junk: 1\r\nx-junk:2\r\n" + seen + "\r\nthe body\r\n",
		"kept@sink.test": "new@sender.test added@sink.test kept@sink.test\nX-First: one\r\nSubject: changed\r\nX-Junk: 1\r\n" + seen +
			"\r\na new body\r\nwith two lines\r\n",
		"big@sink.test": "new@sender.test added@sink.test big@sink.test\nX-First: one\r\nSubject: changed\r\n" + seen +
			"\r\na new body\r\nwith two lines\r\n",
	} {
		if got[rcpt] != want {
			t.Errorf("%s:\n%q\nwant\n%q", rcpt, got[rcpt], want)
		}
	}
	must(t, func() error {
		q, err := m.queue()
		if err != nil || len(q) != 1 || !strings.Contains(q[0].Recipients[0].DelayReason, held) {
			return fmt.Errorf("the queue has %+v, %v", q, err)
		}
		return nil
	})
	if out, err := m.command("queue", "release", "--all"); err != nil {
		t.Fatal(err, out)
	}
	s.waitFor(5)
	if a := s.arrivals()[4]; a.from != "hold@x.test" || !bytes.HasSuffix(a.data, []byte("\r\n\r\nthe body\r\n")) {
		t.Errorf("released: %s %q", a.from, a.data)
	}
}

// opendkim starts OpenDKIM with a configuration, and returns where it listens.
func opendkim(t *testing.T, conf string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	file := testDir(t) + "/opendkim.conf"
	writeFile(t, file, conf+fmt.Sprintf("Socket inet:%s@127.0.0.1\nSyslog no\nRequireSafeKeys no\nPidFile %s.pid\n", port(t, addr), file))
	startPeer(t, addr, peerCommand(t, "opendkim", "-f", "-x", file))
	return addr
}

// TestMilterOpenDKIM has OpenDKIM sign through one MTA, and verify through another one.
func TestMilterOpenDKIM(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := testDir(t)
	file := dir + "/key.pem"
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dns := dir + "/dns"
	writeFile(t, dns, fmt.Sprintf("s1._domainkey.sender.test v=DKIM1; k=rsa; p=%s\n", base64.StdEncoding.EncodeToString(public)))

	signer := opendkim(t, "Mode s\nDomain sender.test\nSelector s1\nKeyFile "+file+"\nCanonicalization simple/simple\n")
	verifier := opendkim(t, "Mode v\nAuthservID mx.test\nInternalHosts 192.0.2.1\nTestDNSData "+dns+"\n")
	signed, verified := newSink(t, ""), newSink(t, "")
	first := run(t, settings{mailertable: toPort(t, ".", signed.addr), smtps: inetMilter(t, "sign", signer, "flags = { tempfail };")})
	// The second verifies itself, too: OpenDKIM sees what it has found.
	key1 := "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)
	second := run(t, settings{
		mailertable: toPort(t, ".", verified.addr), smtps: inetMilter(t, "verify", verifier, "flags = { tempfail };") + "\n  authentication { check_trusted = true; }",
		smar: fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", port(t, txtServer(t, map[string]string{"s1._domainkey.sender.test": key1}))),
	})
	contents := []string{
		"From: jane@sender.test\r\nSubject:  two  blanks\r\n\tfolded \r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\r\nbody \r\n\r\n..dots\r\n\r\n\r\n",
		"From: jane@sender.test\r\nSubject: big\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100000),
	}
	c, _ := talk(t, "127.0.0.1", first.smtp)
	c.say("EHLO client.test", "250")
	for i, content := range contents {
		c.send("jane@sender.test", content, "250", fmt.Sprintf("r%d@sink.test", i))
	}
	signed.waitFor(len(contents))
	for _, a := range signed.arrivals() {
		c, _ := talk(t, "127.0.0.1", second.smtp)
		c.say("EHLO client.test", "250")
		c.send(a.from, string(a.data), "250", a.rcpts[0])
		c.say("QUIT", "221")
	}
	verified.waitFor(len(contents))
	for _, a := range verified.arrivals() {
		if head, _, _ := bytes.Cut(a.data, []byte("\r\n\r\n")); !bytes.Contains(head, []byte("dkim=pass")) || !bytes.Contains(head, []byte("DKIM-Signature: ")) {
			t.Errorf("not verified:\n%.2000s", head)
		} else if !bytes.HasPrefix(head, []byte("Authentication-Results: ")) || !bytes.Contains(head, []byte("\r\nAuthentication-Results: mta.test;")) || !bytes.Contains(bytes.ReplaceAll(head, []byte("\r\n\t"), []byte(" ")), []byte("dkim=pass header.d=sender.test")) {
			t.Errorf("not verified by the server itself:\n%.2000s", head)
		}
		if content := contents[int(a.rcpts[0][1]-'0')]; !bytes.HasSuffix(a.data, []byte(content)) {
			t.Errorf("%s: the message itself has changed", a.rcpts[0])
		}
	}
}

// TestMilterFails: what becomes of mail when a filter is not there is what its flags say; when
// it comes back the same session goes on with it.
func TestMilterFails(t *testing.T) {
	t.Parallel()
	s, nowhere := newSink(t, ""), freeAddr(t)
	for flag, want := range map[string]string{"": "250", "accept_but_reconnect": "250", "tempfail": "451 4.7.1", "reject": "550 5.7.1", "quarantine": "250", "abort": "421"} {
		t.Run("flag "+flag, func(t *testing.T) {
			t.Parallel()
			m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "gone", nowhere, "flags = { "+flag+" };")})
			m.launch()
			if flag == "abort" {
				must(t, func() error {
					c, err := net.Dial("tcp", m.smtp)
					if err != nil {
						return err
					}
					defer c.Close()
					if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
						return fmt.Errorf("greeting %q, %w", line, err)
					}
					return nil
				})
				return
			}
			m.ready()
			c, _ := talk(t, "127.0.0.1", m.smtp)
			c.say("EHLO client.test", "250")
			c.say("MAIL FROM:<jane@x.test>", want)
			if want != "250" {
				return
			}
			c.say("RSET", "250")
			c.send("jane@x.test", "Subject: x\r\n\r\ny\r\n", "250", "r"+flag+"@sink.test")
			must(t, func() error {
				q, err := m.queue()
				if flag == "quarantine" {
					if err != nil || len(q) != 1 || !strings.Contains(q[0].Recipients[0].DelayReason, "milter gone failed: connecting") {
						return fmt.Errorf("the queue has %+v, %v", q, err)
					}
				} else if err != nil || len(q) != 0 {
					return fmt.Errorf("the queue has %+v, %v", q, err)
				}
				return nil
			})
		})
	}
}
