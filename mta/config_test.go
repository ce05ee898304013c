package mta

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
			if ExitStatus(exit(ExConfig, err)) != ExConfig || ExitStatus(err) != ExConfig {
				t.Error("the exit status is not 78")
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
	tcp, unix, err := c.wantedSockets("/spool", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range append(tcp, unix...) {
		got = append(got, w.Section+" "+w.Network+" "+w.Address())
	}
	want := "smtps MTA tcp4 :25\nsmtps MTA tcp6 [::1]:25\nsmtps MSA tcp4 127.0.0.1:587\nsmtps MSA tcp6 [::1]:587\n" +
		"metrics tcp4 127.0.0.1:1\nlda unix /spool/lmtpsock\nqmgr unix /spool/ctl"
	if strings.Join(got, "\n") != want {
		t.Errorf("sockets\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if unix[0].Mode != 0o770 || unix[1].Mode != 0o660 {
		t.Errorf("modes %v, %v", unix[0].Mode, unix[1].Mode)
	}
	programs, err := c.programs("/spool", "/usr/bin/meta1", nil)
	if err != nil || len(programs) != 2 {
		t.Fatalf("programs %v, %v", programs, err)
	}
	if p := programs[0]; p.Path != "/spool/bin/lda" || strings.Join(p.Args, " ") != "lda" || p.Dir != "/spool" || !p.Connected || p.Max != 5 {
		t.Errorf("lda: %+v", p)
	}
	if p := programs[1]; p.Path != "/usr/bin/meta1" || strings.Join(p.Args, " ") != "meta1 x y" || p.PassID != "-i" {
		t.Errorf("cron: %+v", p)
	}
	if lda, cron := c.Services[0].Of.policy(), c.Services[1].Of.policy(); lda.Hard.Max != 0 || cron.Hard.Max != 0 || c.QueueOf.policy().Hard.Max == 0 {
		t.Error("restart limits are not those of failure_max")
	}
}

// TestStartAction: one process has no use for start_action, so a server listens whatever it
// says.
func TestStartAction(t *testing.T) {
	for _, action := range []string{"nostartaccept", "accept", "pass", "wait"} {
		c, _, err := loadText("smtps { start_action = " + action + "; " + listen25 + " daemon_address = { \"127.0.0.1:587\" }; }")
		if err != nil {
			t.Fatal(err)
		}
		tcp, _, err := c.wantedSockets("/spool", nil)
		if err != nil || len(tcp) != 2 || tcp[0].Address() != ":25" || tcp[1].Address() != "127.0.0.1:587" {
			t.Errorf("%s: %v, %v", action, tcp, err)
		}
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
		s, err := daemonSocket(text)
		if got := s.Network + " " + s.Address(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}
