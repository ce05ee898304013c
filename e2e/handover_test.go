package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestDrainToPeer: a drain with --to hands what cannot be delivered to another meta1: what waits for a host,
// for a route or for its next time, with its envelope. What is held, what the peer refuses, and what would be expanded
// twice stays, and goes on after the next start. Nothing is lost, doubled or bounced.
func TestDrainToPeer(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	aliases := `aliases { file = "aliases"; flags = { all_domains }; }`
	peer := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), smar: aliases, qmgr: "DSN_handling { flags = { RFC_Format }; }"})
	writeFile(t, peer.dir+"/access", "cltaddr:127. relay\nto:no@refused.test error:550 5.7.1 Not by this host\n")
	writeFile(t, peer.dir+"/aliases", "team@dead.test <one@dead.test> <team@dead.test>\n")
	conf := readFile(t, peer.conf)
	writeFile(t, peer.conf, strings.Replace(conf, `"mta.test"`, `"peer.test"`, 1)) // else it would be a loop
	peer.start()
	defer peer.stop()

	dead := freeAddr(t)
	later := newSink(t, "")
	later.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.7.1 not now"}[verb] })
	m := newMTA(t, settings{
		mailertable: toPort(t, "dead.test", dead) + toPort(t, "refused.test", dead) + toPort(t, "later.test", later.addr) + toPort(t, "good.test", s.addr) + toPort(t, "client.test", s.addr),
		smar:        aliases + ` DNS { nameservers = 127.0.0.1; port = 9; timeout = 1s; retries = 0; }`,
	})
	writeFile(t, m.dir+"/aliases", "team@dead.test <one@dead.test> <team@dead.test>\n")
	m.start()

	var want []string // at the peer
	n := 0
	send := func(rcpt string) {
		n++
		if err := sendOne(m.smtp, testMessage(n, 10+n*700, rcpt)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		for _, domain := range []string{"dead.test", "later.test", "noroute.test"} {
			rcpt := fmt.Sprintf("u%d@%s", i, domain)
			want = append(want, rcpt)
			send(rcpt)
		}
	}
	send("held@later.test")
	send("no@refused.test")
	send("team@dead.test")
	want = append(want, "one@dead.test")
	withDSN(t, m.smtp, "dsn@dead.test")
	want = append(want, "dsn@dead.test", "sender@client.test") // and the notice that the peer makes
	must(t, func() error {
		out, err := m.command("queue", "hold", "--rcpt", "held@later.test")
		if err == nil && !strings.Contains(out, "hold: 1 rec") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	send("at-once@good.test")
	want = append(want, "at-once@good.test")

	if out, err := m.command("ctl", "drain", "--to", "25^lmtp:[127.0.0.1]"); err == nil || !strings.Contains(out, "by SMTP to a host") {
		t.Errorf("%v: %s", err, out)
	}
	out, err := m.command("ctl", "drain", "--wait", "--to", port(t, peer.smtp)+"^esmtp:[127.0.0.1]", "--until", "5m")
	if err != nil || !strings.Contains(out, "drained, and ended: 3 recipients wait") {
		t.Errorf("%v: %s", err, out)
	}
	<-m.ended
	s.waitFor(len(want))
	peer.queueEmpty()

	// What was kept is there after the next start. It goes its own way.
	writeFile(t, m.dir+"/mt", toPort(t, ".", s.addr))
	m.start()
	s.waitFor(len(want) + 2)
	if out, err := m.command("queue", "release", "--all"); err != nil || !strings.Contains(out, "release: 1 rec") {
		t.Fatalf("%v: %s", err, out)
	}
	s.waitFor(len(want) + 3)
	want = append(want, "no@refused.test", "team@dead.test", "held@later.test")
	m.queueEmpty()
	m.stop()

	var got []string
	for _, a := range s.arrivals() {
		got = append(got, a.rcpts...)
		if a.from == "" {
			says(t, string(a.data), "Action: relayed", "Original-Envelope-Id: envelope-1", "rfc822; first@dead.test")
		}
	}
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("arrived:\n%q, want\n%q", got, want)
	}
	says(t, readFile(t, m.log), "event=mail is handed over to another host", "reply=450 4.7.1 Not by this host")
}

// withDSN sends a message whose envelope says what its sender wants to hear.
func withDSN(t *testing.T, addr, rcpt string) {
	t.Helper()
	k, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for _, c := range [][2]string{
		{"MAIL FROM:<sender@client.test> RET=HDRS ENVID=envelope-1", "250"},
		{"RCPT TO:<" + rcpt + "> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@dead.test", "250"},
		{"DATA", "354"},
		{"Subject: notify me\r\n\r\nhello\r\n.", "250"},
	} {
		if reply, err := k.cmd(c[0]); err != nil || !strings.HasPrefix(reply, c[1]) {
			t.Fatalf("%s: %s %v", c[0], reply, err)
		}
	}
}
