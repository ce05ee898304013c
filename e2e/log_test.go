package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLog follows a message with two recipients, of whom one waits, through the logs of all
// modules, as text and as JSON; meta1 explain tells the same of it.
func TestLog(t *testing.T) {
	t.Parallel()
	for name, global := range map[string]string{
		"directory": `log_directory = "LOGS";`, "JSON": `log_file = "LOGS/meta1.log"; log_format = json;`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			refused := freeAddr(t)
			m := newMTA(t, settings{
				global: global, mailertable: toPort(t, "good.test", s.addr) + toPort(t, "down.test", refused) + toPort(t, "client.test", s.addr),
			})
			conf := strings.Replace(readFile(t, m.conf), "retry_delay_min = 1s; retry_delay_max = 3s;", "retry_delay_min = 1h; retry_delay_max = 2h;", 1)
			writeFile(t, m.conf, strings.Replace(conf, "LOGS", m.dir+"/logs", 1))
			if err := os.Mkdir(m.dir+"/logs", 0o755); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 { // what serves is nobody
				if err := os.Chown(m.dir+"/logs", 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
			m.start()
			follow := exec.Command(meta1(t), "log", "Joe@down.test", "--follow", "--json", "-f", m.conf)
			follow.Dir = m.dir
			followed, err := follow.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := follow.Start(); err != nil {
				t.Fatal(err)
			}
			stuck := time.AfterFunc(hangs, func() { _ = follow.Process.Kill() })
			defer stuck.Stop()
			speak(t, m.smtp, testContent(1, 300), "MAIL FROM:<s@client.test>", "RCPT TO:<ann@good.test>", "RCPT TO:<joe@down.test>")
			s.waitFor(1)
			must(t, func() error { return m.queueShows(1, "refused") })
			missing := []string{"smtps session", "smtps mail", "smtps rcpt", "smtps message", "smtpc delivery failed", "qmgr deferred"}
			for in := bufio.NewScanner(followed); len(missing) > 0 && in.Scan(); {
				var l struct{ Module, Event string }
				if err := json.Unmarshal(in.Bytes(), &l); err != nil {
					t.Fatalf("%q: %v", in.Text(), err)
				}
				missing = slices.DeleteFunc(missing, func(s string) bool { return s == l.Module+" "+l.Event })
			}
			if len(missing) > 0 {
				t.Errorf("log --follow ends without %q", missing)
			}
			_ = follow.Process.Signal(syscall.SIGTERM)
			if err := follow.Wait(); err != nil {
				t.Errorf("log --follow: %v", err)
			}
			queue, err := m.queue()
			if err != nil || len(queue) != 1 {
				t.Fatalf("%+v, %v", queue, err)
			}
			id := queue[0].QueueID
			must(t, func() error { // the log is written behind the mail
				return grep(m.command, []string{"log", id}, "smtps session", "mail=<s@client.test>", "smtpc delivered", "qmgr  delivered", "qmgr  deferred", "ss_ta="+id)
			})
			if out, err := m.command("log", "S00000000000000FF00"); err != nil || out != "" {
				t.Errorf("a message that nobody knows: %q, %v", out, err)
			}
			if err := grep(m.command, []string{"mailq", "--summary"}, "esmtp:[127.0.0.1]:"+port(t, refused)+"        1      1", "       1 451 4.4.1 connect to", "in 1 messages for 1 recipients"); err != nil {
				t.Error(err)
			}
			if err := grep(m.command, []string{"mailq", "--summary", "--json"}, `"destination": "esmtp:[127.0.0.1]:`, `"recipients": 1`); err != nil {
				t.Error(err)
			}
			out, err := m.command("explain", id)
			if err == nil || err.(*exec.ExitError).ExitCode() != 75 {
				t.Errorf("explain: %v", err)
			}
			for _, want := range []string{
				"message " + id + " from <s@client.test>", "client_ip: 127.0.0.1", "ehlo: client.test", "<ann@good.test>", "delivered: 250", "<joe@down.test>",
				"waits because: 451 4.4.1 connect to", "in the queue: deferred, 1 attempts", "goes to esmtp:[127.0.0.1]:" + port(t, refused), "is tried next ",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("explain lacks %q:\n%s", want, out)
				}
			}
			if out, err := m.command("queue", "remove", id); err != nil {
				t.Fatal(err, out)
			}
			must(t, func() error {
				return grep(m.command, []string{"explain", id, "--json"}, `"event": "removed by an operator"`, `"queued": false`)
			})
		})
	}
}

// grep runs a command and returns nil when all texts are in what it prints.
func grep(command func(...string) (string, error), args []string, texts ...string) error {
	out, err := command(args...)
	for _, want := range texts {
		if !strings.Contains(out, want) {
			return fmt.Errorf("%q (%v) prints no %q:\n%s", args, err, want, out)
		}
	}
	return nil
}

// TestCtlStop: meta1 ends in order, and what is queued stays.
func TestCtlStop(t *testing.T) {
	t.Parallel()
	m := run(t, settings{mailertable: toPort(t, ".", freeAddr(t))})
	speak(t, m.smtp, testContent(1, 300), "MAIL FROM:<s@client.test>", "RCPT TO:<joe@down.test>")
	if out, err := m.command("ctl", "stop"); err != nil || out != "stopped\n" {
		t.Fatalf("%q, %v", out, err)
	}
	select {
	case <-m.ended:
	case <-time.After(hangs):
		t.Fatal("meta1 did not end")
	}
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	out, err := m.command("ctl", "stop")
	if err == nil || err.(*exec.ExitError).ExitCode() != 69 {
		t.Errorf("one that does not run: %q, %v", out, err)
	}
	m.start()
	must(t, func() error { return m.queueShows(1, "refused") })
}
