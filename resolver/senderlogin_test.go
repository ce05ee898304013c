package resolver

import (
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/msg"
)

// withMaps declares text maps with their content.
func withMaps(t *testing.T, content map[string]string) func(*Config, *Deps) {
	dir := t.TempDir()
	return func(c *Config, _ *Deps) {
		for name, text := range content {
			file := filepath.Join(dir, name)
			write(t, file, text)
			c.Maps = append(c.Maps, MapConfig{Name: name, Type: "text", File: file})
		}
	}
}

func TestSenderLogin(t *testing.T) {
	p, _ := start(t, "", withMaps(t, map[string]string{
		"senders": "jane@example.org jane\nteam@example.org jane, Joe\n@lists.example.org listmaster\njane jack\n",
	}))
	for _, tt := range []struct {
		from, account string
		relaying      bool
		code          int
		effect        string
	}{
		{"jane@example.org", "jane", true, 0, "the sender is the account's"},
		{"Jane@Example.org", "JANE", true, 0, "the sender is the account's"},
		{"team@example.org", "joe", true, 0, "the sender is the account's"},
		{"jane@example.org", "joe", true, 553, "the sender is not that of account joe"},
		{"x@lists.example.org", "listmaster", true, 0, "the sender is the account's"},
		{"nobody@example.net", "jane", true, 553, "the sender is not that of account jane"},
		{"jane@example.net", "jack", true, 553, "the sender is not that of account jack"}, // a local part alone is no key
		{"jane@example.org", "", false, 553, "the sender is for those who authenticate"},
		{"jane@example.org", "", true, 0, "the session may relay without AUTH"},
		{"a@example.net", "", false, 0, "nobody's sender"},
	} {
		v := askCheck(t, p, msg.CheckQ{
			Stage: msg.StageSender, Mail: msg.Mail{From: path(tt.from)}, Relaying: tt.relaying,
			Client: msg.Client{Auth: msg.Auth{User: tt.account}}, Rules: &msg.CheckRules{SenderLogin: "senders"},
		})
		if v.Reply.Code != tt.code || len(v.Trace) != 1 || v.Trace[0].Effect != tt.effect || v.Trace[0].Map != "senders" {
			t.Errorf("%s as %q: %v %+v", tt.from, tt.account, v.Reply, v.Trace)
		}
		if tt.code != 0 && v.Decision() != v.Trace[0] {
			t.Errorf("%s as %q: decided by %+v", tt.from, tt.account, v.Decision())
		}
	}
	v := askCheck(t, p, msg.CheckQ{Stage: msg.StageSender, Mail: msg.Mail{From: path("a@b.test")}, Rules: &msg.CheckRules{SenderLogin: "none"}})
	if v.Reply.Code != 451 {
		t.Errorf("a map that is not there: %v", v.Reply)
	}
}

func TestLookup(t *testing.T) {
	p, _ := start(t, "", withMaps(t, map[string]string{"users": "jane {PLAIN}secret\n"}))
	waitOpen(t, p)
	for _, tt := range []struct {
		q    msg.LookupQ
		want msg.LookupA
	}{
		{msg.LookupQ{Map: "users", Key: "Jane"}, msg.LookupA{Value: "{PLAIN}secret", Found: true}},
		{msg.LookupQ{Map: "users", Key: "joe"}, msg.LookupA{}},
		{msg.LookupQ{Map: "none", Key: "joe"}, msg.LookupA{Err: "map none cannot be used"}},
	} {
		a, err := p.Lookup.Ask(t.Context(), tt.q)
		if err != nil || a != tt.want {
			t.Errorf("%+v: %+v %v", tt.q, a, err)
		}
		if strings.Contains(a.Err, "secret") {
			t.Error("the error has the entry")
		}
	}
}
