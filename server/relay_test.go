package server

import (
	"slices"
	"testing"
	"testing/synctest"

	"meta1/mta/msg"
)

// TestAdmitTellsRelay: QMGR is told of a client that may relay because of its address or
// name, with its transactions, so that no limit on new connections holds for it.
func TestAdmitTellsRelay(t *testing.T) {
	for stage, want := range map[msg.Stage]bool{msg.StageConnect: true, msg.StageEhlo: false} {
		synctest.Test(t, func(t *testing.T) {
			l, fake := newPipeListener(), newFakeMTA()
			fake.check = func(q msg.CheckQ) msg.Verdict { return msg.Verdict{Relay: q.Stage == stage} }
			var got []bool
			fake.asked = func(q msg.AdmitQ) {
				if q.Kind == msg.NewTransaction {
					got = append(got, q.Relay)
				}
			}
			b := startServer(t, Config{Flags: Flags{Access: true}}, fake, l)
			c := l.talker(t)
			c.begin()
			c.say("x\r\n.", "250")
			c.say("QUIT", "221")
			b.end(t)
			if !slices.Equal(got, []bool{want}) {
				t.Errorf("relay by the verdict at %v: told %v, want %v", stage, got, want)
			}
		})
	}
}
