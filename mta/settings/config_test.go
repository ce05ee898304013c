package settings

import (
	"strings"
	"testing"

	"meta1/confparse"
)

// loadText reads a configuration from memory.
func loadText(text string) (*Config, *confparse.Result, error) {
	return Load("/etc/meta1.conf", confparse.LoadOptions{FS: confparse.Files{"/etc/meta1.conf": text}})
}

const listen25 = "listen_socket { type = inet; port = 25; } "

func TestLoadRefuses(t *testing.T) {
	const lda = "lda { path = lda; start_action = "
	tests := map[string]struct{ text, want string }{
		"unknown option":       {"hostnme = a.b;", "hostname"},
		"host name":            {`hostname = "a b.c";`, "/etc/meta1.conf:1:12: error: \"a b.c\" is not a domain name"},
		"no socket":            {"smtps { }", "/etc/meta1.conf:1:1: error: section smtps lacks listen_socket"},
		"no port":              {"smtps { listen_socket { type = inet; } }", "listen_socket of type inet lacks port"},
		"path of inet":         {"smtps { listen_socket { port = 25; path = x; } }", "listen_socket of type inet has no path"},
		"wrong family":         {"smtps { listen_socket { type = inet6; port = 25; address = 192.0.2.1; } }", "192.0.2.1 is not an address of type inet6"},
		"no path":              {"smtps { listen_socket { type = unix; } }", "listen_socket of type unix lacks path"},
		"port of unix":         {"smtps { listen_socket { type = unix; path = x; port = 2; } }", "listen_socket of type unix has no port"},
		"same id":              {"smtps a { " + listen25 + "} smtps b { " + listen25 + "}", "section smtps a and section smtps b have the same id 0"},
		"same name":            {"smtps { " + listen25 + "} smtps { id = 1; " + listen25 + "}", "section smtps stands twice"},
		"daemon_address":       {"smtps { daemon_address = { nowhere }; }", `daemon_address "nowhere" is not host:port`},
		"restart_dependencies": {"qmgr { restart_dependencies = { smtpd }; }", `qmgr.restart_dependencies: there is no section "smtpd"`},
		"group alone":          {"group = mail;", "group needs user"},
		"service action":       {"lda { path = lda; }", "lacks start_action"},
		"service path":         {"lda { start_action = wait; }", "lacks path"},
		"service socket":       {lda + "accept; }", "service section lda lacks listen_socket, which start_action accept needs"},
		"service no socket":    {lda + "wait; listen_socket { type = unix; path = x; } }", "start_action wait takes no listen_socket"},
		"service one socket":   {lda + "nostartaccept; " + listen25 + listen25 + "}", "nostartaccept takes one listen_socket, not 2"},
		"service pass":         {lda + "pass; " + listen25 + "}", "lacks pass_fd_socket"},
		"service no pass":      {lda + "wait; pass_fd_socket = x; }", "pass_fd_socket needs start_action pass"},
		"pass_id":              {lda + `wait; pass_id = "--id"; }`, "is not a hyphen and one character"},
		"processes":            {lda + "wait; processes_min = 3; }", "processes_min 3 is more than processes_max 1"},
		"service group":        {lda + "wait; group = mail; }", "group needs user"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, _, err := loadText(tt.text)
			if err == nil || c != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

// TestLogNames: each section has a log file of its own, or the configuration is wrong.
func TestLogNames(t *testing.T) {
	for text, want := range map[string]string{
		"smtps { " + listen25 + "}": "",
		"smtps a { " + listen25 + "} lda a { start_action = wait; path = x; }":                  "section lda a and section smtps a would log to the same file a.log",
		"mta { start_action = wait; path = x; }":                                                "section mta and meta1 itself",
		`smtps "../a" { ` + listen25 + "}":                                                      "cannot be that of a log file",
		"lda { start_action = wait; path = x; use_id_in_logfile_name = on; }":                   "use_id_in_logfile_name needs pass_id",
		"lda { start_action = wait; path = x; use_id_in_logfile_name = on; pass_id = \"-i\"; }": "",
	} {
		_, _, err := loadText("log_directory = /var/log; " + text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestLoadWarns(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"no server":   {"", "nothing takes mail"},
		"user":        {"smtps { user = smtps; " + listen25 + "}", "user has no effect in a module section"},
		"socket":      {"qmgr { " + listen25 + "} smtps { " + listen25 + "}", "listen_socket has no effect in section qmgr"},
		"no access":   {"smtps { flags = { access }; " + listen25 + "}", "the flag access of section smtps has no effect without a section access_map"},
		"greylisting": {"smtps { flags = { greylisting }; " + listen25 + "}", "the flag greylisting of section smtps has no effect without a section greylisting in smar"},
		"rcpt_conf":   {"smtps { flags = { rcpt_conf }; " + listen25 + "}", "rcpt_conf has no effect without the flag access"},
		"rcpt_conf 2": {"smar { access_map { } } smtps { flags = { access, rcpt_conf }; " + listen25 + "}", "rcpt_conf of section smtps has no effect without a section greylisting"},
		"dnsbl":       {"smar { dnsbl { domain = a.b; tag = t; } } smtps { " + listen25 + "}", "dnsbl has no effect without an access_map"},
		"host option": {"smtps { path = x; " + listen25 + "}", "path has no effect in one process"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, r, err := loadText(tt.text)
			if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0].Message, tt.want) {
				t.Errorf("error %v, warnings %v, want %s", err, r.Warnings, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	c, r, err := loadText(`
		hostname = mx.example.org; CDB_base_directory = "cdb/"; log_format = json;
		metrics { port = 1; }
		qmgr { log_level = 12; restart_dependencies = { smtps }; control_socket = ctl; }
		smtps MTA { id = 1; listen_socket { type = inet; port = 25; } listen_socket { type = inet6; port = 25; address = "::1"; } }
		smtps MSA { id = 2; daemon_address = { "127.0.0.1:587", "[::1]:587" }; log { facility = local0; options = { pid }; } }
		lda { start_action = accept; path = "bin/lda"; processes_max = 5; listen_socket { type = unix; path = lmtpsock; umask = 007; } }
		cron night { start_action = wait; path = meta1; arguments = "meta1 x  y"; pass_id = "-i"; failure_max = 0; }`)
	if err != nil || len(r.Warnings) > 0 {
		t.Fatalf("error %v, warnings %v", err, r.Warnings)
	}
	if c.Hostname != "mx.example.org" || c.Queue.CDBBase != "cdb/" || c.LogFormat != "json" || !c.Metrics.Present || c.Metrics.Port != 1 {
		t.Errorf("global: %+v", c)
	}
	if len(c.Servers) != 2 || c.Servers[1].Server.ID != 2 || c.Servers[1].Of.Log.Facility != "local0" || c.Servers[0].Of.Log.Present {
		t.Errorf("servers: %+v", c.Servers)
	}
	if lda, cron := c.Services[0].Of.Policy(), c.Services[1].Of.Policy(); lda.Hard.Max != 0 || cron.Hard.Max != 0 || c.QueueOf.Policy().Hard.Max == 0 {
		t.Error("restart limits are not those of failure_max")
	}
}

// TestOptions checks that every row can be read by a person.
func TestOptions(t *testing.T) {
	rows := confparse.Rows((&Config{}).Options())
	if len(rows) < 250 {
		t.Errorf("%d rows", len(rows))
	}
	for _, r := range rows {
		if r.Doc == "" || r.Readme == "" {
			t.Errorf("%s/%s: doc %q, readme %q", r.Section, r.Name, r.Doc, r.Readme)
		}
	}
}

func TestDaemonSocket(t *testing.T) {
	tests := map[string]string{
		"127.0.0.1:25": "tcp4 127.0.0.1:25", "[::1]:25": "tcp6 [::1]:25", ":25": "tcp4 :25", "*:25": "tcp4 :25",
		"25": "", "host:25": "", "1.2.3.4:x": "", "1.2.3.4:70000": "",
	}
	for text, want := range tests {
		s, err := DaemonSocket(text)
		if got := s.Network + " " + s.Address(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}

// TestCrossChecks has configurations whose values do not fit each other.
func TestCrossChecks(t *testing.T) {
	const at = "/etc/meta1.conf:"
	server := func(text string) string { return "smtps { " + listen25 + text + " }" }
	tests := map[string]struct{ text, want string }{
		"AQ": {
			"qmgr { AQ_entries_max = 1000; }\n" + server(""),
			at + "1:25: error: AQ_entries_max (1000) must be larger than recipients_per_transaction_max (1000) of section smtps",
		},
		"AQ of default": {
			server("\nrecipients_per_transaction_max = 20000;"),
			at + "2:34: error: AQ_entries_max (20000) must be larger than recipients_per_transaction_max (20000) of section smtps",
		},
		"AQ of the second": {
			"smtps a { " + listen25 + "} smtps b { id = 1; " + listen25 + "\nrecipients_per_transaction_max = 20000; }",
			at + "2:34: error: AQ_entries_max (20000) must be larger than recipients_per_transaction_max (20000) of section smtps b",
		},
		"IQDB": {
			"qmgr { IQDB { cache_entries_max = 9; } }\n" + server(""),
			at + "1:35: error: cache_entries_max (9) must be larger than recipients_per_transaction_max (1000)",
		},
		"IQDB hash":        {"qmgr { IQDB {\nhash_table_entries = 65536; } }", at + "2:22: error: hash_table_entries (65536) must be larger than cache_entries_max (65536)"},
		"IQDB hash, cache": {"qmgr { IQDB {\ncache_entries_max = 70000; } }", at + "2:21: error: hash_table_entries (65537) must be larger than cache_entries_max (70000)"},
		"disk":             {"qmgr { disk_space_min = 20;\ndisk_space_ok = 20; }", at + "2:17: error: disk_space_ok (20 KB) must be larger than disk_space_min (20 KB)"},
		"retry":            {"qmgr { retry_delay_min = 2h;\nretry_delay_max = 1h; }", at + "2:19: error: retry_delay_max (1h0m0s) must not be less"},
		"connections":      {"qmgr { smtpc {\nconnections_max = 5; } }", at + "2:19: error: connections_max (5) must not be less than initial_connections (10)"},
		"file and name":    {"smar { map m { type = passwd; } access_map { file = a;\nname = m; } }", at + "2:8: error: only one of file and name may be given"},
		"aliases both":     {"smar { map m { type = passwd; } aliases { file = a;\nname = m; } }", at + "2:8: error: only one of file and name may be given"},
		"mailertable both": {"smar { map m { type = passwd; } mailertable { file = a;\nname = m; } }", at + "2:8: error: only one of file and name may be given"},
		"no such map":      {"smar { aliases {\nname = m; } }", at + `2:8: error: map "m" is not declared`},
		"local users":      {"smar {\nlocal_user_map { name = m; } }", at + `2:25: error: map "m" is not declared`},
		"local users what": {"smar {\nlocal_user_map { } }", at + "2:1: error: local_user_map needs name"},
		"sequence":         {"smar { map s { type = sequence;\nmaps = { a }; } }", at + `2:10: error: map "a" is not declared`},
		"sequence of none": {"smar {\nmap s { type = sequence; } }", at + "2:1: error: map s of type sequence lacks maps"},
		"sequence in it":   {"smar { map s { type = sequence;\nmaps = { t }; } map t { type = sequence; maps = { s }; } }", at + `2:10: error: sequence "s" contains itself`},
		"hash map":         {"smar {\nmap h { type = hash; } }", at + "2:1: error: map h of type hash lacks file"},
		"socket map":       {"smar {\nmap h { type = socket; path = p; port = 1; } }", at + "2:1: error: map h of type socket needs either path, or address and port"},
		"socket map where": {"smar {\nmap h { type = socket; port = 1; } }", at + "2:1: error: map h of type socket needs either path, or address and port"},
		"listen_socket":    {"smtps { start_action = pass; pass_fd_socket = x; }", at + "1:1: error: section smtps lacks listen_socket"},
		"wait, nowhere":    {"smtps { start_action = wait; }", at + "1:1: error: section smtps lacks listen_socket"},
		"allow_by":         {server("\nprotected_recipients { }"), at + "2:1: error: protected_recipients needs allow_by"},
		"allow_by nobody":  {server("\nprotected_recipients { allow_by = { no_sender }; }"), at + "2:1: error: protected_recipients needs allow_by"},
		"DKIM":             {server("\nDKIM_signing { }"), at + "2:1: error: DKIM_signing needs at least one section sign"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := loadText(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nwant %s", err, tt.want)
			}
		})
	}
	for _, text := range []string{"", server(""), "smtps { start_action = wait; " + listen25 + "}", "smtps { start_action = wait; daemon_address = { \":25\" }; }", server("protected_recipients { allow_by = sender; }")} {
		if _, _, err := loadText(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAccount(t *testing.T) {
	tests := map[string]struct {
		c    Config
		root bool
		uid  int // -1: none
		err  string
	}{
		"not root":    {Config{User: "nobody"}, false, -1, ""},
		"allow_root":  {Config{AllowRoot: true}, true, -1, ""},
		"user":        {Config{User: "nobody"}, true, 65534, ""},
		"user number": {Config{User: "65534"}, true, 65534, ""},
		"root":        {Config{User: "root"}, true, 0, "does not serve as root"},
		"unknown":     {Config{User: "no-such-user"}, true, 0, `there is no user "no-such-user"`},
		"group":       {Config{User: "nobody", Group: "no-such-group"}, true, 0, `there is no group "no-such-group"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := tt.c.Account(tt.root)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || (a == nil) != (tt.uid < 0) || a != nil && a.UID != tt.uid {
				t.Errorf("account %+v, %v", a, err)
			}
		})
	}
}
