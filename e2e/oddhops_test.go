package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSpentSessions relays over a next hop, another meta1, whose sessions take a few
// recipients or messages only. The first one keeps its connections, and mail follows mail
// sooner than they would be closed: nothing may be deferred for what a new session takes.
func TestSpentSessions(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]string{
		"recipients": "recipients_per_session_max = 3;", // 452 at RCPT
		"messages":   "transactions_max = 3;",           // 421 at MAIL
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 30
			s := newSink(t, "")
			second := run(t, settings{mailertable: toPort(t, ".", s.addr), smtps: limit})
			first := run(t, settings{mailertable: toPort(t, ".", second.smtp), smtpc: "flags = { talk_to_myself };"})
			make := func(id int) message { return testMessage(id, 1000, fmt.Sprintf("u%d@sink.test", id)) }
			for id := range n { // each when the one before has arrived
				if err := sendOne(first.smtp, make(id)); err != nil {
					t.Fatal(err)
				}
				s.waitFor(id + 1)
			}
			first.queueEmpty()
			log, err := os.ReadFile(first.log)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(log), "event=deferred,"); n > 0 {
				t.Errorf("%d deferred", n)
			}
			if !strings.Contains(string(log), "event=RCPT") || !strings.Contains(string(log), "event=MAIL") {
				t.Error("no line for MAIL or RCPT")
			}
		})
	}
}

// TestConnectionLimit delivers to a host that takes one or two connections at a time and
// refuses any more by 421, also while it still counts one that was just closed. That is not
// the mail's fault: nothing may be deferred.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit int
		qmgr  string
	}{
		"one":           {1, ""},
		"one, not kept": {1, "flags = { no_reuse_connection };"},
		"two":           {2, ""},
		"two, not kept": {2, "flags = { no_reuse_connection };"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 200
			s := newSink(t, "")
			s.answer(func(verb, _ string) string {
				s.mu.Lock()
				defer s.mu.Unlock()
				if verb == "connect" && len(s.conns) > c.limit {
					return "421 4.7.0 too many connections from you"
				}
				return ""
			})
			m := run(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: c.qmgr})
			make := func(id int) message { return testMessage(id, 1000, fmt.Sprintf("u%d@sink.test", id)) }
			sendAll(t, m.smtp, 10, n, make)
			s.waitFor(n)
			m.queueEmpty()
			checkArrivals(t, s, n, make)
			log, err := os.ReadFile(m.log)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(log), "event=deferred,"); n > 0 {
				t.Errorf("%d deferred", n)
			}
		})
	}
}
