package migrate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta1/mta/migrate/postfix"
)

const basicMaster = "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\nlmtp unix - - y - - lmtp\n"

// translate translates a configuration that stands in a directory of the test.
func translate(t *testing.T, main, master string) *Result {
	t.Helper()
	if master == "" {
		master = basicMaster
	}
	c, err := postfix.Parse(strings.NewReader(main), strings.NewReader(master))
	if err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\njane:x:1000:1000::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Postfix(c, Options{Hostname: "host.example.org", Passwd: passwd})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func file(r *Result, name string) string {
	for _, f := range r.Files {
		if f.Name == name {
			return f.Text
		}
	}
	return ""
}

func item(r *Result, parameter string) *Item {
	for i := range r.Report.Items {
		if r.Report.Items[i].Parameter == parameter {
			return &r.Report.Items[i]
		}
	}
	return &Item{}
}

// TestTranslate: what becomes of single settings, in the files and in the report.
func TestTranslate(t *testing.T) {
	for _, c := range []struct {
		name, main, master string
		files              map[string][]string // lines that must be there; with ! in front that must not
		groups             map[string]Group
		notes              map[string]string
	}{
		{
			name: "limits and times",
			main: "message_size_limit = 52428800\nsmtpd_timeout = 100\nminimal_backoff_time = 10m\nmaximal_queue_lifetime = 3\ndelay_warning_time = 4\nhopcount_limit = x\nsmtpd_client_connection_rate_limit = 0\n",
			files: map[string][]string{"meta1.conf": {
				"message_size_max = 52428800B;  # main.cf:1 message_size_limit", "IO_timeout = 100s;", "retry_delay_min = 10m;", "default = 3d;", "default = 4h;", "!hops_max", "connection_rate_max = 1000000;",
			}},
			groups: map[string]Group{"message_size_limit": Carried, "hopcount_limit": NotCarried, "smtpd_client_connection_rate_limit": Different},
		},
		{
			name: "relay domains and networks",
			main: "relay_domains = example.com, .sub.example\nmynetworks = 10.0.0.0/8, 192.0.2.0/30 [2001:db8::]/64 !10.1.2.3 10.128.0.0/1\n",
			files: map[string][]string{"access": {
				"to:@example.com  relay", "to:@.example.com  relay", "to:@.sub.example  relay", "!to:@sub.example ", "cltaddr:10.  quick:relay", "cltaddr:192.0.2.3  quick:relay",
				"!cltaddr:192.0.2.4 ", "cltaddr:2001:db8:0:0:  quick:relay", "cltaddr:10.1.2.3  cont",
			}},
			groups: map[string]Group{"relay_domains": Carried, "mynetworks": NotCarried}, // 10.128.0.0/1 is no network
		},
		{
			name:   "recipients of relay domains",
			main:   "relay_domains = example.com\nrelay_recipient_maps = inline:{ info@example.com=x, jane@other.example=x }\n",
			files:  map[string][]string{"access": {"to:info@example.com  relay", "!to:@example.com ", "!other.example"}},
			groups: map[string]Group{"relay_recipient_maps": Different},
		},
		{
			name: "virtual domains by LMTP",
			main: "mydestination = localhost\nvirtual_mailbox_domains = example.org\nvirtual_mailbox_maps = inline:{ jane@example.org=x }\nvirtual_transport = lmtp:unix:private/dovecot-lmtp\n" +
				"virtual_alias_maps = inline:{ {info@example.org = jane@example.org, joe@example.net} {@old.example = @example.org} {old.example = x} {all = jane} }\nalias_maps = inline:{ {root = jane, \"|/bin/x\"} }\nrecipient_delimiter = +\n",
			files: map[string][]string{
				"meta1.conf":  {"LMTP_socket = \"/var/spool/postfix/private/dovecot-lmtp\";", "address_delimiter = \"+\";", "name = local_users;", "flags = { all_domains, replace_macros, implicitly_match_detail };", "!lda {"},
				"mt":          {"example.org  lmtp:", "old.example  lmtp:", "localhost  lmtp:"},
				"aliases":     {"info@example.org  <jane@example.org> <joe@example.net>", "@old.example  <${user}${extension}@example.org>", "root@localhost  <jane@host.example.org>", "all@localhost  <jane@host.example.org>", "!root@example.org"},
				"local_users": {"jane@example.org  ok", "jane@localhost  ok", "root@localhost  ok", "!root@example.org"},
			},
			groups: map[string]Group{"alias_maps": NotCarried, "virtual_alias_maps": Carried, "virtual_mailbox_maps": Different, "virtual_transport": Carried},
			notes:  map[string]string{"alias_maps": "is a command"},
		},
		{
			name:  "transports",
			main:  "transport_maps = inline:{ {a.example = smtp:[mx.a.example]:2525} {.b.example = lmtp:inet:127.0.0.1:24} {c.example = error:5.1.2 gone} {d.example = maildrop:} {e.example = smtp:} {* = relay:[192.0.2.1]} {user@f.example = smtp:g.example} }\nrelayhost = h.example\n",
			files: map[string][]string{"mt": {"a.example  { host = mx.a.example; flags = no_MX_lookup; port = 2525; }", ".b.example  { protocol = lmtp; ip = { 127.0.0.1 }; port = 24; }", "e.example  { IPv_Select = IPv4_Preferred; }", ".  { ip = { 192.0.2.1 }; }", "user@f.example  { host = g.example; }"}, "access": {"to:@c.example  error:550 5.1.2 gone"}, "meta1.conf": {"flags = { full_address };"}},
			notes: map[string]string{"transport_maps": "d.example: The transport maildrop"},
		},
		{
			name:  "accounts at other hosts",
			main:  "relayhost = [smtp.example.net]:submission\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = inline:{ { [smtp.example.net]:submission = me:hunter2 } { [192.0.2.1]:25 = x:y } }\nsmtp_tls_security_level = verify\nsmtp_sasl_mechanism_filter = !plain, login\n",
			files: map[string][]string{"accounts": {"smtp.example.net:587  me:hunter2", "[192.0.2.1]:25  x:y"}, "meta1.conf": {"tls = verified;", "mechanisms = { \"!PLAIN\", LOGIN };", "!hunter2"}, "qmgr_conf": {"smtpc_session_conf:  tls_requirements { flags = { verified }; }"}},
		},
		{
			name: "submission",
			main: "smtpd_tls_cert_file = /c.pem\nsmtpd_tls_key_file = /k.pem\nsmtpd_tls_security_level = may\nmua = permit_sasl_authenticated, reject\nsmtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, reject_rbl_client zen.example=127.0.0.[2;4]\n",
			master: basicMaster + `submission inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path=private/auth
  -o smtpd_recipient_restrictions= -o { smtpd_relay_restrictions = $mua }
465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_relay_restrictions=permit_sasl_authenticated,reject -o smtpd_recipient_restrictions=
`,
			files: map[string][]string{"meta1.conf": {"smtps mx {", "smtps submission {", "smtps submissions {", "flags = { submission, 8bitmime,", "flags = { smtps, submission, 8bitmime,", "condition == cipher_bits < 1;", "dovecot_socket = \"/var/spool/postfix/private/auth\";", "tag = zen_example;"}, "access": {"zen_example:127.0.0.2  error:554", "zen_example:127.0.0.4", "!zen_example:127.0.0.3"}},
			groups: map[string]Group{
				"mua": NotNeeded, "smtpd_relay_restrictions": Carried, "submission/inet": Carried,
			},
		},
		{
			name:   "access tables",
			main:   "smtpd_sender_restrictions = check_sender_access inline:{ {spam.example = REJECT go away} {ok@x.example = OK} {hold@x.example = HOLD} {joe@ = 450 wait} }\nsmtpd_client_restrictions = check_client_access inline:{ {192.0.2 = REJECT} {bad.example = 5.7.1 no} {host.example = reject}}, reject_unknown_client_hostname\nparent_domain_matches_subdomains = smtpd_access_maps\n",
			files:  map[string][]string{"access": {"from:@spam.example  error:554 5.7.1 go away", "from:@.spam.example  error:", "from:ok@x.example  ok", "!hold@x", "from:joe  error:450 4.7.1 wait", "cltaddr:192.0.2.  error:554", "cltname:host.example.  error:554", "cltname:.host.example.  error:", "cltresolve:no  error:550"}, "meta1.conf": {"access, delay_checks"}},
			groups: map[string]Group{"smtpd_sender_restrictions": NotCarried},
			notes:  map[string]string{"smtpd_sender_restrictions": "hold@x.example: HOLD", "smtpd_client_restrictions": "bad.example"},
		},
		{
			name:   "what meta1 does in any case",
			main:   "append_dot_mydomain = no\nheader_checks =\nbiff = no\nswap_bangpath = yes\nreadme_directory = no\nhtml_directory = no\nno_such_thing = 1\nbiff = yes\n",
			groups: map[string]Group{"append_dot_mydomain": Carried, "header_checks": Carried, "biff": NotNeeded, "swap_bangpath": NotCarried, "readme_directory": NotNeeded, "no_such_thing": Unknown},
		},
		{
			name:  "milters and policy services",
			main:  "smtpd_milters = inet:localhost:8891, { unix:/opendkim.sock, default_action=reject, command_timeout=5s } inet:filter.example:1\nmilter_default_action = accept\nsmtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination, check_policy_service unix:private/policy\nsmtpd_policy_service_default_action = DUNNO\n",
			files: map[string][]string{"meta1.conf": {"path = \"/var/spool/postfix/opendkim.sock\";", "timeout = 5s;", "flags = { reject };", "port = 8891;", "path = \"/var/spool/postfix/private/policy\";", "on_failure = accept;", "!relaying_clients"}},
			notes: map[string]string{"smtpd_milters": "filter.example:1"},
		},
		{
			name:   "TLS",
			main:   "smtpd_tls_chain_files = /key.key, /cert.pem\nsmtpd_tls_security_level = may\nsmtpd_tls_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1\nsmtp_tls_security_level = encrypt\nsmtp_tls_protocols = >=TLSv1.3\nsmtp_tls_policy_maps = inline:{ {a.example = secure} {[mx.b.example]:25 = verify match=b.example} {c.example = dane-only} {d.example = fingerprint match=AA:BB} }\n",
			files:  map[string][]string{"meta1.conf": {"cert_file = \"/cert.pem\";", "options = { no_TLSv1, no_TLSv1_1 };", "options = { no_TLSv1, no_TLSv1_1, no_TLSv1_2 };", "flags = { lookup_session_conf, lookup_rcpt_conf };", "flags = { Use_DNSSEC };"}, "qmgr_conf": {"smtpc_session_conf:  tls_requirements { flags = { encrypted }; }", "smtpc_session_conf:mx.b.example  tls_requirements { flags = { verified }; hostnames = { b.example }; }"}, "access": {"smtpc_rcpt_conf:@a.example  tls_requirements { flags = { verified }; hostnames = { a.example, \".a.example\" }; }", "smtpc_rcpt_conf:@d.example  tls_requirements { flags = { encrypted }; cert_fps = { \"AA:BB\" }; }"}},
			groups: map[string]Group{"smtpd_tls_protocols": Carried},
		},
		{
			name:   "postscreen",
			main:   "postscreen_greet_action = enforce\npostscreen_dnsbl_action = enforce\npostscreen_dnsbl_threshold = 2\npostscreen_dnsbl_sites = a.example*2, b.example, c.example*-1\npostscreen_access_list = permit_mynetworks\npostscreen_blacklist_action = drop\n",
			master: "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\ndnsblog unix - - y - 0 dnsblog\n",
			files:  map[string][]string{"meta1.conf": {"greet_pause = ", "domain = a.example;", "!b.example"}},
			groups: map[string]Group{"postscreen_dnsbl_sites": NotCarried, "postscreen_blacklist_action": NotCarried, "smtp/inet": Different, "dnsblog/unix": NotNeeded},
		},
		{
			name:   "a host without a server",
			main:   "relayhost = [192.0.2.1]\ninet_interfaces = loopback-only\nmydestination =\nlocal_transport = error:local delivery is disabled\n",
			master: "smtp unix - - y - - smtp\nmaildrop unix - n n - - pipe flags=x argv=/usr/bin/maildrop\n",
			files:  map[string][]string{"meta1.conf": {"smtps local {", "address = 127.0.0.1;"}, "mt": {".  { ip = { 192.0.2.1 }; }"}, "access": {"cltaddr:127.  quick:relay"}},
			groups: map[string]Group{"mydestination": Carried, "maildrop/unix": NotNeeded, "local_transport": NotNeeded},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := translate(t, c.main, c.master)
			for name, wants := range c.files {
				got := file(r, name)
				for _, want := range wants {
					if rest, not := strings.CutPrefix(want, "!"); not == strings.Contains(got, strings.TrimPrefix(want, "!")) {
						t.Errorf("%s: %q (not: %v)\n%s", name, rest, not, got)
					}
				}
			}
			for name, want := range c.groups {
				if it := item(r, name); it.Group != want {
					t.Errorf("%s is %q, want %q: %q", name, it.Group, want, it.Notes)
				}
			}
			for name, want := range c.notes {
				if it := item(r, name); !strings.Contains(strings.Join(it.Notes, "\n"), want) {
					t.Errorf("%s: %q, want %q", name, it.Notes, want)
				}
			}
		})
	}
}

// TestEveryParameterIsReported sets everything that Postfix knows to several values: each is in
// exactly one group, and none is unknown.
func TestEveryParameterIsReported(t *testing.T) {
	for _, value := range []string{"yes", "no", "12345", "5s", "hash:/nowhere/x", "some words, here", "", "$myhostname", "inet:localhost:1"} {
		var main strings.Builder
		known := postfix.New().Defaults
		for name := range known {
			fmt.Fprintf(&main, "%s = %s\n", name, value)
		}
		if value == "$myhostname" {
			main.WriteString("myhostname = mx.example.org\n")
		}
		c, err := postfix.Parse(strings.NewReader(main.String()), strings.NewReader(basicMaster))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Postfix(c, Options{Hostname: "h.example", Passwd: "/dev/null"})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, it := range r.Report.Items {
			if it.Service == "" && it.File == "main.cf" {
				seen[it.Parameter]++
			}
			if it.Group == Unknown || !slices.Contains(groups, it.Group) {
				t.Errorf("%s = %s is in group %q", it.Parameter, value, it.Group)
			}
			if it.Group == NotCarried && (len(it.Notes) == 0 || it.Notes[0] == "") {
				t.Errorf("%s = %s: no reason", it.Parameter, value)
			}
		}
		for name := range known {
			if want := 1 + strings.Count(main.String(), "\n"+name+" = mx"); seen[name] != want {
				t.Errorf("%s = %s is reported %d times", name, value, seen[name])
			}
		}
	}
}

// TestSecretsStayHidden: no password is in the report or in a file that others may read.
func TestSecretsStayHidden(t *testing.T) {
	r := translate(t, "relayhost = [a.example]\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = inline:{ { [a.example] = me:hunter2 } { bad key = hunter2 } }, hunter2\nlmtp_sasl_password_maps = static:hunter2\n", "")
	if text := r.Report.Text(true); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
	for _, f := range r.Files {
		if strings.Contains(f.Text, "hunter2") && !f.Secret {
			t.Errorf("%s:\n%s", f.Name, f.Text)
		}
	}
	for _, it := range r.Report.Items {
		if strings.Contains(fmt.Sprintf("%+v", it), "hunter2") {
			t.Errorf("%+v", it)
		}
	}
}

func TestExpansionError(t *testing.T) {
	c, err := postfix.Parse(strings.NewReader("a = 1\nmynetworks = ${x\n"), strings.NewReader(basicMaster))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Postfix(c, Options{}); err == nil || !strings.Contains(err.Error(), "main.cf:2: mynetworks") {
		t.Error(err)
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	files := []File{{Name: "a", Text: "1"}, {Name: "b", Text: "2", Secret: true}}
	if err := Write(dir, files, false); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "b")); err != nil || info.Mode() != 0o600 {
		t.Fatal(info, err)
	}
	files[0].Text = "3"
	files = append(files, File{Name: "c"})
	if err := Write(dir, files, false); err == nil || !strings.Contains(err.Error(), "a: file") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "c")); err == nil {
		t.Error("c was written though a was there")
	}
	if err := Write(dir, files, true); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != "3" {
		t.Errorf("%q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNetworkKeys(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8": "10.", "192.0.2.0/23": "192.0.2. 192.0.3.", "192.0.2.0/22": "!", "192.0.2.128/31": "192.0.2.128 192.0.2.129", "172.16.0.0/14": "172.16. 172.17. 172.18. 172.19.", "2001:db8::/31": "2001:db8: 2001:db9:", "2001:db8::1/32": "!", "2001:db8::/46": "2001:db8:0: 2001:db8:1: 2001:db8:2: 2001:db8:3:",
		"::1": "0:0:0:0:0:0:0:1", "[::ffff:10.0.0.0]/104": "10.", "0.0.0.0/0": "", "2001:db8::/33": "",
	} {
		p, err := postfix.ParseNet(in)
		if want == "!" { // bits behind the network
			if err == nil {
				t.Errorf("%s is taken for a network", in)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		keys, _ := networkKeys(p)
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for in, want := range map[string]string{
		`^(a|b)\.example$`: `/^from:(a|b)\.example$/ei ok`, `spam`: `/^from:.*spam/ei ok`, `a|b`: `/^from:.*(a|b)/ei ok`, `^a/b`: `~^from:a/b~ei ok`, `\d+@`: `/^from:.*[0-9]+@/ei ok`,
		`^a|^b`: "", `(?!x)`: "", `a^b`: "",
	} {
		got, err := patternLine("from:", postfix.Entry{Key: in, Pattern: true}, "ok")
		if got != want || err == nil != (want != "") {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}
