package server

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// TestAdmitName: QMGR is asked a second time only if it wants that, with the name that
// SMAR found, and each session ends once.
func TestAdmitName(t *testing.T) {
	for _, c := range []struct {
		askName, access bool
		want            []string
	}{
		{false, true, []string{"new", "end 1"}},
		{true, true, []string{"new", "name 1 client.example.net.", "end 1"}},
		{true, false, []string{"new", "name 1 ", "end 1"}},
	} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v %v %v", c.askName, c.access, refused), func(t *testing.T) {
				fake := newFakeMTA()
				fake.askName = c.askName
				fake.check = func(msg.CheckQ) msg.Verdict { return msg.Verdict{ClientName: "client.example.net."} }
				var got []string
				fake.asked = func(q msg.AdmitQ) {
					switch q.Kind {
					case msg.NewSession:
						got = append(got, "new")
					case msg.NameSession:
						got = append(got, fmt.Sprintf("name %d %s", q.Session.Counter, q.Name))
					case msg.EndSession:
						got = append(got, fmt.Sprintf("end %d", q.Session.Counter))
					}
				}
				fake.admit = func(q msg.AdmitQ) smtp.Reply {
					if refused && q.Kind == msg.NameSession {
						return smtp.NewReply(421, "4.7.0", "too many")
					}
					return smtp.Reply{}
				}
				g := supervise.NewGroup(t.Context())
				fake.serve(g.Context(), g)
				s := mustNew(t, Config{Flags: Flags{Access: c.access}}, fake.deps())
				conn := &scriptConn{addrConn: addrConn{peer: "192.0.2.1"}, in: []byte("QUIT\r\n"), piece: 100}
				if err := s.newSession(net.Conn(conn)).run(g.Context()); err != nil {
					t.Fatal(err)
				}
				g.Stop()
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("asked %q, want %q", got, c.want)
				}
			})
		}
	}
}

// TestTransactionsNameTheirSession: QMGR holds a place in the active queue for each
// transaction, and gets it back when the session ends or begins another one.
func TestTransactionsNameTheirSession(t *testing.T) {
	fake := newFakeMTA()
	var got []string
	fake.asked = func(q msg.AdmitQ) {
		if q.Kind != msg.NewSession {
			got = append(got, fmt.Sprint(q.Kind == msg.NewTransaction, q.Session.Counter))
		}
	}
	g := supervise.NewGroup(t.Context())
	fake.serve(g.Context(), g)
	s := mustNew(t, Config{}, fake.deps())
	in := "EHLO a.test\r\nMAIL FROM:<s@a.test>\r\nRSET\r\nMAIL FROM:<s@a.test>\r\nQUIT\r\n"
	conn := &scriptConn{addrConn: addrConn{peer: "192.0.2.1"}, in: []byte(in), piece: 1}
	if err := s.newSession(net.Conn(conn)).run(g.Context()); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"true 1", "true 1", "false 1"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}
