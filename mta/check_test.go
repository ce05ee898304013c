package mta

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/account"
	"meta1/mta/exit"
	"meta1/mta/settings"
)

// checkIn checks a configuration in a folder that has an empty mailertable and these
// files.
func checkIn(t *testing.T, text string, files map[string]string) (*Config, *confparse.Result, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/mt", "")
	for name, text := range files {
		if source, ok := strings.CutSuffix(name, ".db"); ok {
			if _, err := maps.Create(dir+"/"+source+".db", strings.NewReader(text), maps.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, dir+"/"+name, text)
	}
	write(t, dir+"/meta1.conf", "allow_root = on; working_directory = \""+dir+"/spool\";\n"+text)
	c, r, err := Check(dir + "/meta1.conf")
	if err == nil {
		r, err = CheckAll(t.Context(), dir+"/meta1.conf")
	}
	if err == nil {
		return c, r, ""
	}
	if exit.Status(err) != exit.Config {
		t.Errorf("exit status %d", exit.Status(err))
	}
	return c, r, strings.ReplaceAll(err.Error(), dir+"/", "")
}

// TestIdleEntries: entries that nobody looks up are told, since they may demand TLS.
func TestIdleEntries(t *testing.T) {
	const server = "smtps { listen_socket { type = inet; port = 25; } } smar { access_map { file = \"access\"; } } "
	const access = "smtpc_rcpt_conf:a.b tls_requirements { flags=verified }\nsmtpc_rcpt_conf:a.c tls_requirements { flags=verified }\n"
	const entry = "smtpc_session_conf:10. tls_requirements { flags=encrypted }\n"
	for text, want := range map[string]string{
		"qmgr { conf = c; }": "access:1:1: entries smtpc_rcpt_conf: have no effect without flag lookup_rcpt_conf of qmgr.smtpc" +
			"; conf: entries smtpc_session_conf: have no effect without flag lookup_session_conf of qmgr.smtpc",
		"qmgr { conf = c; smtpc { flags = { lookup_rcpt_conf, lookup_session_conf }; } }":             "",
		"qmgr { conf = c; smtpc { flags = { lookup_rcpt_conf }; } } smtpc { session_features x { } }": "",
		"qmgr { smtpc { flags = { lookup_rcpt_conf }; } } #":                                          "access:3:1: entries smtpc_session_conf: have no effect in the access map",
		"qmgr { conf = c; smtpc { flags = { lookup_rcpt_conf, lookup_session_conf }; } } # smtps":     "access:3:1: entries smtps_session_conf: have no effect without flag lookup_session_conf of smtps; access:4:1: entries smtps_se_conf: have no effect without flag lookup_session_conf of smtps; access:5:1: entries smtps_rcpt_conf: have no effect without flag rcpt_conf of smtps",
	} {
		files := map[string]string{"access": access, "c": entry}
		if strings.HasSuffix(text, "#") {
			files["access"] += entry
		}
		if strings.HasSuffix(text, "# smtps") {
			files["access"] += "smtps_session_conf:10. tls_requirements { flags=verified }\nsmtps_se_conf:a.b. cont\nsmtps_rcpt_conf:a@b.c flags=greylisting\n"
		}
		_, r, err := checkIn(t, server+text, files)
		var got []string
		for _, w := range r.Warnings {
			if !strings.Contains(w.Message, "have no effect") {
				continue
			}
			message, place := w.Message, filepath.Base(w.Pos.String())
			if _, rest, ok := strings.Cut(message, ": entries "); ok {
				message, place = "entries "+rest, "conf"
			}
			got = append(got, place+": "+message)
		}
		if s := strings.Join(got, "; "); err != "" || !strings.HasPrefix(s, want) || (want == "") != (s == "") {
			t.Errorf("%s: warned %q, %s\nwant %q", text, s, err, want)
		}
	}
}

// TestMapNames has maps whose entries name sections of the configuration.
func TestMapNames(t *testing.T) {
	const conf = `smtps { listen_socket { type = inet; port = 25; } session_features notls { flags = { -starttls }; } }
		smtpc { session_features out { flags = { -starttls }; } }
		qmgr { smtpc { connection_limits low { connections_max = 20; } source net10 { ips = { 10.0.0.1 }; } } `
	const access = `
smar { access_map { file = "access"; } }`
	tests := map[string]struct {
		text, file, entries, want string
	}{
		"right": {"}" + access, "access", "smtps_session_conf:10. session_feature=notls;\nsmtpc_rcpt_conf:a.b session_feature = out;\ncltaddr:10. relay\n", ""},
		"server": {
			"}" + access, "access", "# text\nsmtps_session_conf:10. session_feature=nottls;\n",
			`access:2:1: error: "smtps_session_conf:10.": session_feature "nottls": there is no section session_features "nottls" in smtps`,
		},
		"server's name": {"}" + access, "access", "smtps_se_conf:a.b. session_feature=out;\n", `no section session_features "out" in smtps`},
		"client":        {"}" + access, "access", "smtpc_session_conf:a.b session_feature=notls;\n", `no section session_features "notls" in smtpc`},
		"syntax":        {"}" + access, "access", "smtps_session_conf:10. session_feature;\n", `access:1:1: error: "smtps_session_conf:10.": unexpected`},
		"in a hash map": {
			"} smar { access_map { file = \"access.db\"; } }", "access.db", "smtps_session_conf:10. session_feature=x;\n",
			`meta1.conf:4:`,
		},
		"declared": {
			"} smar { map m { type = text; file = a; } access_map { name = m; } }", "a", "smtps_session_conf:10. session_feature=x;\n",
			`a:1:1: error: "smtps_session_conf:10."`,
		},
		"limits right": {"conf = c; }", "c", "smtpc_conf_rcpt_domain:a.b connection_limits=low;\nsmtpc_conf_cltaddr:10. source = net10;\noci: 5\n", ""},
		"limits":       {"conf = c; }", "c", "smtpc_conf_rcpt_domain:a.b connection_limits=high;\n", `there is no section connection_limits "high" in qmgr.smtpc`},
		"conf":         {"conf = c; }", "c", "oci: many\nocm: 0\n", "2 errors"},
		"conf client":  {"conf = c; }", "c", "smtpc_session_conf: session_feature=notls;\n", `no section session_features "notls" in smtpc`},
		"source":       {"conf = c; }", "c", "smtpc_conf_mail:a@b.c source=netex;\n", `there is no section source "netex" in qmgr.smtpc`},
		"no conf":      {"conf = d; }", "c", "", "meta1.conf:4:112: error: conf of qmgr: d does not exist"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, got := checkIn(t, conf+tt.text, map[string]string{tt.file: tt.entries})
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("error %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestCheckHost has what only this host can tell.
func TestCheckHost(t *testing.T) {
	const smtps = "smtps { listen_socket { type = inet; port = 25; } }\n"
	tests := map[string]struct {
		text, mt, want string
	}{
		"right":        {smtps, "a.b lmtp:\n", ""},
		"rule":         {smtps, "\na.b lmtp:x:y:z\n", "mt:2:1: error: "},
		"two rules":    {smtps, "a.b nonsense:\nc.d nonsense:\n", "mt:2:1: error: "},
		"mailertable":  {smtps + "smar { mailertable { file = none; } }", "", "meta1.conf:3:29: error: file of mailertable: none does not exist"},
		"access.db":    {smtps + "smar { access_map { } }", "", "meta1 createmap -F access.db < access"},
		"socket user":  {smtps + "x { start_action = accept; path = x; listen_socket { type = unix; path = x; user = \"no-such\"; } }", "", `meta1.conf:3:84: error: listen_socket of section x: there is no user "no-such"`},
		"socket group": {smtps + "x { start_action = accept; path = x; listen_socket { type = unix; path = x; group = \"no-such\"; } }", "", `meta1.conf:3:85: error: listen_socket of section x: there is no group "no-such"`},
		"two ports": {
			smtps + "metrics { address = 192.0.2.1; port = 25; }", "",
			"meta1.conf:3:39: error: section metrics listens on 192.0.2.1:25, and so does section smtps on :25 (listen_socket at meta1.conf:2:",
		},
		"two servers": {smtps + "smtps b { id = 1; listen_socket { type = inet6; port = 25; } daemon_address = { \"0.0.0.0:25\" }; }", "", "section smtps b listens on 0.0.0.0:25, and so does section smtps on :25"},
		"two sockets": {smtps + "x { start_action = accept; path = \"/bin/true\"; listen_socket { type = unix; path = \"../spool/./control\"; } }", "", "section qmgr listens on spool/control, and so does section x on "},
		"no program":  {smtps + "x { start_action = wait; path = \"/none/x\"; }", "", "meta1.conf:3:33: error: path of service x: /none/x does not exist"},
		"a directory": {smtps + "x { start_action = wait; path = \"/bin\"; }", "", "path of service x: /bin is not a program"},
		"a text":      {smtps + "x { start_action = wait; path = \"/etc/passwd\"; }", "", "path of service x: /etc/passwd is not executable"},
		"programs":    {smtps + "x { start_action = wait; path = \"/bin/true\"; } y { start_action = wait; path = meta1; }", "", ""},
		"log":         {smtps + "log_file = \"no/log\";", "", "meta1.conf:3:12: error: log_file: spool/no does not exist"},
		"log, link":   {smtps + "log_file = \"/dev/stdout\";", "", "log_file: /dev/stdout is a symbolic link"},
		"all at once": {smtps + "smar { access_map { file = no; } mailertable { file = none; } }", "", "2 errors"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, got := checkIn(t, tt.text, map[string]string{"mt": tt.mt})
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("error %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestCheckUser: an account that does not exist is an error for root, and a warning for others.
func TestCheckUser(t *testing.T) {
	c, r, _ := checkIn(t, "smtps { listen_socket { type = inet; port = 25; } }", nil)
	c.User = "no-such"
	if _, errs := verifyAccount(c, r, true); len(errs) != 1 || !strings.Contains(errs[0].Message, `there is no user "no-such"`) {
		t.Errorf("%v", errs)
	}
	warnings := len(r.Warnings)
	if a, errs := verifyAccount(c, r, false); len(errs) != 0 || a.UID != os.Geteuid() || len(r.Warnings) != warnings+1 {
		t.Errorf("%v, %v, %v", a, errs, r.Warnings)
	}
	c.User, c.AllowRoot = "", false
	if _, err := account.User(settings.DefaultUser); err != nil {
		if _, errs := verifyAccount(c, r, true); len(errs) != 1 || !strings.Contains(errs[0].Message, "there is no account meta1") {
			t.Errorf("%v, %v", errs, r.Warnings)
		}
	}
}

// TestNoConfig: who has no configuration yet learns where to get one.
func TestNoConfig(t *testing.T) {
	file := t.TempDir() + "/none.conf"
	_, _, loaded := settings.Load(file, confparse.LoadOptions{})
	_, _, checked := Check(file)
	for _, err := range []error{loaded, checked} {
		if err == nil || !strings.Contains(err.Error(), "none.conf: error: reading the configuration: no such file or directory\n    name another with -f") {
			t.Errorf("%v", err)
		}
	}
}

// TestReloadChanges changes maps of a running MTA, and what needs a restart; a wrong
// configuration changes nothing.
func TestReloadChanges(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	change := func(smar, hostname string) {
		text := strings.NewReplacer("smar { mailertable { file = mt; }", "smar { "+smar, "mx.test", cmp.Or(hostname, "mx.test")).Replace(config(r.dir, ""))
		write(t, r.dir+"/meta1.conf", text)
	}
	write(t, r.dir+"/other", "a.test lmtp:\nb.test lmtp:\nc.test lmtp:\n")
	change("mailertable { file = other; }", "mx2.test")
	report, err := r.control.Reload(t.Context())
	if err != nil || len(report.Errors) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if got := strings.Join(paths(report.NeedRestart), " "); got != "hostname" {
		t.Errorf("needs a restart: %s", got)
	}
	eventually(t, "the new mailertable", func() bool { return strings.Contains(r.log.String(), "mailertable=3") })

	change("map m { type = text; file = mt; } mailertable { name = m; }", "")
	if report, err = r.control.Reload(t.Context()); err != nil || len(report.Errors)+len(report.NeedRestart) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	change("mailertable { file = nowhere; }", "")
	report, err = r.control.Reload(t.Context())
	if err != nil || len(report.Reloaded) > 0 || len(report.Errors) == 0 || !strings.Contains(report.Errors[0], "meta1.conf:4:") {
		t.Errorf("a wrong configuration: %+v, %v", report, err)
	}
	eventually(t, "the error in the log", func() bool { return strings.Contains(r.log.String(), "nowhere does not exist") })
}

// TestInMaps takes errors apart.
func TestInMaps(t *testing.T) {
	err := errors.Join(&maps.LineError{File: "f", Line: 3, Err: errors.New("bad")}, errors.New("no file"))
	got := confparse.Errors(inMaps(nil, err))
	if len(got) != 2 || got[0].String() != "f:3:1: error: bad" || got[1].String() != "error: no file" {
		t.Errorf("%v", got)
	}
}

// TestMapEntries: rules that would vanish silently, or fail at the first mail, are told
// with their lines; those that are right are not.
func TestMapEntries(t *testing.T) {
	const head = "smtps { listen_socket { type = inet; port = 25; } flags = { access }; }\n"
	for name, tt := range map[string]struct {
		smar  string
		files map[string]string
		want  []string
	}{
		"access": {
			`access_map { file = "access"; } dnsbl { domain = a.b; tag = dnsblex; }`,
			map[string]string{"access": "# rules\nto:bob@a.b REJCT\nfrom:x eror:550 no\n\ncltadr:127. relay\nfrom:a@b error:999 x\nbad: one two\nto:@a.b relay\ndnsblex:127. reject\n"},
			[]string{
				`access:2:1: error: "to:bob@a.b": "REJCT" is no right hand side of to:`, `access:3:1: error: "from:x": "eror:550 no" is no right hand side`,
				`access:5:1: error: "cltadr:127.": it begins with none of the tags of an access map; did you mean cltaddr:?`, `access:6:1: error: "from:a@b": reply code`,
				`access:7:1: error: "bad:": it begins with none of the tags`,
			},
		},
		"access as a hash map": {
			`access_map { file = "access.db"; }`,
			map[string]string{"access.db": "to:bob@a.b REJCT\ncltaddr:127. relay\n"},
			[]string{`error: map access.db, entry "to:bob@a.b": "REJCT"`},
		},
		"in a sequence": {
			`map s { type = sequence; maps = { one, two }; } map one { type = text; file = "one"; } map two { type = text; file = "two"; } access_map { name = s; }`,
			map[string]string{"one": "to:a@b ok\n", "two": "to:a@b okay\n"},
			[]string{`two:1:1: error: "to:a@b": "okay" is no right hand side`},
		},
		"aliases": {
			`aliases { file = "aliases"; }`,
			map[string]string{"aliases": "to: root\nlist: a b\nx: <a@b> c\nlocal: local:\n"},
			[]string{`aliases:2:1: error: "list:": "a b" is not one address`, `aliases:3:1: error: "x:": "c" is not an address in angle brackets`},
		},
		"mailertable": {
			`map m { type = hash; file = "mt.db"; } mailertable { name = m; }`,
			map[string]string{"mt.db": "a.b lmpt:\nc.d esmtp:[127.0.0.1]\n"},
			[]string{`entry "a.b": "lmpt:" is no host: neither esmtp: nor lmtp:`},
		},
		"many": {
			`access_map { file = "access"; }`,
			map[string]string{"access": manyWrong(100)},
			append(slices.Repeat([]string{"is no right hand side of to:"}, maxEntryErrors), "has more wrong entries"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, text := checkIn(t, head+"smar { "+tt.smar+" }", tt.files)
			at := 0
			for _, want := range tt.want {
				i := strings.Index(text[at:], want)
				if i < 0 {
					t.Fatalf("%s\nwant %s", text, want)
				}
				at += i + len(want)
			}
			if n := strings.Count(text, ": error: "); n != len(tt.want) {
				t.Errorf("%s\n%d errors, want %d", text, n, len(tt.want))
			}
		})
	}
}

// manyWrong is n entries that nothing can be done with.
func manyWrong(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "to:user%d@example.org okay\n", i)
	}
	return b.String()
}
