package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// smartHost is a real mail server that wants a password, and takes mail of those who have it.
type smartHost struct {
	name       string
	addr       string
	account    string
	mechanisms []string // each is tried for itself
	log        string
	mark       string // of a login in its log; %s is the mechanism
}

// TestSmartHosts: mail goes out through Postfix with Dovecot's SASL, through Exim and
// through meta1, by each mechanism that they have, over TLS with a verified certificate. One
// with a wrong password waits; mailq, log and metrics say why, and nothing holds a password.
func TestSmartHosts(t *testing.T) {
	t.Parallel()
	needRoot(t, "the peers change their user")
	root := tlstest.Root(t, "Test CA")
	spec := tlstest.Spec{CN: "127.0.0.1", Names: []string{"127.0.0.1"}}
	ours, dir := newSink(t, ""), testDir(t)
	relay, relayCA := runAuth(t, settings{mailertable: toPort(t, ".", ours.addr)}, mechanismsOfMap)
	hosts := []*smartHost{
		postfixDovecot(t, root.Issue(t, spec)),
		eximAuth(t, root.Issue(t, spec)),
		{
			name: "meta1", addr: relay.smtp, account: authUser, log: relay.log, mark: "event=authenticated, ss_se=*mech=%s,",
			mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"},
		},
	}
	s := settings{qmgr: "smtpc { flags = { lookup_rcpt_conf }; }", smar: `map accounts { type = text; file = "accounts"; }`}
	s.mailertable = toPort(t, "client.test", ours.addr) // the sender's
	access, accounts, wanted := "cltaddr:127. relay\n", "", 0
	s.smtpc = fmt.Sprintf(`log_level = 13; flags = { talk_to_myself }; tls { CAcert_file = "%s/ca.pem"; } auth { password_map = accounts; }`, dir)
	for _, h := range hosts {
		s.mailertable += toPort(t, "."+h.name+".test", h.addr)
		accounts += "[127.0.0.1]:" + port(t, h.addr) + " " + h.account + ":" + authPassword + "\n"
		for _, mechanism := range h.mechanisms {
			class, more := strings.ToLower(h.name+"-"+mechanism), ""
			if mechanism == "XOAUTH2" || mechanism == "OAUTHBEARER" { // its password is the token
				accountsFile := class + "-accounts"
				writeFile(t, dir+"/"+accountsFile, "[127.0.0.1] "+h.account+"\n")
				s.smar += fmt.Sprintf(` map %s { type = text; file = "%s/%s"; }`, accountsFile, dir, accountsFile)
				more = fmt.Sprintf(`auth { password_map = "%s"; mechanisms = %s; token_file = "%s/token"; }`, accountsFile, mechanism, dir)
			} else {
				more = fmt.Sprintf(`auth { password_map = accounts; mechanisms = %q; }`, mechanism)
			}
			s.smtpc += fmt.Sprintf(" session_features %q { %s }", class, more)
			access += fmt.Sprintf("smtpc_rcpt_conf:@%s.%s.test session_feature=%s;\n", strings.ToLower(mechanism), h.name, class)
			wanted++
		}
	}
	writeFile(t, dir+"/ca.pem", string(root.PEM())+readFile(t, relayCA))
	writeFile(t, dir+"/token", "expired\n")
	m := newMTA(t, s)
	writeFile(t, m.dir+"/access", access)
	writeFile(t, m.dir+"/accounts", accounts)
	m.start()
	tokens := 0
	for i, h := range hosts {
		for j, mechanism := range h.mechanisms {
			if err := sendOne(m.smtp, testMessage(100*i+j, 1000, "joe@"+strings.ToLower(mechanism)+"."+h.name+".test")); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(mechanism, "XO") || strings.HasPrefix(mechanism, "OA") {
				tokens++
			}
		}
	}
	must(t, func() error { return m.queueShows(tokens, "refused to authenticate us by ") })
	samples := scrape(t, m.metrics)
	if got := samples[`meta1_smtpc_auth_total{result="granted"}`]; got != strconv.Itoa(wanted-tokens) {
		t.Errorf("%s logins were granted, want %d", got, wanted-tokens)
	}
	if got := samples[`meta1_smtpc_auth_total{result="refused"}`]; got == "0" {
		t.Error("no login was refused")
	}
	writeFile(t, dir+"/token.new", `{"access_token": "right"}`)
	if err := os.Rename(dir+"/token.new", dir+"/token"); err != nil {
		t.Fatal(err)
	}
	m.queueEmpty() // nothing was told to meta1
	for _, h := range hosts {
		for _, mechanism := range h.mechanisms {
			must(t, func() error { return h.served(readFile(t, m.log), readFile(t, h.log), mechanism) }) // logs are written behind the deliveries
		}
	}
	log := readFile(t, m.log)
	for _, secret := range []string{authPassword, "cmFiYml0IGhvbGU", "rabbit", "Bearer"} {
		if strings.Contains(log, secret) {
			t.Errorf("our log has %q", secret)
		}
	}
	out, err := m.command("config", "show", "-f", m.conf)
	if err != nil || strings.Contains(out, "rabbit") || !strings.Contains(out, "password_map") {
		t.Errorf("config show: %v", err)
	}
}

// served returns nil if both logs tell of a login by a mechanism, and ours of a delivery.
func (h *smartHost) served(ours, theirs, mechanism string) error {
	rcpt := "rcpt=<joe@" + strings.ToLower(mechanism) + "." + h.name + ".test>"
	switch words := strings.Split(strings.ReplaceAll(h.mark, "%s", mechanism), "*"); {
	case lineWith(ours, "event=authenticated,", "mech="+mechanism+",", "user="+h.account) == "":
		return fmt.Errorf("%s: no login by %s in our log", h.name, mechanism)
	case lineWith(ours, "event=delivered,", "module=smtpc", rcpt, "auth="+mechanism) == "":
		return fmt.Errorf("%s: no delivery with auth=%s in our log: %q", h.name, mechanism, lineWith(ours, "event=delivered,", rcpt))
	case lineWith(theirs, words...) == "":
		return fmt.Errorf("%s: its log has no %q", h.name, words)
	}
	return nil
}

// postfixAuth is a Postfix that relays for those alone who authenticate over TLS.
func postfixAuth(t *testing.T, cert *tlstest.Cert, more ...string) *postfix {
	t.Helper()
	certFile, keyFile := cert.Write(t, testDir(t), "postfix")
	return startPostfix(t, map[string]string{"*": "discard:"}, append(more,
		"smtpd_tls_security_level = may", "smtpd_tls_cert_file = "+certFile, "smtpd_tls_key_file = "+keyFile, "smtpd_tls_auth_only = yes",
		"smtpd_sasl_auth_enable = yes", "smtpd_relay_restrictions = permit_sasl_authenticated, reject")...)
}

// postfixDovecot asks Dovecot's service auth.
func postfixDovecot(t *testing.T, cert *tlstest.Cert) *smartHost {
	t.Helper()
	socket, _ := startDovecot(t)
	p := postfixAuth(t, cert, "smtpd_sasl_type = dovecot", "smtpd_sasl_path = "+socket)
	return &smartHost{
		name: "dovecot", addr: p.smtp, account: authUser, log: p.log, mark: "sasl_method=%s, sasl_username=" + authUser,
		mechanisms: []string{"SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"},
	}
}

// eximAuth is an Exim with authenticators of its own.
func eximAuth(t *testing.T, cert *tlstest.Cert) *smartHost {
	t.Helper()
	dir := testDir(t)
	certFile, keyFile := cert.Write(t, dir, "exim")
	h := &smartHost{
		name: "exim", addr: freeAddr(t), account: authUser, log: dir + "/mainlog", mark: " A=*:" + authUser + " ",
		mechanisms: []string{"CRAM-MD5", "PLAIN", "LOGIN"},
	}
	conf := dir + "/exim.conf"
	writeFile(t, conf, fmt.Sprintf(`exim_user = root
exim_group = root
primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/%%slog
pid_file_path = %[1]s/pid
local_interfaces = <; [127.0.0.1]:%[2]s
tls_advertise_hosts = *
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
tls_certificate = %[3]s
tls_privatekey = %[4]s
never_users =
acl_smtp_rcpt = all
begin acl
all:
  accept authenticated = *
  deny
begin routers
hole:
  driver = accept
  transport = hole
begin transports
hole:
  driver = appendfile
  file = /dev/null
  user = nobody
begin authenticators
CRAM:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{%[5]s}{%[6]s}fail}
  server_set_id = $auth1
PLAIN:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{%[5]s}}{eq{$auth3}{%[6]s}}}}
  server_set_id = $auth2
LOGIN:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{%[5]s}}{eq{$auth2}{%[6]s}}}}
  server_set_id = $auth1
`, dir, port(t, h.addr), certFile, keyFile, authUser, authPassword))
	daemon(t, peerCommand(t, "exim4", "-bdf", "-C", conf), h.addr)
	return h
}
