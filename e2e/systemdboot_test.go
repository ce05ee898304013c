package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSystemdBoot: the Debian package on a host that systemd has booted, from its installation to its purge. It takes a
// minute, and a few more the first time, when that Debian is downloaded: so "make systemd" runs it, and not each change.
func TestSystemdBoot(t *testing.T) {
	if os.Getenv("META1_TEST_SYSTEMD") == "" {
		t.Skip("META1_TEST_SYSTEMD is not set (make systemd): it downloads a Debian and boots it")
	}
	needRoot(t, "it boots another system in namespaces")
	debs := testDir(t)
	for _, version := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(debs, version), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("../scripts/deb.sh", filepath.Join(debs, version))
		cmd.Env = append(os.Environ(), "META1="+meta1(t), "COMPRESS=-Znone", "VERSION="+version+".0")
		if out, err := output(cmd); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	h := bootSystemd(t, debs)
	for _, step := range []struct {
		name string
		test func(*testing.T, *systemdHost)
	}{
		{"install", systemdInstall},
		{"start", systemdStart},
		{"submission", systemdSubmission},
		{"journal", systemdJournal},
		{"reload", systemdReload},
		{"upgrade", systemdUpgrade},
		{"watchdog", systemdWatchdog},
		{"port taken", systemdPortTaken},
		{"logrotate", systemdLogrotate},
		{"stop", systemdStop},
		{"power cut", systemdPowerCut},
		{"without root", systemdSockets},
		{"purge", systemdPurge},
	} {
		if !t.Run(step.name, func(t *testing.T) { h.t = t; step.test(t, h) }) {
			break // each begins with what the one before has left
		}
	}
	h.t = t
}

// systemdInstall: the service runs after the installation, and systemd finds nothing wrong with its unit.
func systemdInstall(t *testing.T, h *systemdHost) {
	h.run("dpkg -i /debs/1/meta1_*.deb /debs/1/meta1-mta_*.deb; useradd -m joe")
	says(t, h.run("systemctl is-active meta1; systemctl is-enabled meta1; meta1 setup --check"), "active\nenabled\n", "account meta1: ok")
	if out := h.run("systemd-analyze verify --man=no meta1.service 2>&1"); out != "" {
		t.Error(out)
	}
	says(t, h.run("ps -o user= -p $(systemctl show meta1 -P MainPID)"), "meta1")
	h.run(`sed -i 's/^# hostname = .*/hostname = mx.systemd.test;/' /etc/meta1/meta1.conf
		printf '%s\n' 'example.com 2526^esmtp:[127.0.0.1]' 'systemd.test 2526^esmtp:[127.0.0.1]' '.systemd.test 2526^esmtp:[127.0.0.1]' 'down.example 9^esmtp:[127.0.0.1]' >/etc/meta1/mt
		mkdir /root/arrived
		systemd-run -q --unit sink meta1 sink --listen 127.0.0.1:2526 --dump /root/arrived
		systemctl restart meta1`)
}

// greets is a script that fails unless meta1 greets.
const greets = `exec 4<>/dev/tcp/127.0.0.1/25; read -t 60 -u 4 line; [[ $line = 220* ]] || { echo "said: $line"; exit 1; }; exec 4<&-`

// dialogue is a script that connects and says things one after the other.
const dialogue = `say() { printf '%s\r\n' "$1" >&4; hear; }
hear() { while read -t 60 -u 4 line; do echo "$line"; [[ $line = ???-* ]] || return 0; done; }
exec 4<>/dev/tcp/127.0.0.1/25; hear
`

// systemdStart: "systemctl start" returns when meta1 serves, and not before.
func systemdStart(t *testing.T, h *systemdHost) {
	h.run(`mkdir /etc/systemd/system/meta1.service.d
		cat >/etc/systemd/system/meta1.service.d/late.conf <<'C'
[Service]
ExecStart=
ExecStart=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.1; done; exec /usr/sbin/meta1 serve'
C
		systemctl daemon-reload; systemctl stop meta1; systemctl start --no-block meta1`)
	h.eventually(`[ "$(systemctl show meta1 -P SubState)" = start ]`)
	h.run(`! (exec 4<>/dev/tcp/127.0.0.1/25) 2>/dev/null; (sleep 1; touch /run/go) & systemctl start meta1; meta1 healthcheck; ` + greets)
	h.run("rm -r /etc/systemd/system/meta1.service.d; systemctl daemon-reload; systemctl restart meta1; " + greets)
}

// arrives waits for a message with a word in it.
func (h *systemdHost) arrives(word string) {
	h.t.Helper()
	h.eventually("grep -rq '" + word + "' /root/arrived*")
}

// systemdSubmission: an ordinary user mails, also while meta1 does not run, and has nothing to do with the queue.
func systemdSubmission(t *testing.T, h *systemdHost) {
	h.run(`su joe -c "printf 'Subject: served\n\nx\n' | /usr/sbin/sendmail -i joe@example.com"`)
	h.arrives("Subject: served")
	says(t, h.run("meta1 ctl status; su joe -c 'meta1 ctl status; echo status $?; mailq; echo status $?' 2>&1"), "(smtps)", "no permission to ask meta1", "status 77\n")
	h.run(`systemctl stop meta1; su joe -c "printf 'Subject: kept\n\nx\n' | /usr/sbin/sendmail -i joe@example.com"`)
	says(t, h.run("mailq || [ $? = 69 ]"), "(maildrop)", "<joe@example.com>")
	h.run("systemctl start meta1")
	h.arrives("Subject: kept")
}

// systemdJournal: the journal has each field by itself, and "meta1 log" reads them from there.
func systemdJournal(t *testing.T, h *systemdHost) {
	h.run(`echo 'log { protocol = journald; }' >>/etc/meta1/meta1.conf; systemctl restart meta1
		su joe -c "printf 'Subject: journal\n\nx\n' | /usr/sbin/sendmail -i joe@example.com"`)
	h.arrives("Subject: journal")
	h.eventually("journalctl META1_EVENT=delivered -o json | grep -q joe@example.com")
	lines := strings.Split(h.run("journalctl META1_EVENT=message -o json"), "\n")
	entry := map[string]string{}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &entry); err != nil {
		t.Fatal(err)
	}
	if entry["META1_MAIL"] != "<joe@mx.systemd.test>" || entry["_SYSTEMD_UNIT"] != "meta1.service" || entry["PRIORITY"] != "6" || entry["META1_SS_TA"] == "" {
		t.Errorf("%q", entry)
	}
	says(t, h.run("journalctl META1_SS_TA="+entry["META1_SS_TA"]+"; meta1 log --journal "+entry["META1_SS_TA"]), "<joe@example.com>", "delivered")
	says(t, h.run("sed -i '/^log {/d' /etc/meta1/meta1.conf; systemctl restart meta1; "+greets+"; systemctl is-active meta1"), "active")
}

// systemdReload: "systemctl reload" applies the configuration, and fails with the reason if it is wrong.
func systemdReload(t *testing.T, h *systemdHost) {
	pid := h.property("MainPID")
	h.run("cp /etc/meta1/meta1.conf /root; sed -i 's/^smtps {/&\\n  message_size_max = 12MB;/' /etc/meta1/meta1.conf; systemctl reload meta1")
	says(t, h.run(dialogue+"say 'EHLO x'"), "SIZE 12")
	out, err := h.try("echo 'nonsense = 1;' >>/etc/meta1/meta1.conf; systemctl reload meta1")
	if err == nil {
		t.Errorf("a wrong configuration was taken: %s", out)
	}
	says(t, h.run("systemctl status meta1 || true; journalctl -u meta1 -n 20"), "nonsense", "Active: active (running)")
	h.run("cp /root/meta1.conf /etc/meta1/meta1.conf; systemctl reload meta1")
	if now := h.property("MainPID"); now != pid {
		t.Errorf("process %s, was %s", now, pid)
	}
}

// busy is a script that connects again and again until /run/enough is there, and writes to /run/refused what was not greeted.
const busy = `rm -f /run/enough /run/refused /run/greeted
(until [ -e /run/enough ]; do ( ` + greets + ` ) >>/run/refused 2>&1 && echo >>/run/greeted; done) &
until [ -e /run/greeted ]; do sleep 0.1; done
`

// enough ends what busy has begun, and tells what was wrong.
const enough = `
touch /run/enough; wait; wc -l </run/greeted; cat /run/refused >&2; [ ! -s /run/refused ]`

// systemdUpgrade: a new version of the package takes over, and so does a new binary at "systemctl reload": no connection is
// refused, and systemd knows the new process.
func systemdUpgrade(t *testing.T, h *systemdHost) {
	pid := h.property("MainPID")
	for _, script := range []string{
		"dpkg -i /debs/2/meta1_*.deb /debs/2/meta1-mta_*.deb >&2",
		"cp /usr/sbin/meta1 /usr/sbin/meta1.new; mv /usr/sbin/meta1.new /usr/sbin/meta1; systemctl reload meta1",
	} {
		t.Logf("%s: %s", script, h.run(busy+script+enough))
		now := h.property("MainPID")
		if now == pid || now == "0" {
			t.Errorf("%s: process %s, was %s", script, now, pid)
		}
		pid = now
		says(t, h.run("systemctl status meta1; systemctl show meta1; pgrep -x meta1 -u meta1"), "Active: active (running)", "Main PID: "+pid+" ", "NRestarts=0", "Result=success", "\n"+pid)
	}
	says(t, h.run("dpkg-query -W meta1"), "2.0")
	// A service that was disabled is left alone.
	says(t, h.run("systemctl disable --now meta1; dpkg -i /debs/2/meta1_*.deb 2>&1; systemctl is-active meta1 || true; systemctl is-enabled meta1 || true"),
		"not started, since meta1.service is disabled", "\ninactive\n", "\ndisabled")
	h.run("systemctl enable --now meta1; " + greets)
}

// systemdWatchdog: systemd starts a process anew that hangs, the successor of another one, too.
func systemdWatchdog(t *testing.T, h *systemdHost) {
	h.run(`mkdir /etc/systemd/system/meta1.service.d
		printf '[Service]\nWatchdogSec=2\nRestartSec=100ms\n' >/etc/systemd/system/meta1.service.d/soon.conf; systemctl daemon-reload; systemctl restart meta1
		cp /usr/sbin/meta1 /usr/sbin/meta1.new; mv /usr/sbin/meta1.new /usr/sbin/meta1; systemctl reload meta1; sleep 5`)
	if n := h.property("NRestarts"); n != "0" {
		t.Errorf("restarts of a process that works: %s", n)
	}
	h.run("systemctl kill --kill-whom=main --signal=STOP meta1")
	h.eventually(`[ "$(systemctl show meta1 -P NRestarts)" = 1 ] && systemctl is-active meta1; ` + greets)
	h.run("journalctl --no-pager -u meta1 -u init.scope | grep 'Watchdog timeout'") // a dump of all goroutines is there, too
	h.run("rm -r /etc/systemd/system/meta1.service.d; systemctl daemon-reload; systemctl restart meta1")
}

// systemdPortTaken: systemd does not start meta1 again and again while another program has its port.
func systemdPortTaken(t *testing.T, h *systemdHost) {
	h.run(`mkdir /etc/systemd/system/meta1.service.d
		printf '[Service]\nRestartSec=100ms\n' >/etc/systemd/system/meta1.service.d/soon.conf
		printf '[Socket]\nListenStream=25\nAccept=yes\n' >/etc/systemd/system/other.socket
		printf '[Service]\nExecStart=/bin/true\n' >/etc/systemd/system/other@.service
		systemctl daemon-reload; systemctl stop meta1; systemctl start other.socket; systemctl start meta1 || true; sleep 3`)
	says(t, h.run("systemctl show meta1"), "ActiveState=failed", "NRestarts=0", "ExecMainStatus=69")
	h.run("systemctl stop other.socket; rm -r /etc/systemd/system/meta1.service.d /etc/systemd/system/other*; systemctl daemon-reload; systemctl start meta1; " + greets)
}

// systemdLogrotate: a log file of meta1's own, put away by logrotate.
func systemdLogrotate(t *testing.T, h *systemdHost) {
	h.run(`cp /usr/share/doc/meta1/examples/logrotate/meta1 /etc/logrotate.d/meta1
		sed -i '1i log_file = "/var/log/meta1/meta1.log";' /etc/meta1/meta1.conf
		meta1 setup; systemctl restart meta1; ` + greets + `
		grep -q event=ready /var/log/meta1/meta1.log
		logrotate --force /etc/logrotate.d/meta1`)
	h.eventually(`su joe -c "printf 'Subject: rotated\n\nx\n' | /usr/sbin/sendmail -i joe@example.com"; grep -q event=message /var/log/meta1/meta1.log`)
	says(t, h.run("ls -l /var/log/meta1; logrotate --debug /etc/logrotate.d/meta1 2>&1"), "meta1.log.1", "meta1 meta1")
	h.run("sed -i '/^log_file/d' /etc/meta1/meta1.conf; systemctl restart meta1")
}

// systemdStop: a stop takes no longer than systemd waits, whatever clients do.
func systemdStop(t *testing.T, h *systemdHost) {
	out := h.run(dialogue + `say 'EHLO x'; say 'MAIL FROM:<>'; say 'RCPT TO:<joe@example.com>'; say DATA; printf 'Subject: half\r\n' >&4
		systemctl stop meta1; systemctl show meta1; pgrep -x meta1 -u meta1 || true`)
	says(t, out, "Result=success", "ActiveState=inactive", "MainPID=0")
	if log := h.run("journalctl -u meta1 -n 50"); strings.Contains(log, "SIGKILL") || strings.Contains(log, "timed out") {
		t.Error(log)
	}
	h.run("systemctl start meta1")
}

// systemdPowerCut: meta1 comes up with the host, with the mail that it had.
func systemdPowerCut(t *testing.T, h *systemdHost) {
	h.run(`printf 'Subject: waits\n\nx\n' | sendmail -i ann@down.example`)
	h.eventually("mailq | grep -q ann@down.example")
	h.powerCut()
	says(t, h.run("systemctl is-active meta1; mailq"), "active\n", "<ann@down.example>")
	h.run("mkdir /root/arrived2; systemd-run -q --unit sink meta1 sink --listen 127.0.0.1:2526 --dump /root/arrived2; " + greets)
}

// systemdSockets: the units without any right of root, with Landlock: the first connection starts meta1, and all that a
// meta1 with root can do works, but what docs/install.md says.
func systemdSockets(t *testing.T, h *systemdHost) {
	h.run(`systemctl disable --now meta1
		for u in meta1.service meta1.socket; do sed 's|/usr/local/sbin/|/usr/sbin/|' /usr/share/doc/meta1/examples/systemd/$u >/etc/systemd/system/$u; done
		sed -i '1i landlock = on;' /etc/meta1/meta1.conf`)
	if out := h.run("systemctl daemon-reload; systemd-analyze verify --man=no meta1.service meta1.socket 2>&1"); out != "" {
		t.Error(out)
	}
	// The sockets are not those of the configuration, and the log says so.
	h.run("systemctl start meta1.socket; systemctl start --no-block meta1")
	h.eventually("journalctl -u meta1 -n 20 | grep -q 'systemd passes other sockets: 0.0.0.0:25'")
	h.run(`systemctl stop meta1.socket meta1
		sed -i '/^ListenStream=\[/d; s/^ListenStream=.*/ListenStream=127.0.0.1:25/' /etc/systemd/system/meta1.socket
		systemctl daemon-reload; systemctl reset-failed meta1; systemctl enable --now meta1.socket; [ "$(systemctl is-active meta1)" = inactive ]; ` + greets)
	h.eventually("systemctl is-active meta1")
	says(t, h.run("cat /proc/$(systemctl show meta1 -P MainPID)/status; ps -o user= -p $(systemctl show meta1 -P MainPID)"), "\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nmeta1")
	// A unit that takes Landlock away is found out, too.
	h.run(`mkdir /etc/systemd/system/meta1.service.d; printf '[Service]\nSystemCallFilter=~landlock_create_ruleset\n' >/etc/systemd/system/meta1.service.d/none.conf
		systemctl daemon-reload; ! systemctl restart meta1; systemctl stop meta1.socket
		journalctl -u meta1 -n 20 | grep 'something forbids the call landlock_create_ruleset'
		rm -r /etc/systemd/system/meta1.service.d; systemctl daemon-reload; systemctl reset-failed meta1; systemctl start meta1.socket; ` + greets)
	level := regexp.MustCompile(`exposure level for meta1.service: (\d+\.\d)`).FindStringSubmatch(h.run("systemd-analyze security --no-pager meta1"))
	if level == nil || level[1] >= "2.0" || len(level[1]) != 3 {
		t.Errorf("exposure level: %q", level)
	}
	h.run(`su joe -c "printf 'Subject: activated\n\nx\n' | /usr/sbin/sendmail -i joe@example.com"`)
	h.arrives("Subject: activated")
	systemdReload(t, h)
	pid := h.property("MainPID")
	t.Log(h.run(busy + "cp /usr/sbin/meta1 /usr/sbin/meta1.new; mv /usr/sbin/meta1.new /usr/sbin/meta1; systemctl reload meta1" + enough))
	if now := h.property("MainPID"); now == pid || now == "0" {
		t.Errorf("process %s, was %s", now, pid)
	}
	h.run("meta1 fsck >/dev/null")
	// The socket is systemd's: a connection brings meta1 back.
	says(t, h.run("systemctl stop meta1 2>&1; systemctl is-active meta1 || true; "+greets+"; systemctl is-active meta1"), "inactive\n", "\nactive")
	says(t, h.run("journalctl --no-pager -k -n 50; mailq"), "<ann@down.example>")
	// Without the package nothing listens any more, and with it again all is as before.
	says(t, h.run("dpkg -r meta1-mta meta1 >/dev/null; ss -Hltn 'sport = :25'; echo then; dpkg -i /debs/2/*.deb >/dev/null; systemctl is-active meta1"), "then\nactive")
	h.run(`systemctl disable --now meta1.socket meta1; rm /etc/systemd/system/meta1.service /etc/systemd/system/meta1.socket; systemctl daemon-reload
		sed -i '/^landlock/d' /etc/meta1/meta1.conf; systemctl enable --now meta1; ` + greets)
}

// systemdPurge: nothing runs afterwards, and the mail is there.
func systemdPurge(t *testing.T, h *systemdHost) {
	says(t, h.run("dpkg -P meta1-mta meta1 2>&1"), "/var/spool/meta1 is kept, since there may be mail in it")
	out := h.run("systemctl --failed; systemctl list-unit-files 'meta1*' || true; ls /etc/systemd/system/multi-user.target.wants; ls -A /var/spool/meta1; pgrep -x meta1 -u meta1 || true; ls /etc/meta1 2>&1 || true")
	says(t, out, "0 loaded units listed", "0 unit files listed", "defedb", "cannot access '/etc/meta1'")
	if strings.Contains(out, "meta1.service") {
		t.Error(out)
	}
}
