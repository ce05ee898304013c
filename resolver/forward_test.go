package resolver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/tlsconf"
	"meta1/resolver/srs"
)

func forwardWorld(t *testing.T, withSRS bool) (*msg.Ports, *srs.Rewriter) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte("a secret of the test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rewriter, err := srs.New(srs.Config{Present: true, Domain: "srs.example", SecretFile: file, MaxAge: 21}, tlsconf.OS{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ports := world{
		mt: "local.example lmtp:\nelsewhere.example esmtp:[192.0.2.9]\n", access: "to:@relayed.example RELAY\n",
		aliases: "out: <a@elsewhere.example>\nmixed: <a@elsewhere.example> <b@relayed.example> <c@local.example>\nc: local:\n" +
			"list: <a@elsewhere.example>\nowner-list: <c@local.example>\n",
		config: func(c *Config, d *Deps) {
			c.Aliases.LocalPart = true
			d.Forwarding = func() bool { return true }
			if withSRS {
				d.SRS = rewriter
			}
		},
	}.start(t)
	return ports, rewriter
}

// TestForwarding: recipients outside of our domains get a message of their own, and senders that are not ours
// are to be rewritten for it.
func TestForwarding(t *testing.T) {
	path := func(s string) smtp.Path {
		if s == "" {
			return smtp.Path{}
		}
		p, err := smtp.ParseMailbox(s, smtp.ASCII)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ask := func(ports *msg.Ports, from, to string) string {
		a, err := ports.Route.Ask(t.Context(), msg.RouteQ{Sender: path(from), Rcpt: path(to)})
		if err != nil {
			t.Fatal(err)
		}
		if !a.Reply.IsZero() {
			return a.Reply.String()
		}
		var words []string
		for _, g := range a.Expand {
			for _, p := range g.Rcpts {
				words = append(words, p.Addr())
			}
			words = append(words, fmt.Sprintf("%v/%v", g.Forwarded, g.Rewrite))
		}
		return strings.Join(words, " ")
	}
	ports, rewriter := forwardWorld(t, true)
	made, ok := rewriter.Forward(path("u@sender.example"))
	if !ok {
		t.Fatal("no address")
	}
	cases := []struct{ from, to, want string }{
		{"u@sender.example", "out@local.example", "a@elsewhere.example true/true"},
		{"", "out@local.example", "a@elsewhere.example true/false"},
		{"c@local.example", "out@local.example", "a@elsewhere.example true/false"},
		{"u@relayed.example", "out@local.example", "a@elsewhere.example true/false"},
		{made.Addr(), "out@local.example", "a@elsewhere.example true/false"},
		{"u@sender.example", "mixed@local.example", "b@relayed.example c@local.example false/false a@elsewhere.example true/true"},
		{"u@sender.example", "list@local.example", "a@elsewhere.example true/false"}, // the owner sends it
		{"", made.Addr(), "u@sender.example true/false"},
		{"v@sender.example", strings.ToLower(made.Addr()), "u@sender.example true/true"},
		{"", "SRS0=abcd=AB=sender.example=u@srs.example", "550 5.1.1 SRS address is forged, or too old"},
		{"", "SRS0=abcd@srs.example", "550 5.1.3 SRS address has a wrong form"},
	}
	for _, c := range cases {
		if got := ask(ports, c.from, c.to); got != c.want {
			t.Errorf("<%s> to %s: %s, want %s", c.from, c.to, got, c.want)
		}
	}
	check := func(ports *msg.Ports, to string) string {
		v, err := ports.Check.Ask(t.Context(), msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(to)}, Client: msg.Client{IP: addr("192.0.2.7")}})
		if err != nil {
			t.Fatal(err)
		}
		if v.Action == msg.Accept {
			return ""
		}
		return v.Reply.String()
	}
	for to, want := range map[string]string{
		made.Addr(): "", "u@srs.example": "550 5.7.1 Relaying denied", "SRS0=abcd=AB=sender.example=u@srs.example": "550 5.1.1 SRS address is forged, or too old",
		"SRS0=abcd=AB=sender.example=u@other.example": "550 5.7.1 Relaying denied",
	} {
		if got := check(ports, to); strings.TrimSpace(got) != want {
			t.Errorf("RCPT %s: %q, want %q", to, got, want)
		}
	}
	without, _ := forwardWorld(t, false)
	if got := ask(without, "u@sender.example", "out@local.example"); got != "a@elsewhere.example true/false" {
		t.Errorf("without SRS: %s", got)
	}
	if got := check(without, made.Addr()); !strings.HasPrefix(got, "550 5.7.1") {
		t.Errorf("without SRS an address is %q", got)
	}
}
