package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startExample builds one of the example policy milters and starts it.
func startExample(t *testing.T, name, addr string, args ...string) (log string) {
	t.Helper()
	program := testDir(t) + "/" + name
	cmd := exec.Command("go", "build", "-o", program, "./examples/"+name)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return startPeer(t, addr, exec.Command(program, append([]string{"-listen", "inet://" + addr}, args...)...))
}

// policyMilter is a section policy_milter.
func policyMilter(t *testing.T, addr, more string) string {
	t.Helper()
	return fmt.Sprintf("policy_milter { socket { type = inet; address = 127.0.0.1; port = %s; }; %s }\n", port(t, addr), more)
}

// TestPolicyMilterSpamd has a policy milter ask the real spamd, which has two rules here.
func TestPolicyMilterSpamd(t *testing.T) {
	t.Parallel()
	s, spamd, at, dir := newSink(t, ""), freeAddr(t), freeAddr(t), testDir(t)
	for _, sub := range []string{"rules", "site"} {
		if err := os.Mkdir(dir+"/"+sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir+"/site/init.pre", "loadplugin Mail::SpamAssassin::Plugin::Check\n")
	writeFile(t, dir+"/rules/test.cf", `header QUITE_BAD Subject =~ /^quite bad$/
score QUITE_BAD 7
header VERY_BAD Subject =~ /^very bad$/
score VERY_BAD 20
header FROM_HERE Received =~ /from client.test \(\S* \[127.0.0.1\]\)\s+by \S+ with ESMTP id S[0-9A-F]+/
score FROM_HERE 0.5
required_score 5
use_bayes 0
dns_available no
util_rb_tld test
`)
	program := peerCommand(t, "spamd").Path
	startPeer(t, spamd, exec.Command("perl", "-T", "-I"+filepath.Join(filepath.Dir(program), "../share/perl5"), program, "-x", "-L", "-i", "127.0.0.1", "-p", port(t, spamd),
		"-C", dir+"/rules", "--siteconfigpath="+dir+"/site", "-m", "1", "--min-children=1", "-u", "nobody", "-s", "stderr"))
	log := startExample(t, "pmilter-spamd", at, "-spamd", spamd, "-reject", "10", "-max", "100000", "-strict")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: policyMilter(t, at, "flags = { abort };")})
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	const rest = "\r\nX-SPAM-flag : forged\r\n more\r\nTo: joe@sink.test\r\n\r\nthe  body \r\n"
	c.send("jane@x.test", "Subject: fine"+rest, "250", "fine@sink.test")
	c.send("jane@x.test", "Subject: quite bad"+rest, "250", "bad@sink.test")
	c.send("jane@x.test", "Subject: very bad"+rest, "554 5.7.1 The message looks like spam", "awful@sink.test")
	large := "Subject: very bad\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 2000)
	c.send("jane@x.test", large, "250", "large@sink.test")
	s.waitFor(3)
	for _, a := range s.arrivals() {
		name, _, _ := strings.Cut(strings.Trim(a.rcpts[0], "<>"), "@")
		want := map[string]string{
			"fine": "X-Spam-Status: No, score=0.5 required=5.0\r\n\ttests=FROM_HERE\r\nSubject: fine\r\nTo: joe@sink.test\r\n\r\nthe  body \r\n",
			"bad": "X-Spam-Flag: YES\r\nX-Spam-Status: Yes, score=7.5 required=5.0\r\n\ttests=FROM_HERE,\r\n\tQUITE_BAD\r\n" +
				"Subject: quite bad\r\nTo: joe@sink.test\r\n\r\nthe  body \r\n",
			"large": large,
		}[name]
		if got := afterReceived(t, a.data); got != want {
			t.Errorf("%s:\n%q\nwant\n%q", name, got[:min(len(got), 500)], want[:min(len(want), 500)])
		}
	}
	if text := readFile(t, log); strings.Count(text, "msg=checked") != 3 {
		t.Errorf("log of the policy milter:\n%s", text)
	}
}

// TestPolicyMilterChanges has the other example change sender, recipients, header and body,
// and recipients refuse a message one by one. What it does not change arrives as it was sent.
func TestPolicyMilterChanges(t *testing.T) {
	t.Parallel()
	s, at, dir := newSink(t, ""), freeAddr(t), testDir(t)
	writeFile(t, dir+"/footer", "-- \nThis is the footer.\n")
	startExample(t, "pmilter-policy", at, "-from", "old@x.test=new@x.test", "-to", "sales@sink.test=ann@sink.test", "-copy", "archive@sink.test",
		"-strip", "X-Secret", "-add", "X-Seen-By: pmilter-policy", "-footer", dir+"/footer", "-small", "small@sink.test=500")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: policyMilter(t, at, "timeout = 30s; flags = { abort };")})
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	c.send("old@x.test", "Subject:  x\r\nx-secret: a\r\n b\r\nTo: y\r\n\r\nz\r\n", "250", "sales@sink.test", "joe@sink.test")
	got := map[string]bool{}
	must(t, func() error {
		for _, a := range s.arrivals() {
			for _, to := range a.rcpts {
				got[strings.Trim(to, "<>")] = true
			}
		}
		if len(got) < 3 {
			return fmt.Errorf("only %v", got)
		}
		return nil
	})
	for _, a := range s.arrivals() {
		if from := strings.Trim(a.from, "<>"); from != "new@x.test" {
			t.Errorf("from %s", from)
		}
		if text := afterReceived(t, a.data); text != "Subject:  x\r\nTo: y\r\nX-Seen-By: pmilter-policy\r\n\r\nz\r\n-- \r\nThis is the footer.\r\n" {
			t.Errorf("%q", text)
		}
	}
	if len(got) != 3 || !got["ann@sink.test"] || !got["joe@sink.test"] || !got["archive@sink.test"] {
		t.Errorf("recipients %v", got)
	}

	c.say("MAIL FROM:<jane@x.test> PRDR", "250")
	c.say("RCPT TO:<small@sink.test>", "250")
	c.say("RCPT TO:<big@sink.test>", "250")
	c.say("DATA", "354")
	c.say("Subject: x\r\nContent-Type: text/html\r\n\r\n"+strings.Repeat("some line\r\n", 100)+".", "353")
	for _, want := range []string{"552", "250", "250"} {
		if reply := c.reply(); !strings.HasPrefix(reply, want) {
			t.Errorf("reply %q, want %s", reply, want)
		}
	}
	c.say("QUIT", "221")
}
