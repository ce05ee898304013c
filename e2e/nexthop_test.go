package e2e

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// TestNextHopRefuses lets the next hop refuse each message for a while, at
// different steps of the dialogue. Everything must arrive once it accepts again,
// also when meta1 was restarted in between.
func TestNextHopRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		verb, reply string
		restart     bool
	}{
		"greeting":    {verb: "connect", reply: "421 4.3.2 not now"},
		"ehlo":        {verb: "EHLO", reply: "421 4.3.2 not now"},
		"mail":        {verb: "MAIL", reply: "451 4.3.0 no sender now"},
		"rcpt":        {verb: "RCPT", reply: "450 4.2.1 no recipient now"},
		"final dot":   {verb: ".", reply: "452 4.3.1 no room now"},
		"and restart": {verb: "RCPT", reply: "450 4.2.1 no recipient now", restart: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 60
			s := newSink(t, "")
			s.answer(func(verb, _ string) string { return map[string]string{c.verb: c.reply}[verb] })
			m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
			make := func(id int) message { return testMessage(id, 500*id, fmt.Sprintf("u%d@sink.test", id)) }
			sendAll(t, m.smtp, 5, n, make)
			must(t, func() error {
				return m.queueShows(n, c.reply)
			})
			if c.restart {
				m.stop()
				m.start()
			}
			if got := s.count(); got != 0 {
				t.Fatalf("%d messages arrived that were refused", got)
			}
			s.answer(func(string, string) string { return "" })
			s.waitFor(n)
			m.queueEmpty()
			checkArrivals(t, s, n, make)
		})
	}
}

// checkArrivals fails the test unless the messages 0..n-1 arrived, each once, for
// its recipient, and unchanged.
func checkArrivals(t *testing.T, s *sink, n int, make func(id int) message) {
	t.Helper()
	seen := map[int]int{}
	for _, a := range s.arrivals() {
		id := testID(a.data)
		if id < 0 || id >= n {
			t.Errorf("a message arrived that was not sent: %.200q", a.data)
			continue
		}
		seen[id]++
		sent := make(id)
		if err := checkContent(a.data, sent.data); err != nil {
			t.Errorf("message %d: %v", id, err)
		}
		if fmt.Sprint(a.rcpts) != fmt.Sprint(sent.rcpts) || a.from != sent.from {
			t.Errorf("message %d came from %s for %v; sent was from %s for %v", id, a.from, a.rcpts, sent.from, sent.rcpts)
		}
	}
	for id := range n {
		if seen[id] != 1 {
			t.Errorf("message %d arrived %d times", id, seen[id])
		}
	}
}

// TestNextHopDown lets the next hop refuse connections until it comes up.
func TestNextHopDown(t *testing.T) {
	t.Parallel()
	const n = 100
	s := newSink(t, "")
	s.close()
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	make := func(id int) message { return testMessage(id, 3000, fmt.Sprintf("u%d@sink.test", id)) }
	sendAll(t, m.smtp, 5, n, make)
	must(t, func() error { return m.queueShows(n, "refused") })
	s.open()
	s.waitFor(n)
	m.queueEmpty()
	checkArrivals(t, s, n, make)
}

// TestNextHopGoesAway lets the next hop drop its connections in the middle of
// transactions, again and again. A message may then arrive twice (RFC 5321 section
// 4.5.4.1 leaves no choice when the reply to the dot is lost), but none may be lost.
func TestNextHopGoesAway(t *testing.T) {
	t.Parallel()
	const n = 400
	s := newSink(t, "")
	var commands atomic.Int64
	s.answer(func(verb, _ string) string {
		if verb != "connect" && commands.Add(1)%23 == 0 {
			return "421 4.3.2 going away"
		}
		return ""
	})
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	sendAll(t, m.smtp, 5, n, func(id int) message { return testMessage(id, 2000, fmt.Sprintf("u%d@sink.test", id)) })
	m.queueEmpty()
	seen := map[int]bool{}
	for _, a := range s.arrivals() {
		seen[testID(a.data)] = true
	}
	if len(seen) != n {
		t.Errorf("%d messages arrived, want %d", len(seen), n)
	}
}

// TestNextHopPermanent lets the next hop refuse for good: the sender gets one DSN
// for each message, and nobody gets one for a DSN.
func TestNextHopPermanent(t *testing.T) {
	t.Parallel()
	const n = 20
	s, bounces := newSink(t, ""), newSink(t, "")
	s.answer(func(verb, _ string) string {
		return map[string]string{"RCPT": "550 5.1.1 nobody here by that name"}[verb]
	})
	m := run(t, settings{mailertable: toPort(t, "client.test", bounces.addr) + toPort(t, ".", s.addr)})
	sendAll(t, m.smtp, 5, n, func(id int) message { return testMessage(id, 2000, fmt.Sprintf("u%d@sink.test", id)) })
	null := testMessage(n, 2000, "null@sink.test")
	null.from = ""
	if err := sendOne(m.smtp, null); err != nil {
		t.Fatal(err)
	}
	bounces.waitFor(n)
	m.queueEmpty()
	dsns := bounces.arrivals()
	if len(dsns) != n {
		t.Errorf("%d DSNs, want %d", len(dsns), n)
	}
	for _, d := range dsns {
		if d.from != "" || len(d.rcpts) != 1 || d.rcpts[0] != "sender@client.test" {
			t.Errorf("DSN from <%s> to %v", d.from, d.rcpts)
		}
		says(t, string(d.data), "550 5.1.1", "nobody here by that name", fmt.Sprintf("<u%d@sink.test>", testID(d.data)))
	}
}

// TestNextHopHangs lets one destination hang for good: the mail to all others goes
// through meanwhile, and what waits for it stays in the queue. How little it slows the
// others down is measured by "make bench".
func TestNextHopHangs(t *testing.T) {
	t.Parallel()
	for name, verb := range map[string]string{"before the greeting": "connect", "at the final dot": "."} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 1000
			good, bad := newSink(t, ""), newSink(t, freeAddrOn(t, "127.0.0.2"))
			bad.answer(func(v, _ string) string { return map[string]string{verb: hang}[v] })
			m := run(t, settings{mailertable: toPort(t, "hang.test", bad.addr) + toPort(t, ".", good.addr)})
			sendAll(t, m.smtp, 20, n*5/4, func(id int) message {
				if id%5 == 0 {
					return testMessage(id, 1000, "u@hang.test")
				}
				return testMessage(id, 1000, fmt.Sprintf("u%d@sink%d.test", id, id%20))
			})
			good.waitFor(n)
			must(t, func() error {
				queue, err := m.queue()
				if err == nil && len(queue) != n/4 {
					err = fmt.Errorf("mailq lists %d messages, want the %d for the hanging host", len(queue), n/4)
				}
				return err
			})
			m.stop() // within its limit, although connections hang
		})
	}
}
