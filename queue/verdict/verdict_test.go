package verdict

import (
	"errors"
	"net/netip"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/sched"
)

var (
	ok    = smtp.NewReply(250, "2.0.0", "ok")
	later = smtp.NewReply(451, "4.7.1", "later")
)

// TestHostReply: what SMTPC answered for itself does not stand for the host.
func TestHostReply(t *testing.T) {
	ours, theirs := smtp.NewReply(451, "4.7.4", "demands TLS"), smtp.NewReply(451, "4.4.1", "connection refused")
	demand := &msg.Conf{TLS: &msg.TLSRequirements{}}
	for _, c := range []struct {
		conf []*msg.Conf
		want smtp.Reply
	}{{[]*msg.Conf{demand, nil}, theirs}, {[]*msg.Conf{demand, {}}, theirs}, {[]*msg.Conf{demand, demand}, ours}, {nil, ours}} {
		a := Attempt{Conf: c.conf, Rcpts: 2, Hop: &msg.Hop{}, A: &msg.DeliverA{Rcpts: []smtp.Reply{ours, theirs}, HostFailed: true}}
		if got := a.Host(); got.Reason != c.want.String() || got.Verdict != sched.HostFailed {
			t.Errorf("%+v, want %s", got, c.want)
		}
	}
}

// TestAttempts: what each kind of end says of the host, of the first recipient, and whether another host is tried
// because this one refused the mail.
func TestAttempts(t *testing.T) {
	smtpHop := msg.Hop{Protocol: msg.ProtoSMTP, Host: "mx.d.test", Addr: netip.MustParseAddrPort("192.0.2.1:25")}
	at := func(stage msg.DeliverStage, replies ...smtp.Reply) msg.DeliverA {
		return msg.DeliverA{Stage: stage, Session: "s", Rcpts: replies}
	}
	with := func(a msg.DeliverA, f func(*msg.DeliverA)) msg.DeliverA { f(&a); return a }
	for name, c := range map[string]struct {
		a       msg.DeliverA
		err     error
		down    bool
		verdict sched.Verdict
		reach   sched.Reach
		code    int
		remote  string
		refused bool
	}{
		"delivered":              {a: at(msg.DeliverDone, ok), verdict: sched.Served, reach: sched.Reached, code: 250, remote: "mx.d.test"},
		"refused before DATA":    {a: at(msg.DeliverRcpt, later), verdict: sched.Served, reach: sched.Reached, code: 451, remote: "mx.d.test", refused: true},
		"one of two":             {a: at(msg.DeliverDone, later, ok), verdict: sched.Served, reach: sched.Reached, code: 451, remote: "mx.d.test", refused: true},
		"refused at the end":     {a: at(msg.DeliverDone, later, later), verdict: sched.Served, reach: sched.Reached, code: 451, remote: "mx.d.test"},
		"no connection":          {a: msg.DeliverA{HostFailed: true, NoAnswer: true, Rcpts: []smtp.Reply{later}}, verdict: sched.HostFailed, reach: sched.NoAnswer, code: 451},
		"no way there":           {a: msg.DeliverA{HostFailed: true, NoNetwork: true, Rcpts: []smtp.Reply{later}}, verdict: sched.HostFailed, reach: sched.NoNetwork, code: 451},
		"one too many":           {a: with(at(msg.DeliverConnect, later), func(a *msg.DeliverA) { a.HostBusy = 3 }), verdict: sched.TooMany, code: 451},
		"nothing was tried":      {a: msg.DeliverA{Rcpts: []smtp.Reply{later}}, verdict: sched.NotTried, code: 451},
		"SMTPC does not run":     {down: true, verdict: sched.NotTried, code: 451},
		"SMTPC did not answer":   {err: errors.New("lost"), verdict: sched.Unknown, code: 451},
		"too few replies":        {a: at(msg.DeliverDone), verdict: sched.Served, reach: sched.Reached, code: 451, remote: "mx.d.test"},
		"what SMTPC itself says": {a: with(at(msg.DeliverMail, later), func(a *msg.DeliverA) { a.Own = true }), verdict: sched.Served, reach: sched.Reached, code: 451, refused: true},
	} {
		x := Attempt{Hop: &smtpHop, Rcpts: 1, A: &c.a, Err: c.err, Down: c.down}
		res := x.Host()
		if res.Verdict != c.verdict || res.Reach != c.reach || x.Reply(0).Code != c.code || x.Remote() != c.remote || c.code == 451 && x.Refused() != c.refused {
			t.Errorf("%s: %+v, %v, remote %q, refused %v", name, res, x.Reply(0), x.Remote(), x.Refused())
		}
	}
}

// TestRemote: a host is named as the route has it.
func TestRemote(t *testing.T) {
	a := &msg.DeliverA{Stage: msg.DeliverDone}
	for want, hop := range map[string]msg.Hop{
		"mx.d.test":   {Host: "mx.d.test", Addr: netip.MustParseAddrPort("192.0.2.1:25")},
		"[192.0.2.1]": {Addr: netip.MustParseAddrPort("192.0.2.1:25")},
		"/run/lmtp":   {Socket: "/run/lmtp", Host: "x"},
	} {
		if got := (&Attempt{Hop: &hop, A: a}).Remote(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
