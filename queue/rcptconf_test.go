package queue

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// confsOf parses entries of smtpc_rcpt_conf: by recipient.
func confsOf(t *testing.T, entries map[string]string) map[string]*msg.Conf {
	t.Helper()
	confs := map[string]*msg.Conf{}
	for local, text := range entries {
		c, err := msg.ParseConf(text)
		if err != nil {
			t.Fatal(err)
		}
		confs[local] = &c
	}
	return confs
}

// TestRcptConf: each recipient goes out with its own entry, and those share a
// transaction whose entries agree in what holds for all of it, in whatever order they
// come.
func TestRcptConf(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		confs := confsOf(t, map[string]string{
			"b": "session_feature=one;", "e": "session_feature=one;", "c": "session_feature=two;",
			"f": "tls_requirements { flags=encrypted; violation=tempfail }",
			"g": "tls_requirements { flags=verified; violation=permfail }",
			"h": "tls_requirements { flags=encrypted; violation={ tempfail, delay } }",
			"i": "tls_requirements { flags=encrypted; violation=abort }", "k": "tls_requirements { flags=encrypted; violation=abort }",
			"l": "tls_requirements { flags=verified; violation=abort }",
			"m": "tls_requirements { flags=encrypted }",
		})
		w.route = func(q msg.RouteQ) msg.RouteA {
			a := routeTo("d.test")
			a.RcptConf = confs[q.Rcpt.Local]
			return a
		}
		var got []string
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			group := ""
			for i, r := range q.Rcpts {
				group += r.To.Local
				var c *msg.Conf
				if q.RcptConf != nil {
					c = q.RcptConf[i]
				}
				if c != confs[r.To.Local] {
					t.Errorf("%s goes out with %+v", r.To.Local, c)
				}
			}
			w.mu.Lock()
			got = append(got, group)
			w.mu.Unlock()
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		var to []string
		for _, c := range "abcdefghiklm" {
			to = append(to, string(c)+"@d.test")
		}
		w.mustSend(q, "s@x.test", "m", to...)
		pause(time.Second)
		slices.Sort(got)
		if s := strings.Join(got, " "); s != "adfgh be c ik l m" {
			t.Errorf("transactions %s", s)
		}
		w.checkEmpty()
	})
}

// TestSessionConf: the entry for the address of the host goes along, if it is to be
// looked up, and a reload changes it.
func TestSessionConf(t *testing.T) {
	for _, c := range []struct {
		flag     bool
		features []string
		want     bool
	}{{false, nil, false}, {true, nil, true}, {false, []string{"one", "two"}, true}} {
		bubble(t, func(t *testing.T, w *world) {
			w.cfg.SMTPC.LookupSessionConf, w.features = c.flag, c.features
			w.setConf("smtpc_session_conf:192.0.2. tls_requirements { flags = encrypted; }\nsmtpc_session_conf:192.0.2.9 tls_requirements { flags=verified; }\n")
			w.route = func(q msg.RouteQ) msg.RouteA {
				a := routeTo(q.Rcpt.Domain)
				if q.Rcpt.Domain == "nine.test" {
					a.Hops[0].Addr = netip.MustParseAddrPort("192.0.2.9:25")
				}
				return a
			}
			var got []string
			w.deliver = func(q msg.DeliverQ) msg.DeliverA {
				s := "none"
				if q.SessionConf != nil {
					s = fmt.Sprintf("%v %v %s", q.SessionConf.TLS.Encrypted, q.SessionConf.TLS.Verified, q.SessionConf.SessionFeature)
				}
				w.mu.Lock()
				got = append(got, s)
				w.mu.Unlock()
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			q := w.start()
			send := func(to, want string) {
				t.Helper()
				w.mustSend(q, "s@x.test", "m", to)
				pause(time.Second)
				if !c.want {
					want = "none"
				}
				if got[len(got)-1] != want {
					t.Errorf("%+v: %s went with %q, want %q", c, to, got[len(got)-1], want)
				}
			}
			send("a@d.test", "true false ")
			send("a@nine.test", "false true ")
			if warned := strings.Contains(w.log.String(), "lookup_session_conf"); warned == c.want {
				t.Errorf("%+v: warned is %v", c, warned)
			}
			if c.features != nil {
				w.reload(q, "smtpc_session_conf:192.0.2.9 session_feature=two; tls_requirements { flags=encrypted }\n")
				send("a@nine.test", "true false two")
				send("a@d.test", "none")
			}
			w.setConf("smtpc_session_conf: session_feature=three;\n")
			if err := w.reconfigure(q); err == nil || !strings.Contains(err.Error(), `"three"`) {
				t.Errorf("a class that does not exist: %v", err)
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnconnectedSaysNothing: an attempt for which the client tried no connection does
// not open a closed host, and takes no connection of the minute's.
func TestUnconnectedSaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.setConf("ocr: 2\n")
		refused := 0
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if !strings.HasPrefix(q.Rcpts[0].To.Local, "secret") {
				return w.take(q, smtp.NewReply(250, "", "ok"))
			}
			w.mu.Lock()
			refused++
			w.mu.Unlock()
			a := w.take(q, smtp.NewReply(550, "5.7.4", "no TLS"))
			a.Stage = msg.DeliverConnect
			return a
		}
		q := w.start()
		for i := range 20 {
			w.mustSend(q, "", "m", fmt.Sprintf("secret%d@d.test", i))
		}
		w.mustSend(q, "", "m", "a@d.test")
		pause(time.Second)
		if refused != 20 || w.got("a@d.test", "m") != 1 {
			t.Errorf("%d refused, %d delivered", refused, w.got("a@d.test", "m"))
		}
		w.checkEmpty()
	})
}
