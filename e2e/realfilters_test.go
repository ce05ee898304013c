package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The filters of this file are programs of Debian. What they make of a message is compared octet
// by octet; only what differs from run to run is replaced first.

// peerFile is a file that belongs to an unpacked program.
func peerFile(t *testing.T, program, name string) string {
	t.Helper()
	return filepath.Join(filepath.Dir(peerCommand(t, program).Path), "..", name)
}

// unixMilter is a section milter for a filter with a Unix socket.
func unixMilter(name, path, more string) string {
	return fmt.Sprintf("milter %s { socket { type = unix; path = %q; }; %s }\n", name, path, more)
}

// verbatim is a message as it arrived, without our Received:, with all that is of this run replaced.
func verbatim(t *testing.T, a arrival) string {
	t.Helper()
	text := afterReceived(t, a.data)
	for _, r := range [][2]string{
		{`id=S[0-9A-F]+`, "id=TA"},
		{`clamav-milter [0-9.]+ at [^\r]+`, "clamav-milter VERSION at HOST"},
		{`OpenDMARC Filter v[0-9.]+ [^ ]+ S[0-9A-F]+`, "OpenDMARC Filter vVERSION HOST TA"},
		{`SpamAssassin [0-9.]+ \([0-9-]+\) on [^\r]+`, "SpamAssassin VERSION on HOST"},
		{`X-Rspamd-Server: [^\r]+`, "X-Rspamd-Server: HOST"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// arrived fails unless the messages came as wanted, by the local part of their recipient.
func (s *sink) arrived(want map[string]string) {
	s.t.Helper()
	s.waitFor(len(want))
	for _, a := range s.arrivals() {
		name, _, _ := strings.Cut(a.rcpts[0], "@")
		if got := verbatim(s.t, a); got != want[name] {
			s.t.Errorf("%s:\n%q\nwant\n%q", name, got, want[name])
		}
	}
}

const rspamdConf = `
options {
  filters = ""; explicit_modules = ["settings"]; local_addrs = [];
  cache_file = "@DIR@/symbols.cache"; tempdir = "@DIR@"; hs_cache_dir = "@DIR@/"; url_tld = "@DIR@/tld";
  control_socket = "@DIR@/rspamd.sock mode=0600"; pidfile = "@DIR@/pid";
  dns { nameserver = ["127.0.0.1:1:1"]; timeout = 0.1s; retransmits = 1; }
}
lang_detection { disable = true; }
logging { type = "console"; level = "info"; }
lua = "@DIR@/rspamd.lua";
worker "rspamd_proxy" {
  bind_socket = "@ADDR@"; count = 1;
  milter = yes; timeout = 60s;
  upstream "local" { default = yes; self_scan = yes; }
  reject_message = "100% spam"; spam_header = "X-Spam";
}
actions { rewrite_subject = 4; subject = "[spam] %s"; add_header = 6; reject = 15; }
modules { path = "@SHARE@/plugins/milter_headers.lua"; }
milter_headers { use = ["x-rspamd-server", "x-spamd-result"]; skip_local = false; skip_authenticated = false; }
`

const rspamdRules = `
for subject, score in pairs({dubious = 5, bad = 7, awful = 20}) do
	rspamd_config[subject:upper()] = {score = score, group = "test", callback = function(task)
		return task:get_subject() == subject and task:get_from_ip():to_string() == "127.0.0.1" and
			task:get_helo() == "client.test" and task:get_from("smtp")[1].addr == "jane@x.test"
	end}
end
`

// TestMilterRspamd has rspamd's proxy worker judge mail in milter mode, with rules of our own.
func TestMilterRspamd(t *testing.T) {
	t.Parallel()
	s, at, dir := newSink(t, ""), freeAddr(t), testDir(t)
	share := peerFile(t, "rspamd", "share/rspamd")
	writeFile(t, dir+"/conf", strings.NewReplacer("@DIR@", dir, "@ADDR@", at, "@SHARE@", share).Replace(rspamdConf))
	writeFile(t, dir+"/rspamd.lua", rspamdRules)
	writeFile(t, dir+"/tld", "test\n")
	cmd := peerCommand(t, "rspamd", "-f", "-i", "-c", dir+"/conf", "--var=LUALIBDIR="+share+"/lualib", "--var=RULESDIR="+share+"/rules",
		"--var=SHAREDIR="+share, "--var=PLUGINSDIR="+share+"/plugins", "--var=DBDIR="+dir)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+peerFile(t, "rspamd", "lib/rspamd"), "LUA_PATH="+share+"/lualib/?.lua;"+share+"/lualib/?/init.lua")
	startPeer(t, at, cmd)
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "rspamd", at, "flags = { tempfail };")})
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	const body = "\r\n\r\nthe body\r\n"
	c.send("jane@x.test", "From: jane@x.test\r\nSubject: fine"+body, "250", "fine@sink.test")
	c.send("jane@x.test", "From: jane@x.test\r\nSubject:  dubious\r\nX-Spam: forged"+body, "250", "dubious@sink.test")
	c.send("jane@x.test", "From: jane@x.test\r\nSubject: bad"+body, "250", "bad@sink.test")
	c.send("jane@x.test", "From: jane@x.test\r\nSubject: awful"+body, "554 5.7.1 100% spam", "awful@sink.test")
	const head, server = "From: jane@x.test\r\nSubject: ", "\r\nX-Rspamd-Server: HOST\r\nX-Spamd-Result: default: False "
	s.arrived(map[string]string{
		"fine":    head + "fine" + server + "[0.00 / 15.00]" + body,
		"dubious": head + "[spam] dubious" + server + "[5.00 / 15.00];\r\n\tDUBIOUS(5.00)[]" + body,
		"bad":     head + "bad" + server + "[7.00 / 15.00];\r\n\tBAD(7.00)[]\r\nX-Spam: Yes" + body,
	})
}

// TestMilterSpamAssassin has spamass-milter ask spamd, which marks mail and refuses it.
func TestMilterSpamAssassin(t *testing.T) {
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
describe QUITE_BAD the subject says so
header VERY_BAD Subject =~ /^very bad$/
score VERY_BAD 20
report_safe 0
add_header spam Flag _YESNOCAPS_
rewrite_header Subject [spam]
add_header all Status "_YESNO_, score=_SCORE_"
required_score 5
use_bayes 0
dns_available no
util_rb_tld test
`)
	program := peerCommand(t, "spamd").Path
	cmd := exec.Command("perl", "-T", "-I"+peerFile(t, "spamd", "share/perl5"), program, "-x", "-L", "-i", "127.0.0.1", "-p", port(t, spamd),
		"-C", dir+"/rules", "--siteconfigpath="+dir+"/site", "-m", "1", "--min-children=1", "-u", "nobody", "-s", "stderr")
	startPeer(t, spamd, cmd)
	startPeer(t, at, peerCommand(t, "spamass-milter", "-p", "inet:"+port(t, at)+"@127.0.0.1", "-r", "15", "-R", "this is spam", "--", "-d", "127.0.0.1", "-p", port(t, spamd)))
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "spamass", at, "flags = { tempfail };")})
	c, _ := talk(t, "127.0.0.1", m.smtp)
	c.say("EHLO client.test", "250")
	const rest = "\r\nX-Spam-Flag: forged\r\nTo: joe@sink.test\r\n\r\nthe body\r\n"
	c.send("jane@x.test", "Subject: fine"+rest, "250", "fine@sink.test")
	c.send("jane@x.test", "Subject: quite bad"+rest, "250", "bad@sink.test")
	c.send("jane@x.test", "Subject: very bad"+rest, "550 5.7.1 this is spam", "awful@sink.test")
	const checker = "X-Spam-Checker-Version: SpamAssassin VERSION on HOST\r\n\r\nthe body\r\n"
	s.arrived(map[string]string{
		"fine": "Subject: fine\r\nTo: joe@sink.test\r\nX-Spam-Status: No, score=0.0\r\n" + checker,
		"bad": "Subject: [spam] quite bad\r\nX-Spam-Flag: YES\r\nTo: joe@sink.test\r\nX-Spam-Status: Yes, score=7.0\r\n" +
			"X-Spam-Report: \r\n\t*  7.0 QUITE_BAD the subject says so\r\n" + checker,
	})
}

// TestMilterClamAV has clamav-milter and clamd refuse, or quarantine, the test virus. Its
// signature is the only one of the database.
func TestMilterClamAV(t *testing.T) {
	t.Parallel()
	s, dir := newSink(t, ""), testDir(t)
	if err := os.Mkdir(dir+"/db", 0o755); err != nil {
		t.Fatal(err)
	}
	virus := `X5O!P%@AP[4\PZX54(P^)7CC)7}$` + "EICAR-STANDARD-ANTIVIRUS-" + `TEST-FILE!$H+H*`
	writeFile(t, dir+"/db/test.ndb", fmt.Sprintf("Eicar-Test:0:*:%x\n", virus))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	common := fmt.Sprintf("TemporaryDirectory %s\nForeground yes\n", dir)
	if os.Geteuid() == 0 {
		common += "User nobody\n"
	}
	clamd := freeAddr(t)
	writeFile(t, dir+"/clamd.conf", common+fmt.Sprintf("DatabaseDirectory %s/db\nTCPSocket %s\nTCPAddr 127.0.0.1\nLogFile %[1]s/log\n", dir, port(t, clamd)))
	startPeer(t, clamd, peerCommand(t, "clamd", "-c", dir+"/clamd.conf"))
	filter := func(action, more string) (addr string) {
		addr = freeAddr(t)
		file := dir + "/" + action + ".conf"
		writeFile(t, file, common+fmt.Sprintf("MilterSocket inet:%s@127.0.0.1\nClamdSocket tcp:%s\nOnInfected %s\nAddHeader Add\n", port(t, addr), clamd, action)+more)
		startPeer(t, addr, peerCommand(t, "clamav-milter", "-c", file))
		return addr
	}
	refuses, holds := filter("Reject", "RejectMsg this is %v\n"), filter("Quarantine", "")
	first := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "clam", refuses, "flags = { tempfail };")})
	second := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: inetMilter(t, "clam", holds, "flags = { tempfail };")})
	infected := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\r\n" + virus + "\r\n"
	big := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100000)
	c, _ := talk(t, "127.0.0.1", first.smtp)
	c.say("EHLO client.test", "250")
	c.send("jane@x.test", infected, "550 5.7.1 this is Eicar-Test", "virus@sink.test")
	c.send("jane@x.test", big, "250", "clean@sink.test")
	s.arrived(map[string]string{"clean": "X-Virus-Status: Clean\r\nX-Virus-Scanned: clamav-milter VERSION at HOST\r\n" + big})
	c, _ = talk(t, "127.0.0.1", second.smtp)
	c.say("EHLO client.test", "250")
	c.send("jane@x.test", infected, "250", "held@sink.test")
	must(t, func() error { return second.queueShows(1, "quarantined by milter clam: ") })
}

// island has namespaces of its own: without any network but a name server on port 53. run makes the
// command of a program on it.
func island(t *testing.T, records ...string) (run func(cmd *exec.Cmd) *exec.Cmd) {
	t.Helper()
	needRoot(t, "it makes namespaces")
	dir := testDir(t)
	writeFile(t, dir+"/resolv.conf", "nameserver 127.0.0.1\n")
	conf := "server:\n interface: 127.0.0.1\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n use-syslog: no\n directory: \"" + dir + "\"\n pidfile: \"\"\n" +
		" num-threads: 1\n outgoing-range: 16\n do-ip6: no\n local-zone: test. static\n local-zone: 127.in-addr.arpa. static\n"
	for _, r := range records {
		conf += " local-data: '" + r + "'\n"
	}
	writeFile(t, dir+"/unbound.conf", conf+"remote-control:\n control-enable: no\n")
	const script = `set -eu
ip link set lo up
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec "$2" -d -c "$1/unbound.conf"`
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c", script, "sh", dir, peerCommand(t, "unbound").Path)
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	run = func(program *exec.Cmd) *exec.Cmd {
		inside := exec.Command("nsenter", append([]string{"--target", fmt.Sprint(cmd.Process.Pid), "--net", "--mount", "--"}, program.Args...)...)
		inside.Env = program.Env
		return inside
	}
	must(t, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the name server ended: %v\n%s", err, readFile(t, dir+"/log"))
		default:
		}
		out, err := output(run(exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/53")))
		if err != nil {
			return fmt.Errorf("no name server: %w: %s %s", err, out, readFile(t, dir+"/log"))
		}
		return nil
	})
	return run
}

// mailDNS are records of SPF and DMARC: 127.0.0.5 and 192.0.2.5 may send for all these domains.
var mailDNS = []string{
	`strict.test. TXT "v=spf1 ip4:127.0.0.5 ip4:192.0.2.5 -all"`, `_dmarc.strict.test. TXT "v=DMARC1; p=reject"`,
	`hold.test. TXT "v=spf1 ip4:127.0.0.5 ip4:192.0.2.5 -all"`, `_dmarc.hold.test. TXT "v=DMARC1; p=quarantine"`,
}

// TestMilterOpenDMARC has OpenDMARC check SPF and DMARC: it accepts, refuses and holds.
func TestMilterOpenDMARC(t *testing.T) {
	t.Parallel()
	s, dir := newSink(t, ""), testDir(t)
	run1 := island(t, mailDNS...)
	writeFile(t, dir+"/ignored", "192.0.2.99\n")
	writeFile(t, dir+"/suffixes", "test\n")
	writeFile(t, dir+"/conf", fmt.Sprintf(`Socket local:%s/s
PidFile %[1]s/pid
IgnoreHosts %[1]s/ignored
PublicSuffixList %[1]s/suffixes
UMask 000
Syslog no
AuthservID mx.test
RejectFailures yes
HoldQuarantinedMessages yes
SPFIgnoreResults yes
SPFSelfValidate yes
SoftwareHeader yes
`, dir))
	cmd := run1(peerCommand(t, "opendmarc", "-f", "-c", dir+"/conf"))
	startSocketPeer(t, dir+"/s", cmd)
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smtps:       "authorized_xclient_hosts = { 127.0.0.1 };\n" + unixMilter("dmarc", dir+"/s", "flags = { tempfail };"),
	})
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\ncltaddr:192.0.2. relay\n")
	m.start()
	message := func(domain string) string {
		return "From: jane@" + domain + "\r\nAuthentication-Results: mx.test; dmarc=pass header.from=forged.test\r\nSubject: x\r\n\r\nthe body\r\n"
	}
	client := func(addr string) *smtpTalk { // SPF lets any loopback address pass
		c, _ := talk(t, "127.0.0.1", m.smtp)
		c.say("XCLIENT ADDR="+addr+" NAME=[UNAVAILABLE]", "220")
		c.say("EHLO client.test", "250")
		return c
	}
	client("192.0.2.5").send("jane@strict.test", message("strict.test"), "250", "pass@sink.test")
	wrong := client("192.0.2.6")
	wrong.send("jane@strict.test", message("strict.test"), "550 5.7.1 rejected by DMARC policy for strict.test", "fail@sink.test")
	wrong.send("jane@none.test", message("none.test"), "250", "none@sink.test")
	const inserted = "DMARC-Filter: OpenDMARC Filter vVERSION HOST TA\r\nAuthentication-Results: mx.test; dmarc="
	s.arrived(map[string]string{
		"pass": inserted + "pass (p=reject dis=none) header.from=strict.test\r\nAuthentication-Results: mx.test; spf=pass smtp.mailfrom=strict.test\r\n" + message("strict.test"),
		"none": inserted + "none (p=none dis=none) header.from=none.test\r\nAuthentication-Results: mx.test; spf=none smtp.mailfrom=none.test\r\n" + message("none.test"),
	})
	wrong.send("jane@hold.test", message("hold.test"), "250", "held@sink.test")
	must(t, func() error { return m.queueShows(1, "quarantined by milter dmarc: ") })
}

// startSocketPeer starts a program that listens on a Unix socket.
func startSocketPeer(t *testing.T, path string, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(path + ".log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	must(t, func() error {
		c, err := net.Dial("unix", path)
		if err != nil {
			return fmt.Errorf("%w: %s", err, readFile(t, path+".log"))
		}
		return c.Close()
	})
}

// TestPolicydSPF has policyd-spf, for each connection a process of its own as Postfix's spawn
// starts it, check SPF.
func TestPolicydSPF(t *testing.T) {
	t.Parallel()
	s, dir := newSink(t, ""), testDir(t)
	run1 := island(t, mailDNS...)
	writeFile(t, dir+"/conf", "debugLevel = 0\nHELO_reject = False\nMail_From_reject = Fail\nskip_addresses = 192.0.2.1\nHeader_Type = SPF\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			cmd := run1(exec.Command("/usr/bin/python3", peerCommand(t, "policyd-spf").Path, dir+"/conf"))
			cmd.Env = append(os.Environ(), "PYTHONPATH="+peerFile(t, "policyd-spf", "lib/python3/dist-packages"))
			in, err := cmd.StdinPipe()
			if err != nil {
				return
			}
			cmd.Stdout, cmd.Stderr = c, os.Stderr
			if err := cmd.Start(); err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(in, c)
				_ = in.Close()
				_ = cmd.Wait()
				_ = c.Close()
			}()
		}
	}()
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smtps:       fmt.Sprintf("policy_service spf { socket { type = inet; address = 127.0.0.1; port = %s; }; relaying_clients = true; }", port(t, l.Addr().String())),
	})
	m.start()
	right, _ := talk(t, "127.0.0.5", m.smtp)
	right.say("EHLO client.test", "250")
	right.send("jane@strict.test", "Subject: x\r\n\r\ny\r\n", "250", "pass@sink.test")
	wrong, _ := talk(t, "127.0.0.6", m.smtp)
	wrong.say("EHLO client.test", "250")
	wrong.say("MAIL FROM:<jane@strict.test>", "250")
	wrong.say("RCPT TO:<fail@sink.test>", "550 5.7.23 Message rejected due to: SPF fail - not authorized")
	s.waitFor(1)
	if got := string(s.arrivals()[0].data); !regexp.MustCompile(`(?s)^Received-SPF: Pass [^\r]*client-ip=127\.0\.0\.5;[^\r]*\r\nReceived: .*\r\n\r\ny\r\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}
