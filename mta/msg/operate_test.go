package msg

import (
	"testing"
	"time"

	"meta1/mta/smtp"
)

func TestSelection(t *testing.T) {
	now := time.Unix(1000, 0)
	e := &Envelope{
		TA: smtp.ID{Counter: 7}, Arrival: now.Add(-time.Minute), Mail: Mail{From: smtp.Path{Local: "Joe", Domain: "here.test"}},
		Rcpts: []Rcpt{{To: smtp.Path{Local: "a", Domain: "d.test"}}},
	}
	for s, want := range map[Selection]bool{
		{}:                        true,
		{TA: smtp.ID{Counter: 7}}: true,
		{TA: smtp.ID{Counter: 8}}: false,
		{RcptID: smtp.RcptID(smtp.ID{Counter: 7}, 0)}: true,
		{RcptID: smtp.RcptID(smtp.ID{Counter: 7}, 1)}: false,
		{Sender: "joe@HERE.test"}:                     true,
		{Sender: "<Joe@here.test>"}:                   true,
		{Sender: "@here.test"}:                        true,
		{Sender: "@ere.test"}:                         false,
		{Sender: "<>"}:                                false,
		{Rcpt: "a@d.test"}:                            true,
		{Rcpt: "b@d.test"}:                            false,
		{Rcpt: "@D.test"}:                             true,
		{Domain: "d.TEST"}:                            true,
		{Domain: "test"}:                              false,
		{Hop: "mx:[192.0.2.1]:26"}:                    true,
		{Hop: "[192.0.2.1]:26"}:                       true,
		{Hop: "192.0.2.1"}:                            true,
		{Hop: "192.0.2"}:                              false,
		{Hop: "26"}:                                   false,
		{MinAge: time.Minute}:                         true,
		{MinAge: time.Hour}:                           false,
		{Held: true}:                                  false,
		{Unheld: true}:                                true,
		{Rcpt: "a@d.test", Sender: "x@y.test"}:        false,
	} {
		if got := s.Matches(e, 0, Standing{Dest: "mx:[192.0.2.1]:26", Reason: "451 4.4.1 Connection refused"}, now); got != want {
			t.Errorf("%+v: %v", s, got)
		}
	}
	for dest, hop := range map[string]string{"mx:example.org": "Example.org", "lmtp:lmtpsock": "lmtpsock", "esmtp:[2001:db8::1]:25": "2001:db8::1"} {
		s := Selection{Hop: hop}
		if !s.Matches(e, 0, Standing{Dest: dest}, now) {
			t.Errorf("%s is not %s", hop, dest)
		}
	}
}
