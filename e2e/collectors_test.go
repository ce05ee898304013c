package e2e

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta1/mta/logfmt"
)

// startLogger starts a program that ends with the test.
func startLogger(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	out, err := os.CreateTemp(testDir(t), "out")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(cmd.Path), tail(out.Name(), 20))
		}
		out.Close()
	})
	return cmd
}

// rsyslog starts Debian's rsyslogd with our own configuration: all that comes by a Unix socket, UDP or TCP is written
// with its structured data to the file.
func rsyslog(t *testing.T, dir, udp, tcp string) *exec.Cmd {
	t.Helper()
	conf := dir + "/rsyslog.conf"
	writeFile(t, conf, fmt.Sprintf(`global(workDirectory="%[1]s" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp") module(load="imtcp")
input(type="imuxsock" Socket="%[1]s/devlog" UseSpecialParser="off" ParseHostname="on" CreatePath="off")
input(type="imudp" address="127.0.0.1" port="%[2]s")
input(type="imtcp" address="127.0.0.1" port="%[3]s")
template(name="all" type="string" string="%%inputname%%|%%syslogfacility-text%%.%%syslogseverity-text%%|%%hostname%%|%%app-name%%|%%procid%%|%%msgid%%|%%structured-data%%|%%msg%%\n")
template(name="file" type="string" string="%%timestamp:::date-rfc3339%% %%hostname%% %%syslogtag%% %%structured-data%% %%msg%%\n")
action(type="omfile" file="%[1]s/all" template="all" flushOnTXEnd="on" fileCreateMode="0644")
action(type="omfile" file="%[1]s/file" template="file" flushOnTXEnd="on" fileCreateMode="0644")
`, dir, udp, tcp))
	cmd := peerCommand(t, "rsyslogd", "-n", "-f", conf, "-i", dir+"/pid", "-M", peerDir("usr/lib/x86_64-linux-gnu/rsyslog"))
	return startLogger(t, cmd)
}

// peerDir is a directory of what test-needs.sh has unpacked.
func peerDir(name string) string {
	cache := os.Getenv("META1_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/meta1-test"
	}
	return filepath.Join(cache, "peers", name)
}

// TestRsyslog: a real rsyslogd reads what we send in each way, finds each field in the structured data, and holds no
// mail up when it is stopped or killed; meta1 log follows a message in what it writes.
func TestRsyslog(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	dir := testDir(t)
	udp, tcp := port(t, freeAddr(t)), port(t, freeAddr(t))
	daemon := rsyslog(t, dir, udp, tcp)
	must(t, func() error { _, err := os.Stat(dir + "/devlog"); return err })
	const head = `log { protocol = rfc5424; facility = local5; ident = "meta1 %s"; server = "%s"; }`
	m := run(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smtps:       fmt.Sprintf(head, "in", "udp:127.0.0.1:"+udp), qmgr: fmt.Sprintf(head, "queue", "tcp:127.0.0.1:"+tcp), smtpc: fmt.Sprintf(head, "out", dir+"/devlog"),
	})
	send := func(n int) {
		speak(t, m.smtp, testContent(n, 300), "MAIL FROM:<s@client.test>", fmt.Sprintf(`RCPT TO:<"r%d]\"x,"@b.test>`, n))
	}
	send(1)
	s.waitFor(1)
	all := func(ways ...string) func() error {
		return func() error {
			text, err := os.ReadFile(dir + "/all")
			for _, want := range ways {
				if err == nil && !regexp.MustCompile("(?m)^"+want+"$").Match(text) {
					err = fmt.Errorf("rsyslog has no line %s:\n%s", want, text)
				}
			}
			return err
		}
	}
	id := `S[0-9A-F]{18}`
	must(t, all(
		`imudp\|local5.info\|mta.test\|meta1_in\|\d+\|rcpt\|\[meta1@32473 sev="INFO" module="smtps" event="rcpt" ss_se="`+id+`" ss_ta="`+id+
			`" rcpt="<\\"r1\\\]\\\\\\"x,\\"@b.test>" idx="0" stat="0"\]\| ?sev=INFO, module=smtps, event=rcpt, .*`,
		`imtcp\|local5.info\|mta.test\|meta1_queue\|\d+\|delivered\|\[meta1@32473 .* rcpt_id="`+id+`-000000" .*\]\| ?sev=INFO, module=qmgr, event=delivered, .*`,
		`imuxsock\|local5.info\|mta.test\|meta1_out\|\d+\|delivered\|\[meta1@32473 .* da_ta="C[0-9A-F]{18}" .*\]\| ?sev=INFO, module=smtpc, event=delivered, .*`,
	))
	ta := regexp.MustCompile(`event="delivered" ss_ta="(` + id + `)"`).FindStringSubmatch(readFile(t, dir+"/all"))
	if ta == nil {
		t.Fatal("no delivery has the id of its message")
	}
	must(t, func() error {
		return grep(m.command, []string{"log", ta[1], "--log", dir + "/file"}, "smtps session", "smtps message", "smtpc delivered", "qmgr  delivered")
	})

	// One that reads nothing holds nobody up, and gets what it missed when it reads again; so does a new one.
	if err := daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	send(2)
	s.waitFor(2)
	if err := daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	must(t, all(`imtcp\|.* event="delivered" .*r2.*`, `imuxsock\|.* event="delivered" .*r2.*`, `imudp\|.* event="rcpt" .*r2.*`))
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	send(3)
	s.waitFor(3)
	if err := os.Remove(dir + "/pid"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(dir + "/devlog")
	rsyslog(t, dir, udp, tcp)
	must(t, all(`imtcp\|.* event="delivered" .*r3.*`, `imuxsock\|.* event="delivered" .*r3.*`))
}

// journald starts systemd's journald in a mount namespace in which /run is a directory of ours, which it returns.
func journald(t *testing.T) (run string) {
	t.Helper()
	needRoot(t, "systemd-journald is started in a mount namespace")
	run = testDir(t) + "/run"
	for _, dir := range []string{"/systemd/journal", "/log/journal"} {
		if err := os.MkdirAll(run+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, run+"/conf", "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nForwardToConsole=no\nForwardToWall=no\nRuntimeMaxUse=64M\nRateLimitIntervalSec=0\n")
	writeFile(t, run+"/machine-id", strings.Repeat("0123456789abcdef", 2)+"\n")
	const script = `set -eu
[ ! -e /etc/systemd/journald.conf ] || mount --bind "$0/conf" /etc/systemd/journald.conf
[ -s /etc/machine-id ] && mount --bind "$0/machine-id" /etc/machine-id
mount --bind "$0" /run
exec /lib/systemd/systemd-journald`
	startLogger(t, exec.Command("unshare", "--mount", "sh", "-c", script, run))
	must(t, func() error { _, err := os.Stat(run + "/systemd/journal/socket"); return err })
	return run
}

// journal are the entries of a journal with a field.
func journal(dir, match string) ([]map[string]any, error) {
	out, err := output(exec.Command("journalctl", "--directory="+dir, "--output=json", "--all", "--no-pager", match))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var entries []map[string]any
	for line := range strings.Lines(out) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// TestJournald: a real systemd-journald has each field as one of its own, and gets what is too large for a
// datagram; meta1 log --journal tells a message's story. While it is stopped mail goes on.
func TestJournald(t *testing.T) {
	t.Parallel()
	run1 := journald(t)
	logs := run1 + "/log/journal"
	s := newSink(t, "")
	m := run(t, settings{
		global:      fmt.Sprintf(`log { protocol = journald; server = "%s/systemd/journal/socket"; }`, run1),
		mailertable: toPort(t, ".", s.addr),
	})
	speak(t, m.smtp, testContent(1, 300), "MAIL FROM:<s@client.test>", `RCPT TO:<"a, b=c%"@b.test>`)
	s.waitFor(1)
	var entries []map[string]any
	must(t, func() (err error) {
		entries, err = journal(logs, "META1_EVENT=delivered")
		if err == nil && len(entries) < 2 {
			err = fmt.Errorf("%d entries", len(entries))
		}
		return err
	})
	ta, _ := entries[0]["META1_SS_TA"].(string)
	for _, e := range entries {
		text := fmt.Sprint(e["MESSAGE"])
		if e["PRIORITY"] != "6" || e["SYSLOG_FACILITY"] != "2" || e["_TRANSPORT"] != "journal" || e["META1_RCPT"] != `<"a, b=c%"@b.test>` || e["META1_SS_TA"] != ta ||
			e["SYSLOG_IDENTIFIER"] != e["META1_MODULE"] || !strings.HasPrefix(text, "sev=INFO, module=") || !strings.Contains(text, `rcpt=<"a%2C b=c%25"@b.test>`) {
			t.Errorf("%v", e)
		}
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(e["META1_TIME"])); err != nil || time.Since(at).Abs() > 2*hangs {
			t.Errorf("it was logged at %v", e["META1_TIME"])
		}
	}
	whole, err := journal(logs, "META1_SS_TA="+ta)
	if err != nil || len(whole) < 7 { // mail, rcpt and message; MAIL, RCPT and delivered; delivered
		t.Errorf("%d entries of the message, %v", len(whole), err)
	}
	if err := grep(m.command, []string{"log", ta, "--journal", "--journal-directory", logs, "--unit="}, "smtps session", "smtps message", "smtpc delivered", "qmgr  delivered"); err != nil {
		t.Error(err)
	}
	if err := grep(m.command, []string{"log", "joe@nowhere.test", "--journal", "--journal-directory", logs + "/none"}, "journalctl"); err != nil {
		t.Error(err)
	}
}

// TestJournaldLarge: what no datagram can hold gets into a real journal, too.
func TestJournaldLarge(t *testing.T) {
	t.Parallel()
	run := journald(t)
	log, err := logfmt.NewSyslog(logfmt.SyslogConfig{Protocol: logfmt.ProtocolJournal, Ident: "large", Server: run + "/systemd/journal/socket"})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 500_000)
	log.Put(slog.LevelInfo, []byte("sev=INFO, event=large, value="+big+"\n"))
	log.Flush()
	must(t, func() error {
		entries, err := journal(run+"/log/journal", "SYSLOG_IDENTIFIER=large")
		if err == nil && (len(entries) != 1 || entries[0]["META1_VALUE"] != big) {
			err = fmt.Errorf("%d entries", len(entries))
		}
		return err
	})
	if n := log.Dropped(); n != 0 {
		t.Errorf("%d lines were dropped", n)
	}
}
