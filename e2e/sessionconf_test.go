package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// dialFrom connects from an address of this host and reads the greeting, which may refuse.
func dialFrom(t *testing.T, source, addr string) (k *smtpConn, greeting string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: hangs}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(hangs)); err != nil {
		t.Fatal(err)
	}
	k = &smtpConn{c: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
	if greeting, err = k.readReply(); err != nil {
		t.Fatal(err)
	}
	return k, greeting
}

// say sends lines one after the other, each of which must get a reply that has the text
// behind it; one that begins with "!" must not be in it.
func (k *smtpConn) say(t *testing.T, dialogue ...string) {
	t.Helper()
	for i := 0; i < len(dialogue); i += 2 {
		reply, err := k.cmd(dialogue[i])
		if err != nil {
			t.Fatalf("%s: %v", dialogue[i], err)
		}
		for _, want := range strings.Fields(dialogue[i+1]) {
			not, isNot := strings.CutPrefix(want, "!")
			if isNot && strings.Contains(reply, not) || !isNot && !strings.Contains(reply, want) {
				t.Errorf("%s: %q, want %s", dialogue[i], reply, dialogue[i+1])
			}
		}
	}
}

// TestSessionConf: what the access map says of a client's session and of a recipient takes
// effect in the whole program, and sections check do.
func TestSessionConf(t *testing.T) {
	t.Parallel()
	m := newMTA(t, settings{
		mailertable: "box.test lmtp:\n", flags: ", xverp, lookup_session_conf, rcpt_conf",
		smar: "greylisting { grey_wait = 1m; }",
		smtps: `session_features old { flags = { -dsn, -8bitmime }; }
  session_features slow { flags = { -pipelining, no_xverp }; }
  check connect { condition == client_ip =~ "^127\\.0\\.0\\.66$"; action = permfail; }
  check mail { condition == mail =~ "@spam\\.test$" || transactions > 3; action = abort; }
  check rcpt { condition == strcmp(client_name, "localhost.") == 0 && rcpt =~ "^root@"; action = tempfail; }`,
	})
	writeFile(t, m.dir+"/access", `cltaddr:127.0.0.1 relay
smtps_session_conf:127.0.0.2 session_feature=old;
smtps_session_conf:127.0.0.3 tls_requirements { flags = { encrypted }; violation = tempfail; }
smtps_se_conf:localhost. session_feature=slow;
smtps_rcpt_conf:grey@box.test flags = greylisting;
`)
	if out, err := commandIn(t, m.dir, nil, "config", "check", m.conf); err != nil || strings.Contains(out, "smtps") {
		t.Errorf("config check: %v\n%s", err, out)
	}
	m.start()

	k, _ := dialFrom(t, "127.0.0.2", m.smtp)
	k.say(t, "EHLO c", "PIPELINING XVERP !DSN !8BITMIME",
		"MAIL FROM:<> RET=HDRS", "555", "MAIL FROM:<> BODY=8BITMIME", "555", "MAIL FROM:<> XVERP", "250",
		"RCPT TO:<joe@box.test> NOTIFY=NEVER", "555", "RCPT TO:<joe@box.test>", "250", "RCPT TO:<root@box.test>", "451",
		"RCPT TO:<grey@box.test>", "421")

	k, _ = dialFrom(t, "127.0.0.3", m.smtp)
	k.say(t, "EHLO c", "DSN", "MAIL FROM:<>", "450", "QUIT", "221")

	k, _ = dialFrom(t, "127.0.0.4", m.smtp) // by its name
	k.say(t, "EHLO c", "DSN 8BITMIME !PIPELINING !XVERP", "MAIL FROM:<> XVERP", "555", "MAIL FROM:<>", "250",
		"RSET\r\nNOOP", "554")

	k, _ = dialFrom(t, "127.0.0.1", m.smtp)
	k.say(t, "EHLO c", "!PIPELINING", "MAIL FROM:<joe@spam.test>", "421")

	if _, greeting := dialFrom(t, "127.0.0.66", m.smtp); !strings.HasPrefix(greeting, "554 ") {
		t.Errorf("greeted with %s", greeting)
	}
	samples := scrape(t, m.metrics)
	for name, want := range map[string]string{
		`meta1_smtps_check_refusals_total{action="permfail",server="smtps",stage="connect"}`: "1",
		`meta1_smtps_check_refusals_total{action="abort",server="smtps",stage="mail"}`:       "1",
		`meta1_smtps_check_refusals_total{action="tempfail",server="smtps",stage="rcpt"}`:    "1",
	} {
		if samples[name] != want {
			t.Errorf("%s is %q, want %s", name, samples[name], want)
		}
	}
	must(t, func() error { // the log is written a moment later
		log, err := os.ReadFile(m.log)
		if err != nil {
			return err
		}
		for _, want := range []string{
			"session_feature=old", "session_feature=slow", "check=check connect, map=" + m.conf + ":", "effect=permfail",
			`value=mail is "joe@spam.test"; mail =~ "@spam\\.test$" is true; transactions > 3 is not evaluated, effect=abort`,
		} {
			if !strings.Contains(string(log), want) {
				return fmt.Errorf("the log has no %q", want)
			}
		}
		return nil
	})
}
