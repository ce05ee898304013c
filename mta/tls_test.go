package mta

import (
	"net/smtp"
	"slices"
	"strings"
	"testing"

	"meta1/mta/control"
	"meta1/mta/tlsconf/tlstest"
)

// TestReloadTLS: what a reload does with sections tls, and what takes a restart.
func TestReloadTLS(t *testing.T) {
	files := t.TempDir()
	ca := tlstest.Root(t, "Root")
	ca.Issue(t, tlstest.Spec{CN: "a", Names: []string{"mx.test"}}).Write(t, files, "a")
	ca.Issue(t, tlstest.Spec{CN: "b", Names: []string{"mx.test"}}).Write(t, files, "b")
	pair := func(name string) string {
		return `cert_file = "` + files + "/" + name + `.pem"; key_file = "` + files + "/" + name + `.key"; `
	}
	section := func(name, id, tls string) string {
		return "smtps " + name + " { id = " + id + "; listen_socket { address = 127.0.0.1; port = 0; } " + tls + " }\n"
	}
	with := func(tls, bare, none, client string) string {
		return section("with", "1", tls) + section("bare", "2", bare) + section("none", "3", none) + "smtpc { " + client + " }\n"
	}
	base := "tls { " + pair("a") + "}"
	r := start(t, "", with(base, "tls { }", "", ""))
	reload := func(text string) control.ReloadReport {
		t.Helper()
		write(t, r.dir+"/meta1.conf", config(r.dir, text))
		report, err := r.control.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	presents := func(want string) {
		t.Helper()
		p := &process{t: t, listen: map[string]string{"smtps with": r.address("smtps with")}, log: logBuffer{}}
		if want == "" {
			if c, err := smtp.Dial(r.address("smtps with")); err != nil {
				t.Fatal(err)
			} else if ok, _ := c.Extension("STARTTLS"); ok {
				t.Error("STARTTLS is offered without a certificate")
			} else {
				_ = c.Close()
			}
			return
		}
		if got := p.presents("smtps with"); got != want {
			t.Errorf("presents %s, want %s", got, want)
		}
	}
	presents("a")
	for _, tt := range []struct {
		name, text             string
		errs, restart, present string
		reloaded               string // one that must be among them
	}{
		{"nothing new", with(base, "tls { }", "", ""), "", "", "a", "smtps with/tls"},
		{"another certificate", with("tls { "+pair("b")+"}", "tls { }", "", ""), "", "", "b", "smtps with/tls"},
		{"a wrong key", with("tls { "+strings.Replace(pair("b"), "b.key", "a.key", 1)+"}", "tls { }", "", ""), "meta1.conf:6:", "", "b", ""},
		{"no certificate", with("tls { }", "tls { }", "", ""), "", "", "", "smtps with/tls"},
		{"a certificate again", with(base, "tls { }", "", ""), "", "", "a", "smtps with/tls"},
		{"no section", with("", "tls { }", "", ""), "", "", "", "smar"},
		{"a certificate where there was none", with(base, "tls { "+pair("a")+"}", "", ""), "", "", "a", "smtps bare/tls"},
		{"a new section", with(base, "tls { }", "tls { "+pair("a")+"}", ""), "", "", "a", "smtps none/tls"},
		{"flags", with("tls { "+pair("a")+"flags = { allow_relaying_if_verified, dont_request_cert }; violation = abort; }", "tls { }", "", ""), "", "", "a", "smtps with/tls"},
		{"the client", with(base, "tls { }", "", "tls { CAcert_file = \""+files+"/a.pem\"; }"), "", "", "a", "smtpc/tls"},
		{"a class", with(base, "tls { }", "", "session_features x { tls { "+pair("a")+"} }"), "", "", "a", "smtpc/session_features x/tls"},
	} {
		report := reload(tt.text)
		errs := strings.Join(report.Errors, "\n")
		if tt.errs == "" && errs != "" || !strings.Contains(errs, tt.errs) {
			t.Errorf("%s: errors %q", tt.name, errs)
		}
		if got := strings.Join(paths(report.NeedRestart), " "); !strings.HasPrefix(got, tt.restart) || tt.restart == "" && got != "" {
			t.Errorf("%s: a restart is needed for %q, want %q", tt.name, got, tt.restart)
		}
		if (tt.reloaded != "" || len(report.Reloaded) > 0) && !slices.Contains(report.Reloaded, tt.reloaded) {
			t.Errorf("%s: reloaded %q", tt.name, report.Reloaded)
		}
		presents(tt.present)
	}
}

// TestNoTLSFile: a start with a certificate that cannot be used names file and line.
func TestNoTLSFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	write(t, dir+"/meta1.conf", config(dir, "smtps TLS { id = 1; listen_socket { port = 0; }\ntls {\n  cert_file = \"no.pem\";\n  key_file = \"no.key\";\n"+
		"certificate { cert_file = mt; key_file = mt; }\ncertificate { cert_file = mt;\nkey_file = nokey; } } }"))
	_, _, err := Check(dir + "/meta1.conf")
	if err == nil || !strings.Contains(err.Error(), "meta1.conf:8:15: error: cert_file of smtps TLS/tls: "+dir+"/no.pem does not exist") ||
		!strings.Contains(err.Error(), "meta1.conf:9:14: error: key_file of smtps TLS/tls: ") ||
		!strings.Contains(err.Error(), "meta1.conf:12:12: error: certificate#2/key_file of smtps TLS/tls: ") {
		t.Error(err)
	}
}
