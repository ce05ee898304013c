package mta

import (
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/mta/settings"
)

// loadText reads a configuration from memory.
func loadText(text string) (*Config, *confparse.Result, error) {
	return settings.Load("/etc/meta1.conf", confparse.LoadOptions{FS: confparse.Files{"/etc/meta1.conf": text}})
}

const listen25 = "listen_socket { type = inet; port = 25; } "

// TestWanted: the sockets and programs that a configuration asks for.
func TestWanted(t *testing.T) {
	c, _, err := loadText(`
		metrics { port = 1; }
		qmgr { control_socket = ctl; }
		smtps MTA { id = 1; listen_socket { type = inet; port = 25; } listen_socket { type = inet6; port = 25; address = "::1"; } }
		smtps MSA { id = 2; daemon_address = { "127.0.0.1:587", "[::1]:587" }; }
		lda { start_action = accept; path = "bin/lda"; processes_max = 5; listen_socket { type = unix; path = lmtpsock; umask = 007; } }
		cron night { start_action = wait; path = meta1; arguments = "meta1 x  y"; pass_id = "-i"; failure_max = 0; }`)
	if err != nil {
		t.Fatal(err)
	}
	tcp, unix, err := wantedSockets(c, "/spool", nil)
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
	programs, err := programs(c, "/spool", "/usr/bin/meta1", nil)
	if err != nil || len(programs) != 2 {
		t.Fatalf("programs %v, %v", programs, err)
	}
	if p := programs[0]; p.Path != "/spool/bin/lda" || strings.Join(p.Args, " ") != "lda" || p.Dir != "/spool" || !p.Connected || p.Max != 5 {
		t.Errorf("lda: %+v", p)
	}
	if p := programs[1]; p.Path != "/usr/bin/meta1" || strings.Join(p.Args, " ") != "meta1 x y" || p.PassID != "-i" {
		t.Errorf("cron: %+v", p)
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
		tcp, _, err := wantedSockets(c, "/spool", nil)
		if err != nil || len(tcp) != 2 || tcp[0].Address() != ":25" || tcp[1].Address() != "127.0.0.1:587" {
			t.Errorf("%s: %v, %v", action, tcp, err)
		}
	}
}
