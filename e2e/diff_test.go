package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDiff: the mail of a real log is tried with the configuration that took it, and with another one,
// which then does what diff has said.
func TestDiff(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newMTA(t, settings{
		global:      `log_file = "LOGS/meta1.log";`,
		mailertable: toPort(t, "good.test", s.addr) + toPort(t, "other.test", s.addr) + toPort(t, "client.test", s.addr),
	})
	writeFile(t, m.conf, strings.Replace(readFile(t, m.conf), "LOGS", m.dir+"/logs", 1))
	if err := os.Mkdir(m.dir+"/logs", 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // what serves is nobody
		if err := os.Chown(m.dir+"/logs", 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, m.dir+"/access", "cltaddr:127.0.0.1 relay\nto:@other.test error:550 5.7.1 Not there\n")
	m.start()
	for range 2 {
		speak(t, m.smtp, testContent(1, 300), "MAIL FROM:<s@client.test>", "RCPT TO:<ann@good.test>")
	}
	k, _ := dialFrom(t, "127.0.0.1", m.smtp)
	k.say(t, "EHLO h.test", "250", "MAIL FROM:<s@client.test>", "250", "RCPT TO:<bob@other.test>", "550 Not there", "QUIT", "221")

	must(t, func() error {
		if !strings.Contains(readFile(t, m.dir+"/logs/meta1.log"), "rcpt=<bob@other.test>") {
			return errors.New("the log does not tell of the refusal")
		}
		return nil
	})

	// The other configuration: ann is refused for now, bob is let in.
	writeFile(t, m.dir+"/access2", "cltaddr:127.0.0.1 relay\nto:ann@good.test error:450 4.7.1 Not today\n")
	conf := strings.Replace(readFile(t, m.conf), `"access"`, `"access2"`, 1)
	if conf == readFile(t, m.conf) {
		t.Fatal("the configuration names no map \"access\"")
	}
	other := m.dir + "/other.conf"
	writeFile(t, other, conf)
	diff := func(args ...string) (string, int) {
		out, err := commandIn(t, m.dir, nil, append([]string{"diff"}, args...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return out, exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return out, 0
	}
	if out, status := diff(m.conf, m.conf); status != 0 || !strings.Contains(out, "2 different envelopes of 3 tried: nothing differs\n") {
		t.Errorf("the same configuration: %d %s", status, out)
	}
	out, status := diff(m.conf, other)
	for _, want := range []string{
		"127.0.0.1 (localhost.), from <s@client.test> to <ann@good.test>, 2 times\n  verdict\n    - accept: 250 ",
		"    + tempfail: 450 4.7.1 Not today\n        to: to:ann@good.test in " + m.dir + "/access2:2: error:450 4.7.1 Not today -> ",
		"to <bob@other.test>\n  verdict\n    - reject: 550 5.7.1 Not there\n        to: to:@other.test in " + m.dir + "/access:2: ",
		"2 different envelopes of 3 tried: 2 differ (verdict of 2)\n",
	} {
		if status != 1 || !strings.Contains(strings.ReplaceAll(out, " (localhost.)", ""), strings.ReplaceAll(want, " (localhost.)", "")) {
			t.Errorf("%d, without %q:\n%s", status, want, out)
		}
	}
	writeFile(t, m.dir+"/traffic", `{"client":"127.0.0.1","from":"s@client.test","to":["ann@good.test","eve@good.test"]}`+"\n")
	out, status = diff("--json", "--traffic", m.dir+"/traffic", m.conf, other)
	var changed struct {
		Envelope struct{ To []string }
		Changes  []struct{ Kind, Rcpt string }
	}
	if err := json.Unmarshal([]byte(out), &changed); err != nil || status != 1 || len(changed.Envelope.To) != 2 ||
		len(changed.Changes) != 1 || changed.Changes[0].Kind != "verdict" || changed.Changes[0].Rcpt != "ann@good.test" {
		t.Errorf("a file: %d %s: %+v %v", status, out, changed, err)
	}
	// What diff said is what the other configuration does.
	writeFile(t, m.dir+"/access", readFile(t, m.dir+"/access2"))
	if out, err := m.command("ctl", "reload"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	k, _ = dialFrom(t, "127.0.0.1", m.smtp)
	k.say(t, "EHLO h.test", "250", "MAIL FROM:<s@client.test>", "250", "RCPT TO:<ann@good.test>", "450 Not today", "RCPT TO:<bob@other.test>", "250")
}
