package expand

import (
	"slices"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestExpansionKeeps: what a list sends is a new message, what any other alias sends is
// not (RFC 3461 section 5.2.7).
func TestExpansionKeeps(t *testing.T) {
	e := &msg.Envelope{Session: smtp.ID{Counter: 7}, Mail: msg.Mail{From: path("s@x.test"), Ret: "HDRS", EnvID: "id", Body: "8BITMIME"}}
	r := &msg.Rcpt{To: path("all@d.test"), Notify: "SUCCESS,FAILURE", ORcpt: "rfc822;all@d.test"}
	to := []smtp.Path{path("a@d.test")}
	kept := group(e, r, &msg.Expansion{Rcpts: to}, 2)
	if kept.Mail != e.Mail || kept.Rcpts[0] != (msg.Rcpt{To: to[0], Notify: "FAILURE", ORcpt: r.ORcpt}) || !kept.Expanded || kept.Session != e.Session {
		t.Errorf("an alias gives %+v", kept)
	}
	if only := group(e, r, &msg.Expansion{Rcpts: to}, 1); only.Rcpts[0].Notify != r.Notify {
		t.Errorf("an alias of one address gives %+v", only)
	}
	list := group(e, r, &msg.Expansion{Rcpts: to, Owner: path("o@d.test"), VERP: true}, 1)
	want := msg.Mail{From: path("o@d.test"), Body: "8BITMIME", VERP: true}
	if list.Mail != want || list.Rcpts[0] != (msg.Rcpt{To: to[0]}) {
		t.Errorf("a list gives %+v", list)
	}
}

// TestForwarded: what leaves our domains has its sender rewritten; one that names its recipient does so before.
func TestForwarded(t *testing.T) {
	asked := 0
	c := &Rules{
		Rewrite: func(from smtp.Path) (smtp.Path, bool) {
			return smtp.Path{Local: "SRS0=x=" + from.Local, Domain: "ours.test"}, from.Local != "long"
		},
		Rewritten: func(from, by smtp.Path, ok bool) {
			if asked++; ok != (from.Local != "long") || ok && by.Local != "SRS0=x="+from.Local {
				t.Errorf("told of %v by %v: %v", from, by, ok)
			}
		},
	}
	to := []smtp.Path{path("a@d.test"), path("b@d.test")}
	for _, x := range []struct {
		name, from string
		verp       bool
		group      msg.Expansion
		many       int
		want       []string
	}{
		{"not rewritten", "s@x.test", false, msg.Expansion{Forwarded: true}, 2, []string{"s@x.test"}},
		{"rewritten", "s@x.test", false, msg.Expansion{Forwarded: true, Rewrite: true}, 2, []string{"SRS0=x=s@ours.test"}},
		{"too long", "long@x.test", false, msg.Expansion{Forwarded: true, Rewrite: true}, 2, []string{"long@x.test"}},
		{"VERP", "s@x.test", true, msg.Expansion{Forwarded: true, Rewrite: true}, 2, []string{"SRS0=x=s+a=d.test@ours.test", "SRS0=x=s+b=d.test@ours.test"}},
		{"VERP, too many", "s@x.test", true, msg.Expansion{Forwarded: true, Rewrite: true}, 101, []string{"SRS0=x=s@ours.test"}},
		{"VERP, SRS already", "SRS0=abcd@x.test", true, msg.Expansion{Forwarded: true, Rewrite: true}, 2, []string{"SRS0=x=SRS0=abcd@ours.test"}},
	} {
		e := &msg.Envelope{Mail: msg.Mail{From: path(x.from), VERP: x.verp}, Rcpts: []msg.Rcpt{{To: path("all@o.test")}}}
		for i := range x.many {
			x.group.Rcpts = append(x.group.Rcpts, to[i%2])
		}
		var got []string
		n := 0
		for _, env := range c.Envelopes(e, &e.Rcpts[0], &x.group, x.many) {
			got = append(got, env.Mail.From.Addr())
			n += len(env.Rcpts)
			if env.Mail.VERP && strings.HasPrefix(got[0], "SRS0=x") {
				t.Errorf("%s: the sender would name its recipient once more", x.name)
			}
		}
		if !slices.Equal(got, x.want) || n != x.many {
			t.Errorf("%s: %q for %d recipients, want %q", x.name, got, n, x.want)
		}
	}
	if asked != 6 {
		t.Errorf("told of %d senders, want 6", asked)
	}
}

func path(addr string) smtp.Path {
	local, domain, _ := strings.Cut(addr, "@")
	return smtp.Path{Local: local, Domain: domain}
}
