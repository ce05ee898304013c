package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPostgrey has postgrey greylist a client, and then let its mail pass with the header of
// its own. A client that may relay is not asked about.
func TestPostgrey(t *testing.T) {
	t.Parallel()
	s, at, dir := newSink(t, ""), freeAddr(t), testDir(t)
	for _, file := range []string{"clients", "recipients"} {
		writeFile(t, dir+"/"+file, "")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	args := []string{"--inet=" + at, "--delay=1", "--dbdir=" + dir, "--whitelist-clients=" + dir + "/clients", "--whitelist-recipients=" + dir + "/recipients"}
	if os.Geteuid() == 0 {
		args = append(args, "--user=nobody", "--group=nogroup")
	}
	startPeer(t, at, peerCommand(t, "postgrey", args...))
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smtps:       fmt.Sprintf("policy_service grey { socket { type = inet; address = 127.0.0.1; port = %s; }; }", port(t, at)),
	})
	writeFile(t, m.dir+"/access", "cltaddr:127.0.0.1 relay\nto:grey@sink.test relay\n")
	m.start()
	trusted, _ := talk(t, "127.0.0.1", m.smtp)
	trusted.say("EHLO client.test", "250")
	trusted.send("jane@x.test", "Subject: x\r\n\r\ny\r\n", "250", "first@sink.test")
	s.waitFor(1)

	c, _ := talk(t, "127.0.0.2", m.smtp)
	c.say("EHLO client.test", "250")
	c.say("MAIL FROM:<jane@x.test>", "250")
	c.say("RCPT TO:<grey@sink.test>", "450 4.2.0")
	must(t, func() error {
		if err := c.PrintfLine("RCPT TO:<grey@sink.test>"); err != nil {
			return err
		}
		if got := c.reply(); !strings.HasPrefix(got, "250") {
			return fmt.Errorf("still greylisted: %s", got)
		}
		return nil
	})
	c.say("DATA", "354")
	c.say("Subject: x\r\n\r\ny\r\n.", "250")
	s.waitFor(2)
	if got := string(s.arrivals()[1].data); !regexp.MustCompile(`(?s)^X-Greylist: delayed [^\r]*\r\nReceived: .*\r\n\r\ny\r\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}
