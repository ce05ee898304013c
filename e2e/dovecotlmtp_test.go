package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// dovecotLMTPConfig is for its directory, the program of service lmtp, its user, its group and
// its port.
const dovecotLMTPConfig = `
protocols = lmtp
version_ignore = yes
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
default_internal_user = %[3]s
default_internal_group = %[4]s
default_login_user = %[3]s
first_valid_uid = 1
ssl = no
mail_location = maildir:%[1]s/mail/%%u
auth_username_format = %%n
userdb {
  driver = passwd-file
  args = %[1]s/users
}
passdb {
  driver = passwd-file
  args = %[1]s/users
}
plugin {
  quota = count:all
  quota_vsizes = yes
  quota_grace = 0
}
protocol lmtp {
  mail_plugins = quota
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
service lmtp {
  executable = %[2]s
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[5]s
  }
}
`

// startDovecotLMTP runs Dovecot's LMTP server with the users jane and full, who has no room, until
// the test ends.
func startDovecotLMTP(t *testing.T) (dir, addr string) {
	t.Helper()
	needRoot(t, "Dovecot changes the user")
	cache := os.Getenv("META1_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/meta1-test"
	}
	program := filepath.Join(cache, "peers/usr/lib/dovecot/lmtp")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%s is missing; \"make needs\" installs it", program)
	}
	dir, addr = testDir(t), freeAddr(t)
	makeDirs(t, 0o755, dir+"/run", dir+"/state")
	makeDirs(t, 0o777, dir+"/mail")
	writeFile(t, dir+"/conf", fmt.Sprintf(dovecotLMTPConfig, dir, program, "nobody", "nogroup", port(t, addr)))
	writeFile(t, dir+"/users", fmt.Sprintf("jane:{PLAIN}x:65534:65534::%[1]s/home::\nfull:{PLAIN}x:65534:65534::%[1]s/home::userdb_quota_rule=*:bytes=10\n", dir))
	cmd := peerCommand(t, "dovecot", "-F", "-c", dir+"/conf")
	cmd.Stderr = os.Stderr
	runPeer(t, cmd, dir+"/log")
	must(t, func() error {
		k, err := dial(addr)
		if err == nil {
			k.close()
		}
		return err
	})
	return dir, addr
}

// TestDovecotLMTP delivers to Dovecot's LMTP server over its Unix socket and by TCP. Of three
// recipients one is refused at RCPT, one at the final dot, and one gets the message.
func TestDovecotLMTP(t *testing.T) {
	t.Parallel()
	dir, addr := startDovecotLMTP(t)
	bounces := newSink(t, "")
	host, _, _ := strings.Cut(addr, ":")
	m := run(t, settings{
		mailertable: toPort(t, "client.test", bounces.addr) + "unix.test lmtp:\n" + fmt.Sprintf("inet.test %s^lmtp:[%s]\n", port(t, addr), host),
		smtpc:       fmt.Sprintf("LMTP_socket = %q;", dir+"/lmtp"),
	})
	for i, domain := range []string{"unix.test", "inet.test"} {
		msg := testMessage(i, 5000, "jane@"+domain)
		msg.rcpts = append(msg.rcpts, "full@"+domain, "nobody@"+domain)
		if err := sendOne(m.smtp, msg); err != nil {
			t.Fatal(err)
		}
	}
	bounces.waitFor(2)
	m.queueEmpty()
	for _, d := range bounces.arrivals() {
		domain := []string{"unix.test", "inet.test"}[testID(d.data)]
		says(t, string(d.data), "550 5.1.1", "nobody@"+domain, "552 5.2.2", "full@"+domain)
		if strings.Contains(string(d.data), "Final-Recipient: rfc822;jane@") {
			t.Errorf("the DSN says that jane has not got it: %s", d.data)
		}
	}
	arrived, err := filepath.Glob(dir + "/mail/jane/new/*")
	if err != nil || len(arrived) != 2 {
		t.Fatalf("%d messages for jane (%v)", len(arrived), err)
	}
	ids := map[int]bool{}
	for _, file := range arrived {
		ids[testID([]byte(strings.ReplaceAll(readFile(t, file), "\n", "\r\n")))] = true
	}
	if !ids[0] || !ids[1] {
		t.Errorf("messages %v arrived", ids)
	}
	if full, _ := filepath.Glob(dir + "/mail/full/new/*"); len(full) > 0 {
		t.Errorf("%d messages for full", len(full))
	}
	for _, domain := range []string{"unix.test", "inet.test"} {
		for _, words := range [][]string{
			{"event=delivered,", "where=final_dot,", "rcpt=<jane@" + domain + ">", "stat=0"},
			{"event=delivery failed,", "where=final_dot,", "rcpt=<full@" + domain + ">", "stat=552"},
			{"event=delivery failed,", "where=rcpt,", "rcpt=<nobody@" + domain + ">", "stat=550"},
		} {
			must(t, func() error { // the log is written behind the delivery
				if lineWith(readFile(t, m.log), words...) == "" {
					return fmt.Errorf("the log has no line with %q", words)
				}
				return nil
			})
		}
	}
	samples := scrape(t, m.metrics)
	for result, want := range map[string]int{"delivered": 4, "failed": 4} { // with the DSNs
		if got := samples[`meta1_smtpc_recipients_total{result="`+result+`"}`]; got != strconv.Itoa(want) {
			t.Errorf("%s recipients are %s, want %d", got, result, want)
		}
	}
}
