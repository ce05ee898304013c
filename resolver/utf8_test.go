package resolver

import (
	"path/filepath"
	"testing"

	"meta1/mta/msg"
)

// TestUTF8Domains: an address is found whichever way its domain is written, in the
// mailertable also if the entry has the other spelling.
func TestUTF8Domains(t *testing.T) {
	p, _ := start(t, "münchen.example [10.1.1.1]\n.Köln.example [10.1.1.2]\nchef@xn--mnchen-3ya.example [10.1.1.3]\n. [10.1.1.9]\n", func(c *Config, d *Deps) {
		c.Mailertable.FullAddress, c.Mailertable.Domain, c.Mailertable.DotSubdomain, c.Mailertable.Dot = true, true, true, true
		c.Access = MapRef{Present: true, File: "access"}
		write(t, filepath.Join(d.ConfigDir, "access"), "from:@xn--bse-sna.example reject\nto:@xn--mnchen-3ya.example relay\n")
	})
	for addr, want := range map[string]string{
		"a@münchen.example":          "esmtp [10.1.1.1]:25",
		"a@MÜNCHEN.example":          "esmtp [10.1.1.1]:25",
		"a@mu\u0308nchen.example":    "esmtp [10.1.1.1]:25",
		"a@XN--mnchen-3ya.example":   "esmtp [10.1.1.1]:25",
		"a@mail.xn--kln-sna.example": "esmtp [10.1.1.2]:25",
		"a@mail.köln.example":        "esmtp [10.1.1.2]:25",
		"chef@münchen.example":       "esmtp [10.1.1.3]:25",
		"用户@münchen.example":         "esmtp [10.1.1.1]:25",
		"a@例え.テスト":                   "esmtp [10.1.1.9]:25",
	} {
		if a := route(t, p, addr); hops(a) != want {
			t.Errorf("%s goes to %q, want %q", addr, hops(a), want)
		}
	}
	for addr, code := range map[string]int{
		"x@böse.example": 550, "x@xn--bse-sna.example": 550, "x@gut.example": 0,
	} {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageMail, Mail: msg.Mail{From: path(addr)}})
		if v.Reply.Code != code {
			t.Errorf("sender %s: %v, want %d", addr, v.Reply, code)
		}
	}
	for addr, code := range map[string]int{"x@münchen.example": 0, "x@köln.example": 550} {
		v := askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(addr)}})
		if v.Reply.Code != code {
			t.Errorf("recipient %s: %v, want %d", addr, v.Reply, code)
		}
	}
}
