package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// explained is the part of a report that the tests look at.
type explained struct {
	Source, Verdict string
	Stages          []struct {
		Stage, Reply, Verdict string
		Checks                []struct {
			Check, Where, Map, Key, Value, Effect string
			Decides                               bool
		}
		Options []struct{ Option, Value, Where string }
	}
	Recipients []struct {
		Rcpt, Verdict string
		Routes        []struct {
			Rcpt, Dest string
			Alias      bool
			Hops       []struct{ Hop, TLS, State string }
		}
	}
}

// explain runs meta1 explain --json and gives its report and exit status.
func (m *mta) explain(args ...string) (r explained, status int) {
	m.t.Helper()
	out, err := commandIn(m.t, m.dir, nil, append([]string{"explain", "--json"}, args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		m.t.Fatalf("explain %q: %v: %s", args, err, out)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		m.t.Fatalf("explain %q prints %q: %v", args, out, err)
	}
	return r, status
}

// check finds what a stage says of a check, "" for nothing.
func (r *explained) check(stage, check string) string {
	for _, s := range r.Stages {
		for _, c := range s.Checks {
			if s.Stage == stage && c.Check == check {
				return fmt.Sprintf("%s %s %s %v", c.Where, c.Value, c.Effect, c.Decides)
			}
		}
	}
	return ""
}

// reply is the last reply of a stage.
func (r *explained) reply(stage string) (reply string) {
	for _, s := range r.Stages {
		if s.Stage == stage {
			reply = s.Reply
		}
	}
	return reply
}

// TestExplain asks a running meta1 and its configuration file what becomes of mail; then the
// same mail is sent, and gets the same replies.
func TestExplain(t *testing.T) {
	t.Parallel()
	m := newMTA(t, settings{
		mailertable: "local.test lmtp:\nrelay.test esmtp:[127.0.0.9]\nc.test esmtp:[127.0.0.9]\nsecret.test esmtp:[127.0.0.9]\n",
		smar:        `map accounts { type = text; file = "accounts"; } DNS { nameservers = 127.0.0.1; port = 9; timeout = 1s; retries = 0; } aliases { file = "aliases"; flags = { all_domains }; } greylisting { grey_wait = 1h; }`,
		smtps:       `tls { cert_file = "tls.pem"; key_file = "tls.key"; flags = { allow_relaying_if_verified }; } auth { password_map = accounts; trusted_mechanisms = "SCRAM-SHA-256"; } recipients_per_transaction_max = 2;`,
		flags:       ", greylisting",
	})
	tlstest.Root(t, "Test CA").Issue(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}}).Write(t, m.dir, "tls")
	writeFile(t, m.dir+"/accounts", "joe {PLAIN}x\n")
	writeFile(t, m.dir+"/aliases", "team@relay.test <a@relay.test> <b@c.test>\n")
	writeFile(t, m.dir+"/access", "# comment\ncltaddr:127.0.0.1 relay\ncltaddr:192.0.2. error:550 5.7.1 No strangers\nto:@relay.test relay\nto:@secret.test error:450 4.7.1 Not today\ncltaddr:127.0.0.5 ok\n")
	m.start()
	client := []string{"--name", "h.test", "--helo", "h.test", "--from", "s@c.test"}
	for _, from := range []string{"running", "file"} {
		where := []string{"--socket", m.spool + "/control"}
		if from == "file" {
			where = []string{"-f", m.conf}
		}
		ask := func(args ...string) (explained, int) { return m.explain(slices.Concat(where, client, args)...) }

		r, status := ask("--client", "192.0.2.7", "--to", "x@relay.test")
		if got := r.check("connect", "cltaddr"); status != 77 || r.Verdict != "reject" || r.Source != from ||
			got != m.dir+"/access:3 error:550 5.7.1 No strangers rejected true" {
			t.Errorf("%s: a client that is refused: %d %+v %s", from, status, r, got)
		}
		r, status = ask("--client", "127.0.0.5", "--to", "x@secret.test")
		if status != 75 || r.Verdict != "tempfail" || !strings.HasPrefix(r.reply("rcpt"), "450 4.7.1 Not today") {
			t.Errorf("%s: a recipient that is refused for now: %d %+v", from, status, r)
		}
		r, status = ask("--client", "127.0.0.1", "--to", "team@relay.test", "--to", "x@elsewhere@relay.test")
		if status != 77 || len(r.Recipients) != 2 || r.Recipients[0].Verdict != "accept" || len(r.Recipients[0].Routes) != 3 {
			t.Fatalf("%s: an alias: %d %+v", from, status, r)
		}
		routes := r.Recipients[0].Routes
		if !routes[0].Alias || routes[2].Rcpt != "b@c.test" || routes[2].Dest != "esmtp:[127.0.0.9]:25" || routes[2].Hops[0].Hop != "[127.0.0.9]:25" {
			t.Errorf("%s: routes %+v", from, routes)
		}
		r, status = ask("--client", "127.0.0.1", "--to", "a@relay.test", "--to", "b@relay.test", "--to", "c@relay.test")
		last := r.Stages[len(r.Stages)-1]
		if status != 75 || len(last.Options) == 0 || last.Options[0].Option != "smtps/recipients_per_transaction_max" ||
			last.Options[0].Value != "2" || !strings.Contains(last.Options[0].Where, "meta1.conf:") {
			t.Errorf("%s: a limit: %d %+v", from, status, last)
		}
		r, status = ask("--client", "127.0.0.6", "--to", "x@other.test")
		if status != 77 || !strings.HasPrefix(r.reply("rcpt"), "550 5.7.1 Relaying denied") {
			t.Errorf("%s: a stranger: %d %+v", from, status, r)
		}
		for range 2 { // greylisting does not remember the first
			r, status = ask("--client", "127.0.0.6", "--to", "x@relay.test")
			if got := r.check("rcpt", "greylisting"); status != 75 || !strings.Contains(got, "must come back later true") {
				t.Errorf("%s: greylisting: %d %q", from, status, got)
			}
		}
		for _, args := range [][]string{
			{"--auth", "joe"},
			{"--tls", "--auth", "joe", "--mech", "scram-sha-256"},
			{"--tls", "--cert-subject", "/CN=client.test", "--cert-issuer", "/CN=ca"},
		} {
			if r, status = ask(append(args, "--client", "127.0.0.6", "--to", "x@c.test")...); status != 0 || r.Verdict != "accept" {
				t.Errorf("%s: %q: %d %+v", from, args, status, r)
			}
		}
		if r, status = ask("--tls", "--auth", "joe", "--mech", "plain", "--client", "127.0.0.6", "--to", "x@other.test"); status != 77 {
			t.Errorf("%s: a mechanism that is not trusted: %d %+v", from, status, r)
		}
	}
	// What was explained is what happens.
	k, _ := dialFrom(t, "127.0.0.6", m.smtp)
	k.say(t, "EHLO h.test", "250", "MAIL FROM:<s@c.test>", "250", "RCPT TO:<x@other.test>", "550 Relaying", "RCPT TO:<x@relay.test>", "421 Greylisted")
	k, _ = dialFrom(t, "127.0.0.5", m.smtp)
	k.say(t, "EHLO h.test", "250", "MAIL FROM:<s@c.test>", "250", "RCPT TO:<x@secret.test>", "450 today", "RCPT TO:<x@relay.test>", "250")
	// The trials were counted nowhere: there were two real sessions, with four recipients.
	page, err := m.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`meta1_smar_checks_total{action="accept",stage="rcpt"} 1`, `meta1_smtps_recipients_total{server="smtps"} 0`} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	out, err := m.command("explain", "No strangers")
	if err != nil || !strings.Contains(out, "/access:3: cltaddr:192.0.2. error:550 5.7.1 No strangers\n") {
		t.Errorf("explain of a reply: %v: %s", err, out)
	}
	out, err = m.command("explain", "452 4.5.3 Too many recipients")
	if err != nil || !strings.Contains(out, "smtps/recipients_per_transaction_max = 2 (") {
		t.Errorf("explain of a limit: %v: %s", err, out)
	}
	if out, err = m.command("explain", "550 5.9.9 nobody says this"); err == nil {
		t.Errorf("explain of a reply that nothing makes: %s", out)
	}
}
