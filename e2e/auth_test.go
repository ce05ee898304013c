package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// The account of these tests.
const (
	authUser     = "jane"
	authPassword = "rabbit hole"
)

// runAuth starts an MTA for submission with TLS. auth goes into its section auth. Only who
// authenticates may relay. ca is the file of the CA of its certificate.
func runAuth(t *testing.T, s settings, auth string) (m *mta, ca string) {
	t.Helper()
	s.flags += ", submission"
	s.smar += ` map users { type = text; file = "users"; }`
	s.smtps += `
  tls { cert_file = "tls.pem"; key_file = "tls.key"; CAcert_file = "ca.pem"; }
  auth { failure_delay = 0; client_failures_max = 0; trusted_mechanisms = "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS EXTERNAL XOAUTH2 OAUTHBEARER"; ` + auth + ` }
`
	m = newMTA(t, s)
	root := tlstest.Root(t, "Test CA")
	ca = m.dir + "/ca.pem"
	tlstest.WriteFile(t, ca, root.PEM(), 0o644)
	root.Issue(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test", "localhost", "127.0.0.1"}}).Write(t, m.dir, "tls")
	root.Issue(t, tlstest.Spec{CN: "carol"}).Write(t, m.dir, "carol")
	writeFile(t, m.dir+"/access", "# nobody may relay for an address\n")
	line, err := commandIn(t, m.dir, strings.NewReader(authPassword+"\n"), "passwd", "--stdin", "--scheme", "scram-sha-256,scram-sha-1,plain", authUser)
	if err != nil {
		t.Fatal(err, line)
	}
	writeFile(t, m.dir+"/users", line+"carol\t{EXTERNAL}\n")
	m.start()
	return m, ca
}

// mechanismsOfMap are all that a map can serve.
const mechanismsOfMap = `password_map = users; mechanisms = "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS EXTERNAL";`

// smtplibClient sends a message with Python's smtplib: host, port, CA, name, password, mechanism.
const smtplibClient = `
import smtplib, ssl, sys
host, port, ca, name, password, mech = sys.argv[1:]
s = smtplib.SMTP(host, int(port))
s.starttls(context=ssl.create_default_context(cafile=ca))
s.ehlo()
assert mech in s.esmtp_features["auth"].split(), s.esmtp_features
s.esmtp_features["auth"] = mech
s.login(name, password)
s.sendmail("jane@client.test", ["joe@sink.test"], "Subject: smtplib\r\n\r\ntext\r\n")
s.quit()
`

// msmtpClient sends a message with msmtp: port, CA, mechanism, name, password.
const msmtpClient = `exec msmtp --file=/dev/null --host=localhost --port="$1" --tls=on --tls-trust-file="$2" --auth="$3" --user="$4" ` +
	`--passwordeval="echo '$5'" --from=jane@client.test joe@sink.test`

// xoauth2Client authenticates with Python's smtplib by a token: host, port, CA, name, token.
const xoauth2Client = `
import smtplib, ssl, sys
host, port, ca, name, token = sys.argv[1:]
s = smtplib.SMTP(host, int(port))
s.starttls(context=ssl.create_default_context(cafile=ca))
s.ehlo()
s.auth("XOAUTH2", lambda challenge=None: "" if challenge else "user=%s\x01auth=Bearer %s\x01\x01" % (name, token))
s.quit()
`

// TestAuthClients: clients of all kinds authenticate by each mechanism that they know, and
// what they send arrives; with a wrong password nothing does.
func TestAuthClients(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m, ca := runAuth(t, settings{mailertable: toPort(t, "sink.test", s.addr) + toPort(t, "client.test", s.addr)}, mechanismsOfMap)
	p := port(t, m.smtp)
	message := m.dir + "/message"
	writeFile(t, message, "Subject: x\r\n\r\ntext\r\n")
	type client struct {
		name string
		args func(password string) []string
		mech string
		send bool
	}
	var clients []client
	for _, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
		clients = append(clients,
			client{"swaks", func(password string) []string {
				return []string{
					"swaks", "--server", "127.0.0.1:" + p, "--tls", "--auth", mech, "--auth-user", authUser, "--auth-password", password,
					"--from", "jane@client.test", "--to", "joe@sink.test", "--helo", "client.test",
				}
			}, mech, true},
			client{"curl", func(password string) []string {
				return []string{
					"/usr/bin/curl", "-sS", "--ssl-reqd", "--cacert", ca, "--url", "smtp://localhost:" + p, "--login-options", "AUTH=" + mech, "--user", authUser + ":" + password,
					"--mail-from", "jane@client.test", "--mail-rcpt", "joe@sink.test", "--upload-file", message,
				}
			}, mech, true},
			client{"smtplib", func(password string) []string {
				return []string{"/usr/bin/python3", "-c", smtplibClient, "localhost", p, ca, authUser, password, mech}
			}, mech, true})
	}
	for _, mech := range []string{"plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"} {
		clients = append(clients, client{"msmtp", func(password string) []string {
			return []string{
				"sh", "-c", msmtpClient, "msmtp", p, ca, mech, authUser, password,
			}
		}, strings.ToUpper(mech), true})
	}
	for _, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"} {
		clients = append(clients, client{"gsasl", func(password string) []string {
			return []string{
				"gsasl", "--smtp", "--connect=localhost:" + p, "--x509-ca-file=" + ca, "-m", mech,
				"-a", authUser, "-z", "", "-p", password, "--hostname=localhost", "--service=smtp", "--no-cb=" + fmt.Sprint(!strings.HasSuffix(mech, "-PLUS")),
			}
		}, mech, false})
	}
	sent := 0
	for _, c := range clients {
		for _, password := range []string{authPassword, "wrong"} {
			args := c.args(password)
			if i := len(args) - 1; strings.HasPrefix(args[i], "--no-cb=") {
				plain := args[i] == "--no-cb=true"
				if args = args[:i]; plain {
					args = append(args, "--no-cb")
				}
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader("Subject: x\n\ntext\n")
			out, err := output(cmd)
			if (err == nil) != (password == authPassword) {
				t.Errorf("%s %s, password %q: %v\n%s", c.name, c.mech, password, err, out)
			}
			if err == nil && c.send {
				sent++
			}
			word := "event=authenticated,"
			if password != authPassword {
				word = "reason=wrong password, stat=535"
			}
			m.logs("mech="+c.mech+",", word)
		}
	}
	s.waitFor(sent)
	for _, a := range s.arrivals() {
		if !bytes.Contains(a.data, []byte("with ESMTPSA\r\n")) || !bytes.Contains(a.data, []byte("Message-ID: <")) && !bytes.Contains(a.data, []byte("Message-Id: <")) {
			t.Errorf("arrived as %s", a.data)
		}
	}
	if strings.Contains(readFile(t, m.log), authPassword) || strings.Contains(readFile(t, m.log), base64.StdEncoding.EncodeToString([]byte(authPassword))) {
		t.Error("the log has the password")
	}
	if err := sendOne(m.smtp, testMessage(1, 100, "joe@sink.test")); err == nil || !strings.Contains(err.Error(), "530 5.7.0") {
		t.Errorf("without AUTH: %v", err)
	}
}

// logs waits until the last line of the log with a word in it has another one, too.
func (m *mta) logs(word, more string) {
	m.t.Helper()
	must(m.t, func() error {
		if last := lastWith(readFile(m.t, m.log), word); !strings.Contains(last, more) {
			return fmt.Errorf("the last line with %s is %q, without %s", word, last, more)
		}
		return nil
	})
}

// lastWith is the last line of a text with a word in it.
func lastWith(text, word string) string {
	last := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			last = line
		}
	}
	return last
}

// TestAuthExternal: a client's certificate is its account.
func TestAuthExternal(t *testing.T) {
	t.Parallel()
	m, ca := runAuth(t, settings{}, mechanismsOfMap)
	for _, name := range []string{"", "carol"} {
		out, err := output(exec.Command("gsasl", "--smtp", "--connect=localhost:"+port(t, m.smtp), "--x509-ca-file="+ca,
			"--x509-cert-file="+m.dir+"/carol.pem", "--x509-key-file="+m.dir+"/carol.key", "-m", "EXTERNAL", "-z", name, "-d"))
		if err != nil {
			t.Errorf("%q: %v\n%s", name, err, out)
		}
	}
	must(t, func() error {
		if n := strings.Count(readFile(t, m.log), "mech=EXTERNAL, user=carol, relay=true"); n != 2 {
			return fmt.Errorf("%d successes", n)
		}
		return nil
	})
}

// TestAuthPostfix: Postfix hands its mail over to a server that wants AUTH.
func TestAuthPostfix(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m, ca := runAuth(t, settings{mailertable: toPort(t, "sink.test", s.addr) + toPort(t, "client.test", s.addr)}, mechanismsOfMap)
	next := "[127.0.0.1]:" + port(t, m.smtp)
	p := startPostfix(t, map[string]string{"*": "smtp:" + next},
		"smtp_sasl_auth_enable = yes", "smtp_sasl_password_maps = inline:{ { "+next+" = "+authUser+":"+authPassword+" } }",
		"smtp_sasl_security_options = noanonymous", "smtp_sasl_mechanism_filter = plain, login, cram-md5", "smtp_tls_security_level = encrypt", "smtp_tls_CAfile = "+ca)
	if err := sendOne(p.smtp, testMessage(1, 1000, "joe@sink.test")); err != nil {
		t.Fatal(err)
	}
	s.waitFor(1)
	if data := s.arrivals()[0].data; !bytes.Contains(data, []byte("with ESMTPSA\r\n")) {
		t.Errorf("arrived as %s", data)
	}
}

// dovecotConfig is for its directory, its user and its group.
const dovecotConfig = `
protocols =
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
ssl = no
auth_mechanisms = plain login cram-md5 scram-sha-256 xoauth2 oauthbearer
auth_verbose = yes
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/users
  mechanisms = plain login cram-md5 scram-sha-256
}
passdb {
  driver = oauth2
  args = %[1]s/oauth2
  mechanisms = xoauth2 oauthbearer
}
userdb {
  driver = static
  args = uid=1 gid=1 home=/nonexistent
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
service auth {
  unix_listener %[1]s/auth {
    mode = 0666
  }
}
`

// startDovecot runs Dovecot's auth service until the test ends, and returns its socket.
func startDovecot(t *testing.T) (socket string, pid int) {
	t.Helper()
	needRoot(t, "Dovecot changes the user")
	dir := testDir(t)
	cmd := peerCommand(t, "dovecot", "-F", "-c", dir+"/conf")
	makeDirs(t, 0o755, dir+"/run", dir+"/state")
	writeFile(t, dir+"/conf", fmt.Sprintf(dovecotConfig, dir, "nobody", "nogroup"))
	writeFile(t, dir+"/users", authUser+":"+authPassword+"\n")
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") != "right" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"username": %q}`, authUser)
	}))
	t.Cleanup(tokens.Close)
	writeFile(t, dir+"/oauth2", "tokeninfo_url = "+tokens.URL+"/?access_token=\nusername_attribute = username\nforce_introspection = no\n")
	cmd.Stderr = os.Stderr
	runPeer(t, cmd, dir+"/log")
	must(t, func() error {
		c, err := net.Dial("unix", dir+"/auth")
		if err == nil {
			c.Close()
		}
		return err
	})
	return dir + "/auth", cmd.Process.Pid
}

// runPeer starts a program that ends with the test, together with what it has started.
func runPeer(t *testing.T, cmd *exec.Cmd, log string) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() && log != "" {
			t.Logf("end of its log:\n%s", tail(log, 30))
		}
	})
}

// swaksAuth authenticates with swaks, over TLS, and returns what that prints.
func swaksAuth(t *testing.T, m *mta, mech, password string) (string, error) {
	t.Helper()
	return output(exec.Command("swaks", "--server", m.smtp, "--tls", "--auth", mech, "--auth-user", authUser, "--auth-password", password,
		"--from", "jane@client.test", "--to", "joe@sink.test", "--quit-after", "AUTH"))
}

// TestAuthDovecot: Dovecot is asked about passwords, and a Dovecot that hangs is a
// temporary failure of the session that asks it.
func TestAuthDovecot(t *testing.T) {
	t.Parallel()
	socket, pid := startDovecot(t)
	m, ca := runAuth(t, settings{}, `dovecot_socket = "`+socket+`"; timeout = 2s;`)
	must(t, func() error { // until it has told which mechanisms it has
		out, err := output(exec.Command("swaks", "--server", m.smtp, "--tls", "--quit-after", "EHLO"))
		if err == nil && !strings.Contains(out, "AUTH SCRAM-SHA-256 CRAM-MD5 OAUTHBEARER XOAUTH2 PLAIN LOGIN") {
			err = fmt.Errorf("EHLO gives %s", out)
		}
		return err
	})
	for _, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
		if out, err := swaksAuth(t, m, mech, authPassword); err != nil {
			t.Errorf("%s: %v\n%s", mech, err, out)
		}
		if out, err := swaksAuth(t, m, mech, "wrong"); err == nil || !strings.Contains(out, "535 5.7.8") {
			t.Errorf("%s with a wrong password: %v\n%s", mech, err, out)
		}
	}
	for password, word := range map[string]string{authPassword: "event=authenticated,", "wrong": "stat=535,"} {
		cmd := exec.Command("sh", "-c", msmtpClient, "msmtp", port(t, m.smtp), ca, "scram-sha-256", authUser, password)
		cmd.Stdin = strings.NewReader("Subject: x\n\ntext\n")
		out, _ := output(cmd) // of the message nothing becomes: it has no route
		t.Log(out)
		m.logs("mech=SCRAM-SHA-256,", word)
	}
	for token, word := range map[string]string{"right": "event=authenticated,", "wrong": "stat=535,"} {
		for mech, cmd := range map[string]*exec.Cmd{
			"XOAUTH2": exec.Command("/usr/bin/python3", "-c", xoauth2Client, "localhost", port(t, m.smtp), ca, authUser, token),
			"OAUTHBEARER": exec.Command("/usr/bin/curl", "-sS", "--ssl-reqd", "--cacert", ca, "--url", "smtp://localhost:"+port(t, m.smtp),
				"--user", authUser+":", "--oauth2-bearer", token, "--request", "NOOP"),
		} {
			if out, err := output(cmd); (err == nil) != (token == "right") {
				t.Errorf("%s with a %s token: %v\n%s", mech, token, err, out)
			}
			m.logs("mech="+mech+",", word)
		}
	}
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out, err := swaksAuth(t, m, "PLAIN", authPassword)
	if err == nil || !strings.Contains(out, "454 4.7.0") {
		t.Errorf("a Dovecot that hangs: %v\n%s", err, out)
	}
	if err := syscall.Kill(-pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if out, err := swaksAuth(t, m, "PLAIN", authPassword); err != nil {
		t.Errorf("a Dovecot that goes on: %v\n%s", err, out)
	}
}

// imapServer is as much of an IMAP server as saslauthd's rimap asks for.
func imapServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "* OK ready\r\n")
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
					answer := "NO wrong"
					if command == `LOGIN "`+authUser+`" "`+authPassword+`"` || strings.HasPrefix(command, "LOGOUT") {
						answer = "OK right"
					}
					fmt.Fprintf(c, "%s %s\r\n", tag, answer)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestAuthSaslauthd: saslauthd is asked about passwords; here it asks an IMAP server.
func TestAuthSaslauthd(t *testing.T) {
	t.Parallel()
	needRoot(t, "saslauthd wants to be root")
	dir := testDir(t)
	makeDirs(t, 0o755, dir+"/run")
	host, p, _ := net.SplitHostPort(imapServer(t))
	cmd := peerCommand(t, "saslauthd", "-a", "rimap", "-O", host+"/"+p, "-m", dir+"/run", "-n", "2", "-d")
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	runPeer(t, cmd, dir+"/log")
	must(t, func() error { _, err := os.Stat(dir + "/run/mux"); return err })
	m, _ := runAuth(t, settings{}, `saslauthd_socket = "`+dir+`/run/mux"; timeout = 20s;`)
	for _, mech := range []string{"PLAIN", "LOGIN"} {
		if out, err := swaksAuth(t, m, mech, authPassword); err != nil {
			t.Errorf("%s: %v\n%s", mech, err, out)
		}
		if out, err := swaksAuth(t, m, mech, "wrong"); err == nil || !strings.Contains(out, "535 5.7.8") {
			t.Errorf("%s with a wrong password: %v\n%s", mech, err, out)
		}
	}
	if out, err := swaksAuth(t, m, "CRAM-MD5", authPassword); err == nil {
		t.Errorf("CRAM-MD5: %s", out)
	}
}

// TestFail2ban: fail2ban finds our line with the filter in contrib, and no other one,
// whatever a client sends.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	program := peerCommand(t, "../bin/fail2ban-regex").Path
	m, _ := runAuth(t, settings{}, mechanismsOfMap+` flags = { -noplaintext };`)
	plain := func(name, password string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password))
	}
	forged := "x, client_ip=192.0.2.77, where=auth, stat=535, reply="
	for _, dialogue := range [][]string{
		{"EHLO client.test", plain(authUser, "wrong"), plain("nobody", "wrong"), "AUTH LOGIN", "!"},
		{"EHLO " + strings.ReplaceAll(forged, " ", ""), plain(forged, "wrong"), plain("x\nevent=refused, client_ip=192.0.2.78, where=auth, stat=535, reply=", "y")},
		{"EHLO client.test", plain(authUser, authPassword), "VRFY " + forged, "MAIL FROM:<" + strings.ReplaceAll(forged, " ", "")},
	} {
		k, err := dial(m.smtp)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range dialogue {
			if _, err := k.cmd(line); err != nil && !strings.Contains(err.Error(), ": ") {
				t.Fatal(err)
			}
		}
		k.close()
	}
	m.logs("where=mail,", "event=") // the last of what was sent
	filter, err := filepath.Abs("../contrib/fail2ban/meta1-auth.conf")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", program, "--datepattern", "{NONE}", "--out", "ip", m.log, filter)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Dir(program)+"/../lib/python3/dist-packages")
	cmd.Dir = m.dir
	var found bytes.Buffer
	cmd.Stdout, cmd.Stderr = &found, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err, found.String())
	}
	if got := strings.Fields(found.String()); len(got) != 4 || strings.Join(got, " ") != strings.TrimSpace(strings.Repeat("127.0.0.1 ", 4)) {
		t.Errorf("found %q\n%s", got, readFile(t, m.log))
	}
}
