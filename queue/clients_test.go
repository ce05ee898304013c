package queue

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// visitor is a client that opens sessions.
type visitor struct {
	w    *world
	ip   netip.Addr
	name string
	asks int // second questions
}

func (v *visitor) ask(q msg.AdmitQ) msg.AdmitA {
	v.w.t.Helper()
	q.Client = v.ip
	a, err := v.w.ports.Admit.Ask(context.Background(), q)
	if err != nil {
		v.w.t.Fatal(err)
	}
	return a
}

// connect opens a session as far as NameSession; ask says that this must follow.
func (v *visitor) connect() (id smtp.ID, ask, ok bool) {
	a := v.ask(msg.AdmitQ{Kind: msg.NewSession})
	return a.ID, a.AskName, a.Reply.IsZero()
}

func (v *visitor) tell(id smtp.ID) (ok bool) {
	v.asks++
	a := v.ask(msg.AdmitQ{Kind: msg.NameSession, Session: id, Name: v.name})
	return a.Reply.IsZero()
}

func (v *visitor) end(id smtp.ID) { v.ask(msg.AdmitQ{Kind: msg.EndSession, Session: id}) }

// try opens n sessions one after the other and tells how many were let in. They end
// at once, or stay open until all have been tried.
func (v *visitor) try(n int, stay bool) (in int) {
	var open []smtp.ID
	for range n {
		id, ask, ok := v.connect()
		if !ok {
			continue
		}
		if ok = !ask || v.tell(id); ok {
			in++
		}
		if ok && stay {
			open = append(open, id)
		} else {
			v.end(id)
		}
	}
	for _, id := range open {
		v.end(id)
	}
	return in
}

// TestLimitsByName: which entry holds for which client (README 3.8.1).
func TestLimitsByName(t *testing.T) {
	const text = "icr: 7\nicm: 6\nicr:10. 3\nicm:10. 2\nicr:11. 3\n" +
		"icl:many.example.org 18\nicc:many.example.org 15\nicl:.example.org 2\nicc:.example.org 1\nicl:localhost 4\n"
	for _, c := range []struct {
		ip, name   string
		rate, open int
		asks       bool
	}{
		{"192.0.2.1", "", 7, 6, true},
		{"192.0.2.1", "other.example.net.", 7, 6, true},
		{"192.0.2.1", "example.org.", 7, 6, true}, // .example.org is not for itself
		{"192.0.2.1", "Many.Example.ORG.", 18, 15, true},
		{"192.0.2.1", "a.b.example.org.", 2, 1, true},
		{"10.0.0.1", "many.example.org.", 3, 2, false}, // the address goes first
		{"11.0.0.1", "a.example.org.", 3, 1, true},     // for rate only
		{"127.0.0.1", "localhost.", 4, 4, true},
		{"127.0.0.1", "host.example.", 20, 20, true},
		{"", "", 20, 20, false},
	} {
		bubble(t, func(t *testing.T, w *world) {
			w.setConf(text)
			w.start()
			v := &visitor{w: w, name: c.name}
			if c.ip != "" {
				v.ip = netip.MustParseAddr(c.ip)
			}
			if n := v.try(20, true); n != c.open {
				t.Errorf("%+v: %d open sessions", c, n)
			}
			pause(3 * time.Minute)
			if n := v.try(20, false); n != c.rate {
				t.Errorf("%+v: %d sessions in a minute", c, n)
			}
			if (v.asks > 0) != c.asks {
				t.Errorf("%+v: %d questions for the name", c, v.asks)
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNamesAtOnce: sessions that wait for their name do not count against one another,
// each is counted once and ended once, whatever became of it.
func TestNamesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("icl:r.example.org 7\nicl:c.example.org 500\nicc:c.example.org 5\nicr: 500\nicm: 20\n")
		w.start()
		v := &visitor{w: w, ip: netip.MustParseAddr("192.0.2.1"), name: "c.example.org."}
		for round := range 3 {
			var waiting, in []smtp.ID
			for range 30 {
				if id, ask, ok := v.connect(); ok && ask {
					waiting = append(waiting, id)
				}
			}
			if len(waiting) != 20 { // no name allows more
				t.Fatalf("round %d: %d sessions wait for their name", round, len(waiting))
			}
			v.end(waiting[0]) // before it had a name
			for _, id := range waiting[1:] {
				if v.tell(id) {
					in = append(in, id)
				} else if round == 1 {
					v.tell(id) // a second question changes nothing
				}
			}
			if !slices.Equal(in, waiting[1:6]) { // those who asked first
				t.Errorf("round %d: sessions %v were let in of %v", round, in, waiting)
			}
			for _, id := range waiting[1:] {
				v.end(id)
			}
		}
		if n := v.try(30, true); n != 5 {
			t.Errorf("%d sessions at the end", n)
		}
		late := &visitor{w: w, ip: netip.MustParseAddr("192.0.2.2"), name: "r.example.org."}
		var waiting, in []smtp.ID
		for range 15 {
			id, _, _ := late.connect()
			waiting = append(waiting, id)
		}
		for _, id := range waiting {
			if late.tell(id) {
				in = append(in, id)
			}
		}
		if !slices.Equal(in, waiting[:7]) { // the rate was that when they came
			t.Errorf("sessions %v were let in of %v", in, waiting)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestNamesAreBounded: when too many sessions wait for their name, it is not asked for.
func TestNamesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("icc:c.example.org 50\nicm: 1\n")
		w.cfg.SMTPS.CacheSize = 16
		w.start()
		asked := 0
		for i := range 30 {
			v := &visitor{w: w, ip: netip.AddrFrom4([4]byte{192, 0, 2, byte(i / 3)})}
			if _, ask, _ := v.connect(); ask {
				asked++
			}
		}
		if asked != 16 {
			t.Errorf("%d sessions wait for their name", asked)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestRelayHostsHaveNoRate: an address that may relay has no limit on new connections for
// an hour from its last transaction on, but for an entry that is for it; on open ones it has.
func TestRelayHostsHaveNoRate(t *testing.T) {
	for _, c := range []struct {
		name, conf string
		relay      bool
		after      time.Duration // from the transaction on
		rate, open int           // of 20
	}{
		{"stranger", "icr: 7\nicm: 15\n", false, 3 * time.Minute, 7, 15},
		{"relay", "icr: 7\nicm: 15\n", true, 3 * time.Minute, 20, 15},
		{"relay with an entry", "icr:192.0.2.1 9\nicm: 15\n", true, 3 * time.Minute, 9, 15},
		{"relay long ago", "icr: 7\nicm: 15\n", true, 2 * time.Hour, 7, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.setConf(c.conf)
				w.start()
				v := &visitor{w: w, ip: netip.MustParseAddr("192.0.2.1")}
				id, _, ok := v.connect()
				if !ok {
					t.Fatal("the first session is refused")
				}
				if a := v.ask(msg.AdmitQ{Kind: msg.NewTransaction, Session: id, Relay: c.relay}); !a.Reply.IsZero() {
					t.Fatal(a.Reply)
				}
				v.end(id)
				pause(c.after)
				if n := v.try(20, false); n != c.rate {
					t.Errorf("%d sessions in a minute, want %d", n, c.rate)
				}
				pause(3 * time.Minute)
				if n := v.try(20, true); n != min(c.open, c.rate) {
					t.Errorf("%d open sessions, want %d", n, min(c.open, c.rate))
				}
				if err := w.stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
