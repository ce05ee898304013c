package server

import (
	"testing"
	"testing/synctest"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestCheckQuestions checks what SMAR is told at each stage.
func TestCheckQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeMTA()
		var asked []msg.CheckQ
		fake.check = func(q msg.CheckQ) msg.Verdict {
			asked = append(asked, q)
			switch q.Stage {
			case msg.StageConnect:
				return msg.Verdict{Relay: true, Marks: msg.MarkRelay, ClientName: "c.example.", ClientResolve: "ok"}
			case msg.StageMail:
				return msg.Verdict{Marks: msg.MarkOK}
			}
			return msg.Verdict{}
		}
		l := newPipeListener()
		b := startServer(t, loadConfig(t, `
			flags = { access, fullgreylisting, rcpt_conf, lmtp_does_not_imply_relaying };
			protected_recipients { allow_by = { sender }; match_type = generic_lookup; }
		`), fake, l)
		c := l.talker(t)
		c.reply("220")
		c.say("EHLO client", "250")
		c.say("MAIL FROM:<a@b>", "250")
		c.say("RCPT TO:<bob@example.org>", "250")
		c.say("RSET", "250")
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<bob@example.org>", "250")
		c.say("QUIT", "221")
		b.end(t)

		rules := msg.CheckRules{
			Access: true, Greylist: msg.GreylistFull, RcptConf: true, LMTPNoRelay: true, ProtectSender: true, ProtectGeneric: true,
		}
		from, to := smtp.Path{Local: "a", Domain: "b"}, smtp.Path{Local: "bob", Domain: "example.org"}
		want := []struct {
			stage    msg.Stage
			relaying bool
			marks    msg.Marks
			from, to smtp.Path
		}{
			{msg.StageConnect, false, 0, smtp.Path{}, smtp.Path{}},
			{msg.StageEhlo, true, msg.MarkRelay, smtp.Path{}, smtp.Path{}},
			{msg.StageMail, true, msg.MarkRelay, from, smtp.Path{}},
			{msg.StageRcpt, true, msg.MarkRelay | msg.MarkOK, from, to},
			{msg.StageRcpt, true, msg.MarkRelay, smtp.Path{}, to},
		}
		if len(asked) != len(want) {
			t.Fatalf("%d questions: %+v", len(asked), asked)
		}
		for i, w := range want {
			q := asked[i]
			if q.Stage != w.stage || q.Relaying != w.relaying || q.Marks != w.marks || q.Mail.From != w.from ||
				q.Rcpt.To != w.to || *q.Rules != rules || q.Session.IsZero() || q.TA.IsZero() != (i < 2) {
				t.Errorf("question %d is %+v", i, q)
			}
			if i > 0 && (q.Client.Name != "c.example." || q.Client.Resolve != "ok" || q.Client.Helo != "client") {
				t.Errorf("question %d: client %+v", i, q.Client)
			}
		}
	})
}
