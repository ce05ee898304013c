package mta

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/client"
	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/tlsconf"
	"meta1/mta/tlsconf/tlstest"
	"meta1/resolver"
	"meta1/resolver/srs"
)

// eachOption has for each option of smtpc and smar that a reload changes what to write into its section for
// another value than before. Before it is there what stands before ">>", or all but what follows "~" up to the
// end of its section, or nothing.
var eachOption = map[string]string{
	"smtpc/connect_timeout": "connect_timeout = 7s;", "smtpc/idle_timeout": "idle_timeout = 8s;",
	"smtpc/idle_connections_max": "idle_connections_max = 9;", "smtpc/idle_connections_per_host_max": "idle_connections_per_host_max = 6;",
	"smtpc/stop_timeout": "stop_timeout = 3s;", "smtpc/IO_timeout": "IO_timeout = 7m;", "smtpc/LMTP_socket": "LMTP_socket = other;",
	"smtpc/connect_only_to": "connect_only_to = 192.0.2.7;", "smtpc/remote_port": "remote_port = 2525;",
	"smtpc/smtps": "remote_port = 465; >> remote_port = 465; flags = { smtps };", "smtpc/timing": "flags = { timing };", "smtpc/read_QUIT_reply": "flags = { read_QUIT_reply };",
	"smtpc/separate_final_dot_and_QUIT": "flags = { separate_final_dot_and_QUIT };", "smtpc/talk_to_myself": "flags = { talk_to_myself };",
	"smtpc/without_8bitmime": "without_8bitmime = bounce;", "smtpc/chunking": "chunking = never;", "smtpc/threads_max": "threads_max = 77;",
	"smtpc/auth/password_map": "auth { password_map = accounts; } >> auth { password_map = others; }", "smtpc/auth/sender_dependent": "auth { password_map = accounts; ~ flags = { sender_dependent }; }",
	"smtpc/auth/optional":   "auth { password_map = accounts; ~ flags = { optional }; }",
	"smtpc/auth/mechanisms": "auth { password_map = accounts; ~ mechanisms = { PLAIN }; }", "smtpc/auth/tls": "auth { password_map = accounts; ~ tls = encrypted; }",
	"smtpc/auth/on_failure": "auth { password_map = accounts; ~ on_failure = bounce; }", "smtpc/auth/failure_time": "auth { password_map = accounts; ~ failure_time = 2m; }",
	"smtpc/auth/token_file": `auth { password_map = accounts; ~ token_file = "DIR/token"; }`,
	"smtpc/tls/cert_file":   "tls { ~ CERT }", "smtpc/tls/key_file": "tls { ~ CERT }",
	"smtpc/tls/EC_cert_file": "tls { ~ EC_CERT }", "smtpc/tls/EC_key_file": "tls { ~ EC_CERT }",
	"smtpc/tls/CAcert_file": `tls { CAcert_file = "DIR/a.pem"; }`, "smtpc/tls/CAcert_directory": `tls { CAcert_directory = "DIR/cas"; }`,
	"smtpc/tls/CRL_directory": `tls { CAcert_file = "DIR/a.pem"; ~ CRL_directory = "DIR/cas"; }`,
	"smtpc/tls/verify_depth":  "tls { verify_depth = 3; }", "smtpc/tls/options": "tls { options = { NO_TLSv1_2 }; }",
	"smtpc/tls/CipherList": `tls { CipherList = "ECDHE-RSA-AES128-GCM-SHA256"; }`, "smtpc/tls/EC_curve": "tls { EC_curve = { X25519 }; }",
	"smtpc/tls/cache_size": "tls { cache_size = 0; }", "smtpc/tls/cache_timeout": "tls { cache_timeout = 5m; }", "smtpc/tls/Digest": "tls { Digest = sha256; }",
	"smtpc/tls/violation": "tls { violation = abort; }", "smtpc/tls/use_chain": "tls { CERT ~ flags = { use_chain }; }",
	"smtpc/tls/certificate/cert_file": "tls { ~ certificate { CERT } }", "smtpc/tls/certificate/key_file": "tls { ~ certificate { CERT } }",
	"smtpc/session_features/flags":         "session_features x { ~ flags = { -starttls }; }",
	"smtpc/session_features/tls/cert_file": "session_features x { ~ tls { CERT } }", "smtpc/session_features/tls/key_file": "session_features x { ~ tls { CERT } }",
	"smtpc/session_features/tls/flags":             "session_features x { tls { CERT ~ flags = { use_chain }; } }",
	"smtpc/session_features/tls/options":           "session_features x { ~ tls { options = { NO_TLSv1_2 }; } }",
	"smtpc/session_features/tls/CipherList":        `session_features x { ~ tls { CipherList = "ECDHE-RSA-AES128-GCM-SHA256"; } }`,
	"smtpc/session_features/auth/password_map":     "session_features x { ~ auth { password_map = accounts; } }",
	"smtpc/session_features/auth/sender_dependent": "session_features x { auth { password_map = accounts; ~ flags = { sender_dependent }; } }",
	"smtpc/session_features/auth/optional":         "session_features x { auth { password_map = accounts; ~ flags = { optional }; } }",
	"smtpc/session_features/auth/mechanisms":       "session_features x { auth { password_map = accounts; ~ mechanisms = { PLAIN }; } }",
	"smtpc/session_features/auth/tls":              "session_features x { auth { password_map = accounts; ~ tls = encrypted; } }",
	"smtpc/session_features/auth/on_failure":       "session_features x { auth { password_map = accounts; ~ on_failure = bounce; } }",
	"smtpc/session_features/auth/failure_time":     "session_features x { auth { password_map = accounts; ~ failure_time = 2m; } }",
	"smtpc/session_features/auth/token_file":       `session_features x { auth { password_map = accounts; ~ token_file = "DIR/token"; } }`,
	"smtpc/tls_reports/organization":               "tls_reports { ~ organization = Us; }", "smtpc/tls_reports/contact": `tls_reports { ~ contact = "tls@us.test"; }`,
	"smtpc/tls_reports/sender": `tls_reports { ~ sender = "<reports@us.test>"; }`, "smtpc/tls_reports/https": "tls_reports { ~ https = false; }",
	"smtpc/tls_reports/https_private_hosts": "tls_reports { ~ https_private_hosts = true; }",
	"smtpc/proxy/type":                      "proxy { address = 192.0.2.1; } >> proxy { type = unix; path = x; }", "smtpc/proxy/port": "proxy { address = 192.0.2.1; ~ port = 99; }",
	"smtpc/proxy/address": "proxy { address = 192.0.2.1; } >> proxy { address = 192.0.2.9; }", "smtpc/proxy/path": "proxy { type = unix; path = x; } >> proxy { type = unix; path = y; }",
	"smtpc/proxy/user": "proxy { address = 192.0.2.1; ~ user = me; }", "smtpc/proxy/proxy_key": "proxy { address = 192.0.2.1; ~ proxy_key = secret; }",

	"smar/address_delimiter": `address_delimiter = "-";`, "smar/DANE": "DANE = always;", "smar/IPv_Select": "IPv_Select = IPv6_Only;",
	"smar/MX_max": "MX_max = 3;", "smar/addresses_per_host_max": "addresses_per_host_max = 2;",
	"smar/map/type": `map m { type = text; file = "DIR/text"; } >> map m { type = passwd; file = "DIR/passwd"; }`, "smar/map/file": `map m { type = text; file = "DIR/text"; } >> map m { type = text; file = "DIR/text2"; }`,
	"smar/map/mapname": "map m { type = socket; path = s; mapname = x; } >> map m { type = socket; path = s; mapname = other; }", "smar/map/address": "map m { type = socket; mapname = x; port = 99; address = 192.0.2.2; } >> map m { type = socket; mapname = x; port = 99; address = 192.0.2.3; }",
	"smar/map/path": "map m { type = socket; mapname = x; path = s; } >> map m { type = socket; mapname = x; path = other; }", "smar/map/port": "map m { type = socket; mapname = x; port = 99; address = 192.0.2.2; } >> map m { type = socket; mapname = x; port = 98; address = 192.0.2.2; }",
	"smar/map/maps": "map m { type = sequence; maps = { accounts, accounts }; } >> map m { type = sequence; maps = { accounts }; }", "smar/map/case_sensitive": `map m { type = text; file = "DIR/text"; ~ flags = { case_sensitive }; }`,
	"smar/map/timeout":     "map m { type = socket; mapname = x; path = s; ~ timeout = 3s; }",
	"smar/access_map/file": `access_map { file = "DIR/text"; }`, "smar/access_map/name": "access_map { name = accounts; }",
	"smar/aliases/file": `aliases { file = "DIR/text"; }`, "smar/aliases/name": "aliases { name = accounts; }",
	"smar/aliases/localpart": `aliases { file = "DIR/text"; ~ flags = { localpart }; }`, "smar/aliases/local_domains": `aliases { file = "DIR/text"; ~ flags = { local_domains }; }`,
	"smar/aliases/all_domains": `aliases { file = "DIR/text"; ~ flags = { all_domains }; }`, "smar/aliases/implicitly_match_detail": `aliases { file = "DIR/text"; ~ flags = { implicitly_match_detail }; }`,
	"smar/aliases/replace_macros": `aliases { file = "DIR/text"; ~ flags = { replace_macros }; }`, "smar/aliases/preserve_domain": `aliases { file = "DIR/text"; ~ flags = { preserve_domain }; }`,
	"smar/DNS/nameservers": "DNS { ~ nameservers = { 192.0.2.53 }; }", "smar/DNS/retries": "DNS { ~ retries = 9; }", "smar/DNS/timeout": "DNS { ~ timeout = 9s; }",
	"smar/DNS/use_resolvconf": "DNS { ~ flags = { -use_resolvconf }; }", "smar/DNS/use_TCP": "DNS { ~ flags = { use_TCP }; }", "smar/DNS/use_connect": "DNS { ~ flags = { -use_connect }; }",
	"smar/DNS/port": "DNS { ~ port = 5353; }", "smar/DNS/Use_DNSSEC": "DNS { ~ flags = { Use_DNSSEC }; }",
	"smar/DNS/trusted_nameservers": "DNS { nameservers = { 192.0.2.53 }; flags = { Use_DNSSEC }; ~ trusted_nameservers = { 192.0.2.53 }; }",
	"smar/DNS/randomize_case":      "DNS { ~ flags = { randomize_case }; }", "smar/DNS/cache_size": "DNS { ~ cache_size = 1MB; }",
	"smar/dnsbl/domain": "dnsbl { domain = list.test; tag = t; } >> dnsbl { domain = list2.test; tag = t; }", "smar/dnsbl/tag": "dnsbl { domain = list.test; tag = t; } >> dnsbl { domain = list.test; tag = t2; }",
	"smar/mta_sts/CAcert_file":   `mta_sts { ~ CAcert_file = "DIR/a.pem"; }`,
	"smar/greylisting/grey_wait": "greylisting { ~ grey_wait = 1m; }", "smar/greylisting/grey_expire": "greylisting { ~ grey_expire = 2d; }",
	"smar/greylisting/white_expire": "greylisting { ~ white_expire = 20d; }", "smar/greylisting/white_timeout": "greylisting { ~ white_timeout = 60d; }",
	"smar/greylisting/expire_limit": "greylisting { ~ expire_limit = 7; }", "smar/greylisting/netmask": "greylisting { ~ netmask = 0xFFFFFF00; }",
	"smar/greylisting/IPv6_prefix": "greylisting { ~ IPv6_prefix = 48; }",
	"smar/local_user_map/name":     "local_user_map { name = accounts; }", "smar/local_user_map/implicitly_match_detail": "local_user_map { name = accounts; ~ flags = { implicitly_match_detail }; }",
	"smtpc/tls/CRL_file":            `tls { CAcert_file = "DIR/a.pem"; ~ CRL_file = "DIR/ca.crl"; }`,
	"smar/mailertable/full_address": "mailertable { file = mt; ~ flags = { full_address }; }",
	"smar/mailertable/detail_plus":  "mailertable { file = mt; ~ flags = { detail_plus }; }",
	"smar/mailertable/detail_star":  "mailertable { file = mt; ~ flags = { detail_star }; }",
	"smar/mailertable/star":         "mailertable { file = mt; ~ flags = { star }; }",
	"smar/mailertable/domain":       "mailertable { file = mt; ~ flags = { -domain }; }",
	"smar/mailertable/dotsubdomain": "mailertable { file = mt; ~ flags = { -dotsubdomain }; }",
	"smar/mailertable/dot":          "mailertable { file = mt; ~ flags = { -dot }; }",
	"smar/srs/domain":               `srs { domain = a.test; secret_file = secret; } >> srs { domain = b.test; secret_file = secret; }`,
	"smar/srs/secret_file":          `srs { domain = a.test; secret_file = secret; } >> srs { domain = a.test; secret_file = secret2; }`,
	"smar/srs/separator":            `srs { domain = a.test; secret_file = secret; } >> srs { domain = a.test; secret_file = secret; separator = "+"; }`,
	"smar/srs/max_age":              `srs { domain = a.test; secret_file = secret; } >> srs { domain = a.test; secret_file = secret; max_age = 9; }`,
	"smar/mailertable/file":         `mailertable { file = "DIR/mt2"; }`, "smar/mailertable/name": "mailertable { name = accounts; }",
}

// before is what stands in the section before an entry of eachOption is there, and after it.
func beforeAndAfter(entry string) (before, after string) {
	if before, after, ok := strings.Cut(entry, ">>"); ok {
		return before, after
	}
	from := strings.Index(entry, "~")
	if from < 0 {
		return "", entry
	}
	depth, to := 0, from
	for ; to < len(entry) && depth >= 0; to++ {
		depth += map[byte]int{'{': 1, '}': -1}[entry[to]]
	}
	if depth < 0 {
		to--
	}
	return entry[:from] + entry[to:], strings.Replace(entry, "~", "", 1)
}

// TestReloadOfEachOption: each option of smtpc and smar that a reload changes is in use afterwards in the running modules
// as it is after a start with the new file, and so is its former value when that comes back. Nothing else of them needs a
// restart but what is named here.
func TestReloadOfEachOption(t *testing.T) {
	common := []string{"log_level", "restart_dependencies", "failure_max"} // every section has them, and tests of their own
	restart := map[string]bool{}
	missing := map[string]bool{}
	for _, r := range confparse.Rows(new(Config).Options()) {
		module, _, _ := strings.Cut(r.Section, "/")
		name := r.Section + "/" + r.Name
		switch {
		case module != "smtpc" && module != "smar", slices.Contains(common, r.Name), strings.HasSuffix(r.Section, "/listen_socket"), strings.HasSuffix(r.Section, "/log"), r.Kind == confparse.KindSection && r.Reload != confparse.Restart:
		case r.Reload == confparse.Restart:
			restart[name] = true
		case r.Reload != confparse.NoEffect:
			missing[name] = true
		}
	}
	for name := range eachOption {
		if !missing[name] {
			t.Errorf("%s is no option that a reload changes", name)
		}
		delete(missing, name)
	}
	for name := range missing {
		t.Errorf("a reload changes %s: this test needs a value for it", name)
	}
	for name := range restart {
		t.Logf("%s needs a restart", name)
	}
	if t.Failed() {
		return
	}

	dir := shortDir(t)
	ca := tlstest.Root(t, "Root")
	ca.Issue(t, tlstest.Spec{CN: "a", RSA: true}).Write(t, dir, "a")
	ca.Issue(t, tlstest.Spec{CN: "b"}).Write(t, dir, "b")
	for _, sub := range []string{"cas", "spool"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mt", "mt2", "text", "text2", "access", "accounts"} {
		write(t, dir+"/"+name, "")
	}
	tlstest.WriteFile(t, dir+"/ca.crl", ca.CRL(t, time.Now().Add(time.Hour)), 0o644)
	for _, name := range []string{"token", "secret", "secret2"} {
		tlstest.WriteFile(t, dir+"/"+name, []byte("the word of "+name+"\n"), 0o600)
	}
	write(t, dir+"/passwd", "u:x:1:1::/:/\n")
	file := dir + "/meta1.conf"
	words := strings.NewReplacer("DIR", dir, "EC_CERT", `EC_cert_file = "`+dir+`/b.pem"; EC_key_file = "`+dir+`/b.key";`,
		"CERT", `cert_file = "`+dir+`/a.pem"; key_file = "`+dir+`/a.key";`)
	configure := func(section, text string) {
		in := map[string]string{section: text}
		smar := in["smar"]
		for name, usual := range map[string]string{"access_map": "access_map { file = access; }", "mailertable": "mailertable { file = mt; }", "srs": "srs { domain = a.test; secret_file = secret; }"} {
			if !strings.Contains(smar, name) {
				smar += usual
			}
		}
		maps := `map accounts { type = text; file = accounts; } map others { type = text; file = accounts; }`
		write(t, file, fmt.Sprintf("hostname = mx.test; working_directory = %q; allow_root = true;\nsmar { %s %s }\nsmtpc { %s }\n"+
			"smtps { listen_socket { address = 127.0.0.1; port = 0; } flags = { access }; }", dir+"/spool", maps,
			words.Replace(smar), words.Replace(in["smtpc"])))
	}
	configure("", "")
	ready := make(chan struct{})
	m := begin(Setup{
		File: file, Version: "1", Executable: os.Args[0], Stderr: &logBuffer{}, Signals: make(chan os.Signal),
		Exit: func(status int) { panic(fmt.Sprint("exit ", status)) }, Ready: func(control.Status, *Config) { close(ready) },
	})
	g := supervise.NewGroup(t.Context())
	g.Go(m.run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-g.Context().Done():
		t.Fatal(g.Wait())
	}
	inUse := func() (of [3]any) {
		of = [3]any{m.modules.client.Effective(), m.modules.resolver.Effective()}
		if m.current().conf.Client.TLSReports.Present { // else they are only kept for what was counted
			of[2] = m.tlsReports.Load().Effective()
		}
		return of
	}
	started := func() (of [3]any) {
		c, _, err := Check(file)
		if err != nil {
			t.Fatal(err)
		}
		roots, err := m.stsRoots(c)
		if err != nil {
			t.Fatal(err)
		}
		ports := msg.NewPorts()
		deps := m.clientDeps(c, roots, m.provider)
		deps.Ports, deps.Hostname = ports, m.hostname
		needs := m.resolverDeps(c, roots)
		needs.Ports, needs.Hostname, needs.ConfigDir, needs.SpoolDir, needs.Log = ports, m.hostname, dir, m.dir, slog.New(slog.DiscardHandler)
		if needs.SRS, err = srs.New(c.Resolver.SRS, tlsconf.OS{}, nil); err != nil {
			t.Fatal(err)
		}
		r, err := resolver.New(c.Resolver, needs)
		if err != nil {
			t.Fatal(err)
		}
		of = [3]any{client.New(c.Client, deps).Effective(), r.Effective()}
		if c.Client.TLSReports.Present {
			of[2] = tlsrpt.New(c.Client.TLSReports, tlsrpt.Deps{Ports: ports, Hostname: m.hostname, Dir: dir}).Effective()
		}
		return of
	}
	reload := func(name string) control.ReloadReport {
		t.Helper()
		report := m.Reload(context.Background(), false)
		if len(report.Errors) > 0 || len(report.NeedRestart) > 0 {
			t.Errorf("%s: %+v", name, report)
		}
		return report
	}
	for name, entry := range eachOption {
		section, _, _ := strings.Cut(name, "/")
		before, after := beforeAndAfter(entry)
		configure(section, before)
		reload(name)
		was := inUse()
		configure(section, after)
		if report := reload(name); len(report.Changed) == 0 {
			t.Errorf("%s: %s changes nothing", name, entry)
		}
		want := started()
		if reflect.DeepEqual(want, was) {
			t.Errorf("%s: a start with %s is as one without", name, entry)
		}
		if got := inUse(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: a reload gives\n%+v\na start\n%+v", name, got, want)
		}
		configure(section, before)
		reload(name)
		if got := inUse(); !reflect.DeepEqual(got, was) {
			t.Errorf("%s: what was before does not come back", name)
		}
	}
}
