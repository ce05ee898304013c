package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scrape fetches /metrics and returns the samples by name with labels.
func scrape(t *testing.T, addr string) map[string]string {
	t.Helper()
	m := &mta{t: t, metrics: addr}
	page, err := m.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]string{}
	for line := range strings.Lines(page) {
		if name, value, ok := cutLastSpace(strings.TrimSpace(line)); ok && !strings.HasPrefix(line, "#") {
			samples[name] = value
		}
	}
	for _, module := range []string{"mta", "smtps", "qmgr", "smar", "smtpc"} {
		if !strings.Contains(page, "\nmeta1_"+module+"_") {
			t.Errorf("/metrics has nothing of %s", module)
		}
	}
	if _, ok := samples["go_goroutines"]; !ok {
		t.Error("/metrics has no go_goroutines")
	}
	return samples
}

func cutLastSpace(line string) (name, value string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// TestQuickstart does what README.md tells a new user to do, with examples/quickstart.conf
// as it is, but for its ports, which may be taken on this machine.
func TestQuickstart(t *testing.T) {
	m := &mta{t: t, dir: testDir(t), smtp: freeAddr(t), metrics: freeAddr(t)}
	m.log = m.dir + "/log"
	copyExamples(t, m.dir, strings.NewReplacer("2525", port(t, m.smtp), "9025", port(t, m.metrics)))
	m.conf = "examples/quickstart.conf"
	if err := os.Symlink(meta1(t), m.dir+"/meta1"); err != nil {
		t.Fatal(err)
	}
	m.start()
	says(t, tail(m.log, 100), m.smtp, m.metrics, "sendmail user@localhost")

	block := docBlock(t, "../README.md", "In a second terminal:")
	script := exec.Command("bash", "-ec", strings.NewReplacer("9025", port(t, m.metrics)).Replace(block))
	script.Dir = m.dir
	out, err := output(script)
	if err != nil {
		t.Fatalf("the quick start of README.md, pasted as it is: %v\n%s", err, out)
	}
	says(t, out, "Subject: hello", "It works.", "Mail queue is empty", "accepting", "lmtp", "meta1_qmgr_")

	for _, rcpt := range []string{"another@localhost", "other@example.test"} {
		message := strings.NewReader("Subject: hello\n\nIt works.\n.\nfor " + rcpt + "\n")
		if out, err := commandIn(t, m.dir, message, "sendmail", "-i", rcpt); err != nil {
			t.Fatalf("sendmail: %v\n%s", err, out)
		}
		user, _, _ := strings.Cut(rcpt, "@")
		box := filepath.Join(m.dir, "var/mail", user, "new")
		must(t, func() error {
			names, err := files(box)
			if err == nil && len(names) != 1 {
				err = fmt.Errorf("%d messages in %s", len(names), box)
			}
			return err
		})
		data, err := os.ReadFile(mustFiles(t, box)[0])
		if err != nil {
			t.Fatal(err)
		}
		says(t, string(data), "Received: ", "Subject: hello", "It works.", "\n.", "for "+rcpt)
	}

	for command, word := range map[string]string{"mailq": "queue is empty", "ctl status": "qmgr", "healthcheck": ""} {
		out, err := commandIn(t, m.dir, nil, strings.Fields(command)...)
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		says(t, out, word)
	}
	if _, err := m.get("/healthz"); err != nil {
		t.Error(err)
	}
	scrape(t, m.metrics)
	m.stop()
	if out, err := commandIn(t, m.dir, nil, "mailq"); err == nil {
		t.Errorf("mailq with no meta1 running says:\n%s", out)
	}
	if out, err := commandIn(t, m.dir, nil, "healthcheck"); err == nil {
		t.Errorf("healthcheck with no meta1 running says:\n%s", out)
	}
}

// docBlock is the block of commands that follows a line of a page.
func docBlock(t *testing.T, page, after string) string {
	t.Helper()
	_, rest, found := strings.Cut(strings.ReplaceAll(readFile(t, page), "\n```sh\n", "\n```\n"), after+"\n\n```\n")
	block, _, ends := strings.Cut(rest, "\n```\n")
	if !found || !ends {
		t.Fatalf("%s has no block of commands after %q", page, after)
	}
	return block
}

// copyExamples copies examples/ and changes the texts.
func copyExamples(t *testing.T, dir string, change *strings.Replacer) {
	t.Helper()
	if err := os.CopyFS(dir+"/examples", os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	for _, name := range mustFiles(t, dir+"/examples") {
		if fi, err := os.Stat(name); err != nil || fi.IsDir() {
			continue // the other roles
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, change.Replace(string(text)))
	}
}

// TestSwaks lets swaks, a client that is not ours, deliver through meta1.
func TestSwaks(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	out, err := output(peerCommand(t, "swaks", "--server", m.smtp, "--pipeline", "--helo", "swaks.test",
		"--from", "a@client.test", "--to", "b@sink.test,c@sink.test", "--header", "Subject: from swaks", "--body", "one\n.\ntwo"))
	if err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
	s.waitFor(1)
	a := s.arrivals()[0]
	if got := strings.Join(a.rcpts, " "); got != "b@sink.test c@sink.test" && got != "c@sink.test b@sink.test" {
		t.Errorf("recipients: %s, want both in one transaction", got)
	}
	says(t, string(a.data), "Received: from swaks.test", "Subject: from swaks", "\r\none\r\n.\r\ntwo")
}

// TestHealth: /healthz answers 200 while all runs.
func TestHealth(t *testing.T) {
	t.Parallel()
	m := run(t, settings{})
	page, err := m.get("/healthz")
	if err != nil {
		t.Fatal(err)
	}
	says(t, page, "ok")
	r, err := http.Get("http://" + m.metrics + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusNotFound {
		t.Errorf("/nothing: %s", r.Status)
	}
}
