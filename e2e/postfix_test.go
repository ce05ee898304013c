package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// postfix is a whole Postfix of the test's own: its queue, its configuration, one
// SMTP listener, and transports chosen by domain.
type postfix struct {
	smtp string // listens here
	log  string
	conf string // the directory of main.cf
}

// The accounts that Postfix wants to be different. All are there on any Debian.
const (
	postfixOwner   = "daemon"
	postfixGroup   = "games"
	postfixDefault = "nobody"
)

// startPostfix runs Postfix without DNS, and with short times. transports has lines of
// a transport table, "*" for any other domain. more are further lines of main.cf, which replace
// earlier ones. It ends with the test.
func startPostfix(t *testing.T, transports map[string]string, more ...string) *postfix {
	t.Helper()
	needRoot(t, "Postfix changes the user")
	master := peerCommand(t, "postfix").Path
	peers := filepath.Dir(filepath.Dir(filepath.Dir(master)))
	dir := testDir(t)
	p := &postfix{smtp: freeAddr(t), log: dir + "/maillog", conf: dir + "/conf"}
	table := ""
	for domain, next := range transports {
		table += fmt.Sprintf(" { %s = %s }", domain, next)
	}
	conf := p.conf
	makeDirs(t, 0o755, conf, dir+"/queue")
	writeFile(t, conf+"/main.cf", withoutReplaced(fmt.Sprintf(`compatibility_level = 3.6
import_environment = MAIL_CONFIG MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME TZ LD_LIBRARY_PATH
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = %[2]s/lib/postfix/sbin
command_directory = %[2]s/sbin
shlib_directory = %[2]s/lib/postfix
meta_directory = %[3]s
maillog_file = %[4]s
maillog_file_prefixes = /
mail_owner = %[5]s
setgid_group = %[6]s
default_privs = %[7]s
myhostname = postfix.test
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_authorized_verp_clients = 127.0.0.1
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtp_tls_security_level = none
delay_warning_time = 1s
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
transport_maps = inline:{%[8]s }
%[9]s
`, dir, filepath.Join(peers, "usr"), filepath.Join(peers, "etc/postfix"), p.log, postfixOwner, postfixGroup, postfixDefault, table, strings.Join(more, "\n"))))
	writeFile(t, conf+"/master.cf", p.smtp+` inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
discard unix - - n - - discard
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
`)
	queueDirs(t, dir)
	p.run(t, peerCommand(t, "../lib/postfix/sbin/master", "-c", conf, "-d"))
	return p
}

// withoutReplaced leaves out the lines of a main.cf that later ones replace. Each process of Postfix would warn of each of them when
// it starts, postlogd through the socket that it reads itself: it waits for ever when that is full.
func withoutReplaced(conf string) string {
	lines := strings.Split(conf, "\n")
	last := map[string]int{}
	name := func(line string) string {
		n, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(n)
	}
	for i, line := range lines {
		last[name(line)] = i
	}
	kept := lines[:0]
	for i, line := range lines {
		if last[name(line)] == i {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n") + "\n"
}

func makeDirs(t *testing.T, mode os.FileMode, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
}

// queueDirs makes Postfix's directories as "postfix set-permissions" would.
func queueDirs(t *testing.T, dir string) {
	t.Helper()
	owner, err := user.Lookup(postfixOwner)
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroup(postfixGroup)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(group.Gid)
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace", "../data"} {
		d := filepath.Join(dir, "queue", name)
		makeDirs(t, 0o700, d)
		if err := os.Chown(d, uid, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"public": 0o710, "maildrop": 0o730} {
		d := filepath.Join(dir, "queue", name)
		makeDirs(t, mode, d)
		if err := os.Chown(d, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	makeDirs(t, 0o755, dir+"/queue/pid")
}

// run starts the master and waits until it greets.
func (p *postfix) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends its process group
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // the master ends its children
		limit := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		limit.Stop()
		if t.Failed() {
			t.Logf("end of Postfix's log:\n%s", tail(p.log, 30))
		}
	})
	must(t, func() error {
		// An smtpd waits an hour for a Dovecot that does not answer; the next one asks again.
		k, err := dialFor(p.smtp, 15*time.Second)
		if err == nil {
			k.close()
		}
		return err
	})
}
