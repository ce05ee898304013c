package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// migration is a configuration of Postfix, and envelopes that it and the one that is made of it
// must decide alike.
type migration struct {
	name       string
	transports map[string]string
	main       []string
	dovecot    bool
	envelopes  []envelope
	// lost are parameters that may be in the group of what was not carried over, besides those of the harness.
	lost []string
}

// envelope is one transaction. Where it comes from is said by XCLIENT.
type envelope struct {
	client, name, helo, from, rcpt string
	auth                           bool
	// want is the class of the reply to RCPT, or to what was refused before.
	want byte
	// to is where an accepted message must arrive: inside, outside or nowhere.
	to string
}

const (
	stranger = "192.0.2.77"
	inside   = "10.1.2.3"
)

func migrations(inner, outer, table string) []migration {
	hop := func(addr string) string { h, p, _ := strings.Cut(addr, ":"); return "[" + h + "]:" + p }
	in, out := "smtp:"+hop(inner), "smtp:"+hop(outer)
	relayhost := "relayhost = " + hop(outer)
	return []migration{
		{
			name: "gateway", transports: map[string]string{"inner.test": in, "gone.test": "error:5.1.2 gone", "*": out},
			main: []string{
				relayhost, "relay_domains = inner.test, gone.test", "mynetworks = 10.0.0.0/8, 127.0.0.2/32",
				"smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
				"smtpd_sender_restrictions = permit_mynetworks, check_sender_access texthash:" + table,
				"smtpd_client_restrictions = permit_mynetworks, check_client_access inline:{ {192.0.2.66 = REJECT no} {evil.test = 450 later} }, check_client_access regexp:" + table + ".re",
				"smtpd_helo_restrictions = permit_mynetworks, check_helo_access inline:{ {liar.test = REJECT} }",
				"smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, check_recipient_access inline:{ {secret@inner.test = REJECT} {later@inner.test = 450 4.2.0 wait} }",
				"message_size_limit = 100000",
			},
			envelopes: []envelope{
				{client: stranger, from: "a@sender.test", rcpt: "joe@inner.test", want: '2', to: "inside"},
				{client: stranger, from: "", rcpt: "joe@inner.test", want: '2'},
				{client: stranger, from: "a@sender.test", rcpt: "joe@sub.inner.test", want: '2'},
				{client: stranger, from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "joe@gone.test", want: '5'},
				{client: inside, from: "a@sender.test", rcpt: "joe@other.test", want: '2', to: "outside"},
				{client: inside, from: "a@spam.test", rcpt: "joe@other.test", want: '2'},
				{client: stranger, from: "a@spam.test", rcpt: "joe@inner.test", want: '5'},
				{client: stranger, from: "good@spam.test", rcpt: "joe@inner.test", want: '2'},
				{client: stranger, from: "a@slow.test", rcpt: "joe@inner.test", want: '4'},
				{client: stranger, from: "a@sender.test", rcpt: "secret@inner.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "later@inner.test", want: '4'},
				{client: inside, from: "a@sender.test", rcpt: "secret@inner.test", want: '2'},
				{client: "192.0.2.66", from: "a@sender.test", rcpt: "joe@inner.test", want: '5'},
				{client: stranger, name: "mx.evil.test", from: "a@sender.test", rcpt: "joe@inner.test", want: '4'},
				{client: stranger, name: "evil.test", from: "a@sender.test", rcpt: "joe@inner.test", want: '4'},
				{client: stranger, name: "dyn-1.isp.test", from: "a@sender.test", rcpt: "joe@inner.test", want: '5'},
				{client: stranger, helo: "liar.test", from: "a@sender.test", rcpt: "joe@inner.test", want: '5'},
			},
		},
		{
			name: "null client",
			main: []string{"transport_maps =", relayhost, "inet_interfaces = loopback-only", "mynetworks = 127.0.0.2/32", "relay_domains ="},
			envelopes: []envelope{
				{client: "127.0.0.2", from: "a@sender.test", rcpt: "joe@other.test", want: '2', to: "outside"},
				{client: stranger, from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
			},
		},
		{
			name: "submission", dovecot: true,
			main: []string{
				"transport_maps =", relayhost, "mynetworks = 127.0.0.3/32", "smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot",
				"smtpd_sender_login_maps = inline:{ {" + authUser + "@own.test = " + authUser + "} {boss@own.test = boss} }",
				"smtpd_sender_restrictions = reject_sender_login_mismatch",
				"smtpd_relay_restrictions = permit_sasl_authenticated, reject",
			},
			envelopes: []envelope{
				{client: stranger, from: authUser + "@own.test", rcpt: "joe@other.test", want: '2', to: "outside", auth: true},
				{client: stranger, from: "boss@own.test", rcpt: "joe@other.test", want: '5', auth: true},
				{client: stranger, from: authUser + "@own.test", rcpt: "joe@other.test", want: '5'},
				{client: inside, from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
			},
		},
		{
			name: "backup MX", transports: map[string]string{"main.test": in, "*": out},
			main: []string{"relay_domains = main.test .deep.test", "relay_recipient_maps = inline:{ {joe@main.test = x} {@any.main.test = x} }", "mynetworks = 198.51.100.0/26", "relay_transport = relay"},
			envelopes: []envelope{
				{client: stranger, from: "a@sender.test", rcpt: "joe@main.test", want: '2', to: "inside"},
				{client: stranger, from: "a@sender.test", rcpt: "jim@main.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
				{client: "198.51.100.63", from: "a@sender.test", rcpt: "joe@other.test", want: '2', to: "outside"},
				{client: "198.51.100.64", from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
			},
		},
		{
			name: "virtual domains", transports: map[string]string{"*": out},
			main: []string{
				"virtual_mailbox_domains = boxes.test", "virtual_mailbox_maps = inline:{ {jane@boxes.test = jane/} {joe@boxes.test = joe/} }", "virtual_transport = lmtp:inet:127.0.0.1:9",
				"virtual_alias_maps = inline:{ {aliases.test = x} {info@aliases.test = jane@boxes.test} {far@aliases.test = jane@other.test} {@all.test = jane@other.test} {all.test = x} {sales@boxes.test = joe@other.test} }",
				"mydestination = local.test", "alias_maps = inline:{ {root = jane@other.test} }", "recipient_delimiter = +", "local_recipient_maps = $alias_maps",
			},
			envelopes: []envelope{
				{client: stranger, from: "a@sender.test", rcpt: "jane@boxes.test", want: '2'},
				{client: stranger, from: "a@sender.test", rcpt: "jane+x@boxes.test", want: '2'},
				{client: stranger, from: "a@sender.test", rcpt: "nobody@boxes.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "info@aliases.test", want: '2'},
				{client: stranger, from: "a@sender.test", rcpt: "none@aliases.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "who@all.test", want: '2', to: "outside"},
				{client: stranger, from: "a@sender.test", rcpt: "far@aliases.test", want: '2', to: "outside"},
				{client: stranger, from: "a@sender.test", rcpt: "sales@boxes.test", want: '2', to: "outside"},
				{client: stranger, from: "a@sender.test", rcpt: "root@local.test", want: '2', to: "outside"},
				{client: stranger, from: "a@sender.test", rcpt: "nobody@local.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "root@boxes.test", want: '5'},
				{client: stranger, from: "a@sender.test", rcpt: "joe@other.test", want: '5'},
			},
		},
	}
}

// TestMigratePostfix: a running Postfix and the meta1 that was made of its configuration get the
// same envelopes, decide alike, and send to the same host.
func TestMigratePostfix(t *testing.T) {
	t.Parallel()
	needRoot(t, "Postfix changes the user")
	dir := testDir(t)
	table := dir + "/senders"
	writeFile(t, table, "# senders\nspam.test REJECT no spam\ngood@spam.test OK\nslow.test 450 4.7.1\n  not now\n")
	writeFile(t, table+".re", `/^dyn-[0-9]+\.isp\.test$/ REJECT dynamic`+"\n")
	sinks := map[string]*sink{"inside": newSink(t, ""), "outside": newSink(t, "")}
	for _, c := range migrations(sinks["inside"].addr, sinks["outside"].addr, table) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, sinks)
		})
	}
}

func (c *migration) run(t *testing.T, sinks map[string]*sink) {
	t.Helper()
	lines := append([]string{"smtpd_authorized_xclient_hosts = 127.0.0.1", "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination"}, c.main...)
	if c.dovecot {
		socket, _ := startDovecot(t)
		lines = append(lines, "smtpd_sasl_path = "+socket)
	}
	p := startPostfix(t, c.transports, lines...)
	m := migrated(t, p, c.lost)
	records := map[string]*arrived{"postfix": {addr: p.smtp}, "meta1": {addr: m.smtp}}
	for i, e := range c.envelopes {
		for who, r := range records {
			reply, err := r.play(&e, fmt.Sprintf("%s %s %d", c.name, who, i))
			if err != nil || reply == "" || reply[0] != e.want {
				t.Errorf("%s: %+v: %q, %v, want %c", who, e, reply, err, e.want)
			}
		}
	}
	if t.Failed() {
		return
	}
	for who := range records {
		for i, e := range c.envelopes {
			if e.to == "" {
				continue
			}
			subject := "Subject: " + fmt.Sprintf("%s %s %d", c.name, who, i) + "\r\n"
			must(t, func() error {
				if !slices.ContainsFunc(sinks[e.to].arrivals(), func(a arrival) bool { return strings.Contains(string(a.data), subject) }) {
					return fmt.Errorf("%q has not arrived %s", subject, e.to)
				}
				return nil
			})
		}
	}
}

// arrived is a server that gets envelopes.
type arrived struct{ addr string }

// play sends a message in an envelope, and returns the first reply that refuses, or that to RCPT.
func (r *arrived) play(e *envelope, subject string) (string, error) {
	k, err := dial(r.addr)
	if err != nil {
		return "", err
	}
	defer k.close()
	name, helo := e.name, e.helo
	if name == "" {
		name = "[UNAVAILABLE]"
	}
	if helo == "" {
		helo = "client.sender.test"
	}
	commands := []string{"XCLIENT ADDR=" + e.client + " NAME=" + name, "EHLO " + helo}
	if e.auth {
		commands = append(commands, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+authUser+"\x00"+authPassword)))
	}
	commands = append(commands, "MAIL FROM:<"+e.from+">", "RCPT TO:<"+e.rcpt+">")
	reply := ""
	for _, c := range commands {
		if reply, err = k.cmd(c); err != nil || !positive(reply) {
			return reply, err
		}
	}
	if got, err := k.cmd("DATA"); err != nil || !positive(got) {
		return got, err
	}
	if got, err := k.cmd("Subject: " + subject + "\r\n\r\nbody\r\n."); err != nil || !positive(got) {
		return got, err
	}
	return reply, nil
}

// harnessLost are parameters of the tests' Postfix that have no counterpart: it has no DNS.
var harnessLost = []string{"smtp_host_lookup", "smtp_dns_support_level"}

// migrated starts what meta1 migrate postfix makes of a running Postfix, at a port of its own.
func migrated(t *testing.T, p *postfix, lost []string) *mta {
	t.Helper()
	m := &mta{t: t, dir: testDir(t), smtp: freeAddr(t)}
	m.conf, m.log = m.dir+"/meta1.conf", m.dir+"/log"
	out, err := output(exec.Command(meta1(t), "migrate", "postfix", "--config-dir", p.conf, "--out", m.dir, "--json"))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v, want exit status 1, for there is always something\n%s", err, out)
	}
	var report struct {
		Items []struct{ Parameter, Group, Service string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, it := range report.Items {
		if (it.Group == "not carried over" || it.Group == "unknown") && !slices.Contains(append(harnessLost, lost...), it.Parameter) {
			t.Errorf("%s: %s", it.Parameter, it.Group)
		}
	}
	ns := nameServer(t, map[string][]string{
		"sender.test. A": {"127.0.0.1"}, "spam.test. A": {"127.0.0.1"}, "slow.test. A": {"127.0.0.1"}, "own.test. A": {"127.0.0.1"},
	})
	conf := readFile(t, m.conf)
	for old, changed := range map[string]string{
		"      port = " + port(t, p.smtp) + ";": "",
		"    port = " + port(t, p.smtp) + ";":   "    port = " + port(t, m.smtp) + ";",
		"\nsmar {\n":                            "\nsmar {\n  DNS { nameservers = { 127.0.0.1 }; port = " + ns + "; timeout = 2s; retries = 0; }\n",
		"\nqmgr {\n":                            fmt.Sprintf("\nworking_directory = \"%s/spool\";\n%s\nqmgr {\n", m.dir, account()),
	} {
		conf = strings.Replace(conf, old, changed, 1)
	}
	writeFile(t, m.conf, conf)
	if out, err := m.command("config", "check"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, conf)
	}
	m.start()
	return m
}

// TestMigrateKnowsPostfix: the table has every parameter that postconf of Debian's Postfix knows, and
// reads values as it does.
func TestMigrateKnowsPostfix(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	writeFile(t, dir+"/main.cf", "")
	out, err := peerCommand(t, "postconf", "-c", dir, "-dH").Output() // it warns on standard error
	if err != nil {
		t.Fatal(err, out)
	}
	main := "myhostname = mx.example.org\nlist = $myhostname,\n  # a comment\n  ${list2?{a}:{b}}\n\t${{$compatibility_level} >=level {3.6} ? {new} : {old}}\ncompatibility_level = 3.6\nmydestination = $list\n"
	writeFile(t, dir+"/main.cf", main)
	writeFile(t, dir+"/master.cf", "smtp inet n - n - - smtpd\n  -o { mydestination = x y }\n  -o syslog_name=z\n")
	names := strings.Fields(string(out))
	if len(names) < 800 {
		t.Fatalf("%d names", len(names))
	}
	rows, err := output(exec.Command(meta1(t), append([]string{"migrate", "parameters", "--json"}, names...)...))
	if err != nil {
		t.Fatal(err, rows)
	}
	want, err := peerCommand(t, "postconf", "-c", dir, "-xh", "mydestination").Output()
	if err != nil {
		t.Fatal(err, want)
	}
	if got := strings.Join(strings.Fields(string(want)), " "); got != "mx.example.org, b new" {
		t.Errorf("postconf: %q", got)
	}
	_, err = output(exec.Command(meta1(t), "migrate", "postfix", "--config-dir", dir, "--out", filepath.Join(dir, "new")))
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	mt := readFile(t, dir+"/new/mt")
	for _, d := range []string{"mx.example.org", "b", "new"} {
		if !strings.Contains(mt, "\n"+d+"  ") {
			t.Errorf("mt has no %s:\n%s", d, mt)
		}
	}
	if _, err := os.Stat(dir + "/new/meta1.conf"); err != nil {
		t.Error(err)
	}
}
