package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runPmult starts meta1 pmult with a configuration, and returns its process and its log.
func runPmult(t *testing.T, addr, conf string) (cmd *exec.Cmd, log string) {
	t.Helper()
	file := testDir(t) + "/pmult.conf"
	writeFile(t, file, conf)
	if out, err := commandIn(t, testDir(t), nil, "pmult", "-f", file, "--check"); err != nil || out != file+": ok\n" {
		t.Fatalf("%v %s", err, out)
	}
	cmd = exec.Command(meta1(t), "pmult", "-f", file, "--stderr")
	return cmd, startPeer(t, addr, cmd)
}

// asksPmult is the section of smtps for a policy milter that listens on addr.
func asksPmult(t *testing.T, addr, flags string) string {
	t.Helper()
	return fmt.Sprintf("policy_milter { socket { type = inet; address = 127.0.0.1; port = %s; }; timeout = 2m; flags = { %s }; }\n", port(t, addr), flags)
}

// TestPmultMailfromd has mailfromd decide and change at each step behind pmult, in the same way
// as directly: TestMilterMailfromd has the same dialogue.
func TestPmultMailfromd(t *testing.T) {
	t.Parallel()
	at, addr, metrics := startMailfromd(t), freeAddr(t), freeAddr(t)
	_, log := runPmult(t, addr, fmt.Sprintf("listen inet://%s; metrics inet://%s; client mf { url inet://%s; on-failure tempfail; connections-kept 10; }", addr, metrics, at))
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: asksPmult(t, addr, "abort")})
	mailfromdDialogue(t, m, s, "quarantined by milter mf: looks odd")
	for _, want := range []string{"event=filter refuses", "reply=550 5.7.1 sender refused%2C 100%25 sure", "event=filter changes the message", "quarantine=looks odd"} {
		must(t, func() error { // it is written a moment later
			if text := readFile(t, log); !strings.Contains(text, want) {
				return fmt.Errorf("the log of pmult lacks %q:\n%s", want, text)
			}
			return nil
		})
	}
	page, err := (&mta{t: t, metrics: metrics}).get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"meta1_pmult_sessions_total ", `meta1_pmult_verdicts_total{verdict="change"} 4`, `meta1_pmult_verdicts_total{verdict="discard"} 1`,
		`meta1_pmult_client_verdicts_total{client="mf",verdict="quarantine"} 1`,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("the metrics lack %q:\n%s", want, page)
		}
	}
}

// TestPmultKilled: pmult is killed in the middle of a message. The client gets what the flags of
// the section say, no other mail suffers, and with the next pmult all is as before.
func TestPmultKilled(t *testing.T) {
	t.Parallel()
	at := startMailfromd(t)
	for flag, want := range map[string]string{"abort": "421", "accept_but_reconnect": "250"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			addr := freeAddr(t)
			conf := fmt.Sprintf("listen inet://%s; client mf { url inet://%s; }", addr, at)
			cmd, _ := runPmult(t, addr, conf)
			s := newSink(t, "")
			m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: asksPmult(t, addr, flag)})
			c, _ := talk(t, "127.0.0.1", m.smtp)
			c.say("EHLO client.test", "250")
			c.say("MAIL FROM:<other@x.test>", "250")
			c.say("RCPT TO:<first@sink.test>", "250")
			c.say("DATA", "354")
			if err := c.PrintfLine("Subject: cut\r\n\r\none"); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			must(t, func() error { // its connection is closed
				if !isFree(addr) {
					return fmt.Errorf("%s is not free", addr)
				}
				return nil
			})
			if err := c.PrintfLine("two\r\n."); err != nil {
				t.Fatal(err)
			}
			if got := c.reply(); !strings.HasPrefix(got, want) {
				t.Errorf("the message: %s, want %s", got, want)
			}
			arrived := 0
			if want == "250" {
				arrived++
				s.waitFor(arrived)
				if data := s.arrivals()[0].data; !bytes.HasSuffix(data, []byte("\r\n\r\none\r\ntwo\r\n")) {
					t.Errorf("%q", data)
				}
			}
			runPmult(t, addr, conf)
			must(t, func() error {
				c, greeting := talk(t, "127.0.0.1", m.smtp)
				if !strings.HasPrefix(greeting, "220") {
					return fmt.Errorf("greeting %s", greeting)
				}
				defer c.Close()
				c.say("EHLO client.test", "250")
				if err := c.PrintfLine("MAIL FROM:<reject@x.test>"); err != nil {
					return err
				}
				if got := c.reply(); !strings.HasPrefix(got, "550 5.7.1 sender refused") {
					return fmt.Errorf("MAIL: %s", got)
				}
				return nil
			})
			c, _ = talk(t, "127.0.0.1", m.smtp)
			c.say("EHLO client.test", "250")
			c.send("other@x.test", "Subject: whole\r\n\r\nbody\r\n", "250", "second@sink.test")
			s.waitFor(arrived + 1)
			if data := s.arrivals()[arrived].data; !bytes.Contains(data, []byte("X-Seen: client=127.0.0.1")) {
				t.Errorf("%q", data)
			}
		})
	}
}

// TestPmultReload: HUP changes the clients of sessions that begin later; a wrong configuration
// changes nothing.
func TestPmultReload(t *testing.T) {
	t.Parallel()
	at, addr := startMailfromd(t), freeAddr(t)
	dir := testDir(t)
	writeFile(t, dir+"/pmult.conf", fmt.Sprintf("listen inet://%s; pidfile %s/pid;", addr, dir))
	cmd := exec.Command(meta1(t), "pmult", "-f", dir+"/pmult.conf", "--stderr")
	log := startPeer(t, addr, cmd)
	if pid := strings.TrimSpace(readFile(t, dir+"/pid")); pid != fmt.Sprint(cmd.Process.Pid) {
		t.Errorf("the pidfile has %q", pid)
	}
	m := run(t, settings{mailertable: toPort(t, ".", freeAddr(t)), smtps: asksPmult(t, addr, "abort")})
	mail := func() string {
		c, _ := talk(t, "127.0.0.1", m.smtp)
		defer c.Close()
		c.say("EHLO client.test", "250")
		if err := c.PrintfLine("MAIL FROM:<reject@x.test>"); err != nil {
			t.Fatal(err)
		}
		return c.reply()
	}
	if got := mail(); !strings.HasPrefix(got, "250") {
		t.Error(got)
	}
	reload := func(text, want string) {
		t.Helper()
		writeFile(t, dir+"/pmult.conf", text)
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		must(t, func() error {
			if text := readFile(t, log); !strings.Contains(text, want) {
				return fmt.Errorf("the log lacks %q:\n%s", want, text)
			}
			return nil
		})
	}
	reload(fmt.Sprintf("listen inet://%s; client mf { url inet://%s; }", addr, at), "event=configuration was read again")
	if got := mail(); !strings.HasPrefix(got, "550 5.7.1 sender refused") {
		t.Error(got)
	}
	reload("listen nowhere;", "event=configuration was not read again: the old one holds")
	if got := mail(); !strings.HasPrefix(got, "550 5.7.1 sender refused") {
		t.Error(got)
	}
}

// blocks are the examples of a page of the documentation.
func blocks(page string) (list []string) {
	for i, text := range strings.Split(page, "\n```\n") {
		if i%2 == 1 {
			list = append(list, text+"\n")
		}
	}
	return list
}

// TestMailfromdPage runs what docs/mailfromd.md says: mailfromd, and meta1 that asks it
// directly and by way of pmult, with sockets of both kinds.
func TestMailfromdPage(t *testing.T) {
	t.Parallel()
	page := blocks(readFile(t, "../docs/mailfromd.md"))
	if len(page) != 7 {
		t.Fatalf("the page has %d examples", len(page))
	}
	filter, direct, conf, commands, asked, unixConf, unixAsked := page[0], page[1], page[2], page[3], page[4], page[5], page[6]
	if !strings.HasPrefix(filter, "mailfromd -p inet://127.0.0.1:4111 /") {
		t.Errorf("%s: not as startMailfromd does it", filter)
	}
	at, inet, socket := startMailfromd(t), freeAddr(t), testDir(t)+"/pmult"
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Dir(socket), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	here := strings.NewReplacer("127.0.0.1:4111", at, "port = 4111", "port = "+port(t, at), "127.0.0.1:3333", inet, "port = 3333", "port = "+port(t, inet),
		"/var/spool/meta1/pmult/socket", socket)
	smtps := regexp.MustCompile(`(?s)^smtps \{\n(.*)\}\n$`)
	asks := func(name, section string) {
		t.Helper()
		inner := smtps.FindStringSubmatch(section)
		if inner == nil {
			t.Fatalf("%s: no section smtps: %s", name, section)
		}
		m := run(t, settings{mailertable: toPort(t, ".", inet), smtps: here.Replace(inner[1])})
		c, _ := talk(t, "127.0.0.1", m.smtp)
		c.say("EHLO client.test", "250")
		c.say("MAIL FROM:<reject@x.test>", "550 5.7.1 sender refused, 100% sure")
	}
	asks("direct", direct)

	dir := testDir(t)
	for i, text := range []string{conf, unixConf} {
		file := fmt.Sprintf("%s/pmult%d.conf", dir, i)
		writeFile(t, file, here.Replace(text))
		for _, line := range strings.Split(strings.TrimSpace(commands), "\n") {
			args := strings.Fields(strings.ReplaceAll(line, "/etc/meta1/pmult.conf", file))
			if len(args) < 2 || args[0] != "meta1" || args[1] != "pmult" {
				t.Fatalf("%q is no command of pmult", line)
			}
			if i == 1 && os.Geteuid() == 0 { // the account of meta1 in these tests
				args = append(args, "--set", ".user=nobody")
			}
			cmd := exec.Command(meta1(t), args[1:]...)
			if strings.Contains(line, "--check") {
				if out, err := output(cmd); err != nil || out != file+": ok\n" {
					t.Errorf("%s: %v %s", line, err, out)
				}
				continue
			}
			if i == 0 {
				startPeer(t, inet, cmd)
				continue
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
				_ = cmd.Wait()
				kill.Stop()
			})
			must(t, func() error { _, err := os.Stat(socket); return err })
		}
	}
	asks("inet", asked)
	asks("unix", unixAsked)
}
