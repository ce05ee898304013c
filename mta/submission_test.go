package mta

import (
	"crypto/rand"
	"crypto/tls"
	"net"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"meta1/server/auth"
)

// submit sends a message over STARTTLS as an account, "" for none, and returns the error
// that refused it.
func (r *running) submit(server, account, password, from, to string) error {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(fromStranger)}, Timeout: 20 * time.Second}
	conn, err := d.Dial("tcp", r.address(server))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c, err := smtp.NewClient(conn, "submit.example.org")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		r.t.Fatal(err)
	}
	if account != "" {
		if err := c.Auth(smtp.PlainAuth("", account, password, "submit.example.org")); err != nil {
			return err
		}
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err == nil {
		_, err = w.Write([]byte("Subject: x\r\n\r\nx\r\n"))
	}
	if err != nil {
		return err
	}
	return w.Close()
}

// TestSubmissionExample starts examples/submission, and checks who may send what.
func TestSubmissionExample(t *testing.T) {
	r := startExample(t, "submission/meta1.conf")
	secret, err := auth.MakeSecret(rand.Reader, "rabbit hole", "scram-sha-256")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.dir+"/users", "jane\t"+secret+"\njoe\t"+secret+"\n")
	write(t, r.dir+"/senders", "jane@example.org jane\nteam@example.org jane joe\n")
	if report, err := r.control.Reload(t.Context()); err != nil || len(report.Errors) > 0 {
		t.Fatal(report, err)
	}
	const world = "someone@elsewhere.example"
	for _, tt := range []struct{ account, password, from, to, want string }{
		{"", "", "jane@example.org", world, "530 5.7.0"},
		{"", "", "a@sender.example", "postmaster@submit.example.org", "530 5.7.0"},
		{"jane", "wrong", "jane@example.org", world, "535 5.7.8"},
		{"nobody", "rabbit hole", "jane@example.org", world, "535 5.7.8"},
		{"jane", "rabbit hole", "joe@example.org", world, "553 5.7.1"},
		{"joe", "rabbit hole", "jane@example.org", world, "553 5.7.1"},
		{"jane", "rabbit hole", "jane@example.org", world, ""},
		{"joe", "rabbit hole", "team@example.org", world, ""},
	} {
		got := ""
		if err := r.submit("smtps submission", tt.account, tt.password, tt.from, tt.to); err != nil {
			got = strings.ReplaceAll(err.Error(), `"`, "")
		}
		if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	r.refused("mail=<joe@example.org>", "check=sender_login", "map=senders", "key=joe@example.org", "effect=the sender is not that of account jane")
	eventually(t, "two messages", func() bool { return len(r.queued()) == 2 })
	warned := strings.Contains(r.log.String(), "everybody may read the passwords in "+r.dir+"/users")
	if !warned {
		t.Error("nothing warns of a map of passwords that everybody may read")
	}
	if strings.Contains(r.log.String(), secret[len(secret)-20:]) {
		t.Error("the log has an entry of the map")
	}
}

// TestPasswordMaps: what config check says of the entries of password maps, with the line
// and nothing of the value.
func TestPasswordMaps(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	write(t, dir+"/users", "# accounts\njane {PLAIN}rabbit\njoe {MD5}rabbit\njack $2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\ncarol {EXTERNAL}\n")
	write(t, dir+"/meta1.conf", strings.Replace(config(dir, ""), "smar {", `smar { map users { type = text; file = "users"; }`, 1)+
		`smtps x { id = 7; listen_socket { type = inet; port = 0; } auth { password_map = users; trusted_mechanisms = { PLAIN }; } }`)
	r, err := CheckAll(t.Context(), dir+"/meta1.conf")
	text := ""
	if err != nil {
		text = err.Error()
	}
	for _, w := range r.Warnings {
		text += "\n" + w.String()
	}
	for _, want := range []string{
		`users:3:1: error: "joe": entry has a form`, `users:2:1: warning: "jane": the password stands there in the clear`,
		`users:4:1: warning: "jack": SCRAM-SHA-256-PLUS is offered and this entry has no form`, "everybody may read the passwords",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "rabbit") || strings.Contains(text, `"carol"`) {
		t.Errorf("it has a password or complains about carol:\n%s", text)
	}
	write(t, dir+"/meta1.conf", strings.ReplaceAll(config(dir, ""), "smtps {", `smtps { auth { password_map = nowhere; }`))
	if _, err := CheckAll(t.Context(), dir+"/meta1.conf"); err == nil || !strings.Contains(err.Error(), `map "nowhere" is not declared`) {
		t.Errorf("a map that is not declared: %v", err)
	}
}
