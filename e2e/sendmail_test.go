package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// dropUser is a user who has nothing to do with meta1.
const dropUser = 54321

// sendmail runs meta1 sendmail as another user, who has the configuration from the environment.
func (m *mta) sendmail(uid uint32, stdin string, args ...string) (out string, code int) {
	m.t.Helper()
	cmd := exec.Command(meta1(m.t), append([]string{"sendmail"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", append(os.Environ(), "META1_CONF="+m.conf), strings.NewReader(stdin)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := output(cmd)
	if err != nil && cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

// TestSendmail: each mode with the server running, and with the server down: then mail is left in the maildrop by any
// user, is listed, and is sent once when the server runs again.
func TestSendmail(t *testing.T) {
	t.Parallel()
	needRoot(t, "it submits mail as another user")
	s := newSink(t, "")
	refuseBad(s)
	m := run(t, settings{global: "maildrop { interval = 1s; }", mailertable: toPort(t, ".", s.addr), flags: ", xverp"})
	want := func(text string, code int, stdin string, args ...string) {
		t.Helper()
		out, got := m.sendmail(dropUser, stdin, args...)
		if got != code || !regexp.MustCompile(text).MatchString(out) {
			t.Errorf("sendmail %q ends with %d and prints %q, want %d and %q", args, got, out, code, text)
		}
	}
	mail := "From: me@a.test\nTo: to@b.test\nBcc: hidden@b.test\nSubject: x\n\nhello\n"
	want(`^$`, 0, mail, "-oi", "-t", "-f", "me@a.test")
	want(`(?s)>>> MAIL FROM:<me@a.test> SIZE=\d+ XVERP\n250.*>>> RCPT TO:<v@b.test>`, 0, mail, "-v", "-XV", "-f", "me@a.test", "v@b.test")
	s.waitFor(2)
	want(`bad address`, 64, "", "-bv", "a b@c@d")
	want(`^ok@b.test... deliverable\n$`, 0, "", "-bv", "-f", "me@a.test", "ok@b.test")
	want(`unknown option -Y`, 64, "", "-Y", "x@b.test")
	want(`no recipients`, 64, mail, "-oem")
	want(`(?s)^220 .*\n250.*\n354 .*\n250 .*\n221 `, 0, "EHLO me\nMAIL FROM:<bs@a.test>\nRCPT TO:<bs@b.test>\nDATA\nSubject: bs\n\nx\n.\nQUIT\n", "-bs")
	s.waitFor(3)
	m.queueEmpty()
	m.stop()

	want(`(?s)connecting to .*kept in the maildrop as `, 0, mail, "-t", "-v", "-f", "me@a.test", "-N", "never")
	want(`^$`, 0, mail, "-f", "me@a.test", "bad@b.test")
	want(`(?s)^220 .*250 2.0.0 kept until meta1 runs\r\n221`, 0, "HELO me\nMAIL FROM:<down@a.test>\nRCPT TO:<down@b.test>\nDATA\nSubject: bs\n\nx\n.\nQUIT\n", "-bs")
	want(`connecting to`, 75, "", "-bv", "x@b.test")
	want(`connecting to`, 75, mail, "--server", m.smtp, "x@b.test")
	drop := m.spool + "/maildrop"
	info, err := os.Stat(drop)
	if err != nil || info.Mode().Perm() != 0o733 || info.Mode()&os.ModeSticky == 0 || info.Mode()&os.ModeSetgid == 0 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	kept, err := filepath.Glob(drop + "/mail.*")
	if err != nil || len(kept) != 3 {
		t.Fatalf("%q, %v", kept, err)
	}
	// What others have left is neither listed nor read nor removed by a stranger.
	script := fmt.Sprintf("ls %[1]s; cat %[2]s; rm -f %[2]s; mv %[2]s %[1]s/mail.x; :", drop, kept[0])
	other := exec.Command("sh", "-c", script)
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: dropUser + 1, Gid: dropUser + 1}}
	out, err := output(other)
	if err != nil || strings.Count(out, "ermission denied")+strings.Count(out, "not permitted") != 4 || strings.Contains(out, "hello") {
		t.Errorf("a stranger: %v: %s", err, out)
	}
	// A link to what only the account may read is not sent to anybody.
	if err := os.Symlink(m.conf, drop+"/mail.link"); err != nil {
		t.Fatal(err)
	}
	listed, err := m.command("mailq")
	if err == nil || strings.Count(listed, "(maildrop)") != 4 || !strings.Contains(listed, "<down@b.test>") {
		t.Errorf("mailq while it is down: %v: %s", err, listed)
	}
	m.start()
	s.waitFor(3 + 1 + 1 + 1) // the first, that of -bs, and the bounce of bad@b.test
	m.queueEmpty()
	must(t, func() error {
		left, err := os.ReadDir(drop)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%v is left in the maildrop", left)
		}
		return err
	})
	must(t, m.metric("meta1_maildrop_messages_total{result=\"taken\"}", "3"))
	must(t, m.metric("meta1_maildrop_messages_total{result=\"bad\"}", "1"))
	to := map[string]int{}
	for _, a := range s.arrivals()[3:] {
		for _, r := range a.rcpts {
			to[r]++
		}
		if a.from == "" {
			continue
		}
		if !bytes.Contains(a.data, fmt.Appendf(nil, "(meta1, from userid %d) id S", dropUser)) || bytes.Contains(a.data, []byte("Bcc")) {
			t.Errorf("%s", a.data)
		}
	}
	if fmt.Sprint(to) != "map[down@b.test:1 hidden@b.test:1 me@a.test:1 to@b.test:1]" {
		t.Errorf("what was left went to %v", to)
	}
}

// metric returns a check that a metric has a value.
func (m *mta) metric(name, value string) func() error {
	return func() error {
		out, err := output(exec.Command("curl", "-s", "http://"+m.metrics+"/metrics"))
		if err == nil && !strings.Contains(out, "\n"+name+" "+value+"\n") {
			err = fmt.Errorf("%s is not %s:\n%s", name, value, regexp.MustCompile(`(?m)^meta1_maildrop.*$`).FindAllString(out, -1))
		}
		return err
	}
}

// TestMailutils: GNU mail gives its mail to meta1 sendmail, as it does to the sendmail of a host.
func TestMailutils(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	program := m.wrapper()
	cmd := peerCommand(t, "mail.mailutils", "-E", "set sendmail=sendmail:"+program, "-s", "from mailutils", "-r", "me@a.test", "to@b.test")
	cmd.Stdin = strings.NewReader("hello\n.\nbehind a dot\n")
	if out, err := output(cmd); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.waitFor(1)
	a := s.arrivals()[0]
	if a.from != "me@a.test" || fmt.Sprint(a.rcpts) != "[to@b.test]" || !bytes.Contains(a.data, []byte("Subject: from mailutils")) || !bytes.Contains(a.data, []byte("hello\r\n")) {
		t.Errorf("%+v %s", a, a.data)
	}
}

// wrapper is a program that is called as /usr/sbin/sendmail is, for this MTA.
func (m *mta) wrapper() string {
	m.t.Helper()
	path := m.dir + "/sendmail"
	writeFile(m.t, path, fmt.Sprintf("#!/bin/sh\nMETA1_CONF=%s exec %s sendmail \"$@\"\n", m.conf, meta1(m.t)))
	if err := os.Chmod(path, 0o755); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// TestCron: a job of Debian's cron sends what it prints. It waits for the full minute at which cron starts jobs, and so runs
// only with META1_TEST_CRON.
func TestCron(t *testing.T) {
	if os.Getenv("META1_TEST_CRON") == "" {
		t.Skip("META1_TEST_CRON is not set: it takes more than a minute")
	}
	t.Parallel()
	needRoot(t, "it starts cron in a mount namespace")
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	dir := testDir(t)
	writeFile(t, dir+"/crontab", "MAILTO=ops@b.test\n* * * * * root echo what the job prints\n")
	for _, d := range []string{"/cron.d", "/spool", "/run", "/sbin"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const script = `set -eu
touch /etc/crontab 2>/dev/null || true
mkdir -p /etc/cron.d /var/spool/cron
mount --bind "$0/spool" /var/spool/cron
mkdir -p /var/spool/cron/crontabs
mount --bind "$0/cron.d" /etc/cron.d
mount --bind "$0/crontab" /etc/crontab
mount --bind "$0/run" /run
mkdir "$0/etc" "$0/etc/upper" "$0/etc/work" "$0/upper" 2>/dev/null || true
cp -a /usr/sbin/. "$0/sbin/" 2>/dev/null || true
rm -f "$0/sbin/sendmail"
cp "$1" "$0/sbin/sendmail"
mount --bind "$0/sbin" /usr/sbin
exec "$2" -f -L 0`
	cron := peerDir("usr/sbin/cron")
	if _, err := os.Stat(cron); err != nil {
		cron = "/usr/sbin/cron"
	}
	startLogger(t, exec.Command("unshare", "--mount", "sh", "-c", script, dir, m.wrapper(), cron))
	s.waitFor(1)
	a := s.arrivals()[0]
	if fmt.Sprint(a.rcpts) != "[ops@b.test]" || !bytes.Contains(a.data, []byte("what the job prints")) || !bytes.Contains(a.data, []byte("Cron <root@")) {
		t.Errorf("%+v %s", a, a.data)
	}
}

// TestMsmtp: what programs give to msmtp, which many hosts have in the place of sendmail, they can give to meta1 sendmail: the same arguments
// and the same message have the same envelope, and neither shows hidden recipients. msmtp itself hands its mail to meta1 by SMTP.
func TestMsmtp(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	rc, program := m.dir+"/msmtprc", m.wrapper()
	writeFile(t, rc, fmt.Sprintf("account default\nhost 127.0.0.1\nport %s\nfrom me@a.test\n", port(t, m.smtp)))
	calls := [][]string{
		{"-f", "me@a.test", "to@b.test", "cc@b.test"},
		{"-fme@a.test", "--", "to@b.test"},
		{"-t", "-f", "me@a.test"},
		{"-i", "-t", "-f", "me@a.test", "more@b.test"},
		{"-oi", "-oem", "-t", "-f", "me@a.test"},
		{"-f", "<>", "-B8BITMIME", "-F", "Some Body", "to@b.test"},
		{"-N", "failure,delay", "-R", "hdrs", "-f", "me@a.test", "to@b.test"},
	}
	for i, args := range calls {
		mail := fmt.Sprintf("From: me@a.test\nTo: to@b.test\nCc: Some One <cc@b.test>\nBcc: hidden@b.test\nSubject: call %d\n\nhello\n", i)
		if slices.Contains(args, "-i") || slices.Contains(args, "-oi") { // msmtp never ends at a dot
			mail += ".\nbehind a dot\n"
		}
		for _, cmd := range []*exec.Cmd{exec.Command(program, args...), peerCommand(t, "msmtp", append([]string{"-C", rc}, args...)...)} {
			if slices.Contains(args, "<>") && strings.HasSuffix(cmd.Path, "msmtp") {
				cmd.Args[slices.Index(cmd.Args, "<>")] = "" // its word for no sender
			}
			cmd.Stdin = strings.NewReader(mail)
			if out, err := output(cmd); err != nil {
				t.Fatalf("%q: %v: %s", cmd.Args, err, out)
			}
		}
	}
	s.waitFor(2 * len(calls))
	got := map[string][]string{}
	for _, a := range s.arrivals() {
		subject := string(regexp.MustCompile(`Subject: call \d+`).Find(a.data))
		slices.Sort(a.rcpts)
		hides := !bytes.Contains(a.data, []byte("hidden"))
		_, body, _ := bytes.Cut(a.data, []byte("\r\n\r\n"))
		got[subject] = append(got[subject], fmt.Sprintf("%s %s %t %q", a.from, a.rcpts, hides, body))
	}
	for i, args := range calls {
		both := got[fmt.Sprintf("Subject: call %d", i)]
		if len(both) != 2 || both[0] != both[1] || !strings.Contains(both[0], `] true "hello\r\n`) {
			t.Errorf("%q: %q", args, both)
		}
	}
}
