package resolver

import (
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestHandover: mail that is handed over goes to the peer, whatever the mailertable says; aliases are expanded
// here, what would be expanded there a second time goes its own way, and a peer without a route bounces nothing.
func TestHandover(t *testing.T) {
	const own = "esmtp:[192.0.2.1]:25"
	ports, _ := start(t, ". [192.0.2.1]\n", func(c *Config, d *Deps) {
		write(t, filepath.Join(d.ConfigDir, "aliases"), "team@a.test <one@a.test> <team@a.test>\nself@a.test local:\n")
		c.Aliases = AliasConfig{MapRef: MapRef{File: "aliases", Present: true}, AllDomains: true}
		d.RemotePort = 25
	})
	for _, c := range []struct {
		via, rcpt string
		expanded  bool
		want      string
	}{
		{"", "x@b.test", false, own},
		{"[192.0.2.9]", "x@b.test", false, "esmtp:[192.0.2.9]:25/handover"},
		{"26^esmtp:[192.0.2.9] [192.0.2.8]", "x@b.test", true, "esmtp:[192.0.2.9][192.0.2.8]:26/handover"},
		{"[192.0.2.9]", "", false, "esmtp:[192.0.2.9]:25/handover"},
		{"[192.0.2.9]", "team@a.test", false, "2 recipients"},
		{"[192.0.2.9]", "team@a.test", true, own},
		{"[192.0.2.9]", "one@a.test", true, "esmtp:[192.0.2.9]:25/handover"},
		{"26^lmtp:[192.0.2.9]", "x@b.test", false, "451 4.3.5 mail is handed over by SMTP to a host"},
		{"lmtp:", "x@b.test", false, "451 4.3.5 mail is handed over by SMTP to a host"},
		{"[192.0.2.300]", "x@b.test", false, `451 4.3.5 "192.0.2.300" is not an IP address`},
	} {
		var to smtp.Path
		to.Local, to.Domain, _ = strings.Cut(c.rcpt, "@")
		a, err := ports.Route.Ask(t.Context(), msg.RouteQ{Via: c.via, Rcpt: to, Expanded: c.expanded})
		got := a.Dest
		switch {
		case len(a.Expand) > 0:
			got = "2 recipients"
		case len(a.Hops) == 0:
			got = a.Reply.String()
		}
		if err != nil || got != c.want || c.via != "" && len(a.Hops) > 0 && a.Dest != own && !a.Expires.IsZero() {
			t.Errorf("%+v: %+v %v", c, a, err)
		}
	}
}
