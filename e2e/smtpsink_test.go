package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"meta1/mta/msg"
)

// sinkCase is an smtp-sink that fails in one way, and what follows for a message to it.
type sinkCase struct {
	options string
	// delivered, or bounced with bounce in the DSN, or deferred with wait in mailq.
	bounce, wait string
	where        msg.DeliverStage // in the log
	unknown      bool
}

// sinkCases has an entry for each option of smtp-sink(1) with which it fails or lacks something,
// at each command.
var sinkCases = []sinkCase{
	{options: "-f CONNECT", wait: "refused to talk to me", where: msg.DeliverGreeting},
	{options: "-f EHLO,HELO", wait: "refused to talk to me", where: msg.DeliverEhlo},
	{options: "-f EHLO", where: msg.DeliverDot}, // HELO follows
	{options: "-f MAIL", bounce: "500", where: msg.DeliverMail},
	{options: "-f RCPT", bounce: "500", where: msg.DeliverRcpt},
	{options: "-f DATA", bounce: "500", where: msg.DeliverData},
	{options: "-f .", bounce: "500", where: msg.DeliverDot},
	{options: "-f RSET", where: msg.DeliverDot},
	{options: "-f QUIT", where: msg.DeliverDot},
	{options: "-r CONNECT", wait: "450", where: msg.DeliverGreeting},
	{options: "-r EHLO", wait: "450", where: msg.DeliverEhlo},
	{options: "-r MAIL", wait: "450", where: msg.DeliverMail},
	{options: "-r RCPT", wait: "450", where: msg.DeliverRcpt},
	{options: "-r DATA", wait: "450", where: msg.DeliverData},
	{options: "-r .", wait: "450", where: msg.DeliverDot},
	{options: "-q CONNECT", wait: "lost connection", where: msg.DeliverGreeting},
	{options: "-q EHLO", wait: "while performing the EHLO handshake", where: msg.DeliverEhlo},
	{options: "-q MAIL", wait: "while sending MAIL FROM", where: msg.DeliverMail},
	{options: "-q RCPT", wait: "while sending RCPT TO", where: msg.DeliverRcpt},
	{options: "-q DATA", wait: "while sending DATA", where: msg.DeliverData},
	{options: "-q .", wait: "so the message may be sent more than once", where: msg.DeliverDot, unknown: true},
	{options: "-q QUIT", where: msg.DeliverDot},
	{options: "-h mta.test", bounce: "loops back to myself", where: msg.DeliverGreeting},
	{options: "-e", where: msg.DeliverDot},    // no ESMTP
	{options: "-p -8", where: msg.DeliverDot}, // no PIPELINING, no 8BITMIME
	{options: "-w 1", where: msg.DeliverDot},  // slow replies to DATA
}

// TestSMTPSink: every way in which Postfix's smtp-sink can fail, at every command: what
// becomes of the mail, and what mailq, the DSN, log and metrics tell of it.
func TestSMTPSink(t *testing.T) {
	t.Parallel()
	bounces := newSink(t, "")
	s := settings{mailertable: toPort(t, "client.test", bounces.addr)}
	delivered, bounced, waiting, unknown := 0, 0, 0, 0
	for i, c := range sinkCases {
		s.mailertable += toPort(t, sinkDomain(i), failingSink(t, c.options))
		switch {
		case c.wait != "":
			waiting++
		case c.bounce != "":
			bounced++
		default:
			delivered++
		}
		if c.unknown {
			unknown++
		}
	}
	m := run(t, s)
	for i := range sinkCases {
		if err := sendOne(m.smtp, testMessage(i, 1000, "joe@"+sinkDomain(i))); err != nil {
			t.Fatal(err)
		}
	}
	bounces.waitFor(bounced)
	must(t, func() error { return m.queueShows(waiting, "") })
	must(t, func() error { return sinksWait(m) })
	for _, d := range bounces.arrivals() {
		id := testID(d.data)
		if id < 0 || id >= len(sinkCases) || sinkCases[id].bounce == "" {
			t.Errorf("a DSN for message %d: %.300q", id, d.data)
			continue
		}
		says(t, string(d.data), sinkCases[id].bounce, "joe@"+sinkDomain(id))
	}
	for i, c := range sinkCases {
		must(t, func() error { // the log is written behind the delivery
			event := "event=delivery failed,"
			if c.wait+c.bounce == "" {
				event = "event=delivered,"
			}
			if line := lineWith(readFile(t, m.log), "module=smtpc", event, "where="+c.where.String()+",", "rcpt=<joe@"+sinkDomain(i)+">"); line == "" || c.unknown != strings.Contains(line, "unknown=true") {
				return fmt.Errorf("smtp-sink %s: the log has %q", c.options, line)
			}
			return nil
		})
	}
	samples := scrape(t, m.metrics)
	for name, want := range map[string]int{
		`meta1_smtpc_recipients_total{result="delivered"}`: delivered + bounced, // and the DSNs
		`meta1_smtpc_recipients_total{result="failed"}`:    bounced,
		`meta1_smtpc_recipients_total{result="deferred"}`:  waiting,
		"meta1_smtpc_recipients_unknown_total":             unknown,
	} {
		if got, err := strconv.Atoi(samples[name]); err != nil || got < want {
			t.Errorf("%s is %q, want %d at least", name, samples[name], want)
		}
	}
}

func sinkDomain(i int) string { return fmt.Sprintf("s%d.test", i) }

// sinksWait returns nil if all that is to wait does so for its reason.
func sinksWait(m *mta) error {
	queue, err := m.queue()
	if err != nil {
		return err
	}
	for _, e := range queue {
		for _, r := range e.Recipients {
			var i int
			if _, err := fmt.Sscanf(r.Address, "joe@s%d.test", &i); err != nil || i < 0 || i >= len(sinkCases) {
				return fmt.Errorf("%s is in the queue", r.Address)
			}
			if c := sinkCases[i]; c.wait == "" || !strings.Contains(r.DelayReason, c.wait) {
				return fmt.Errorf("smtp-sink %s: %s waits for %q, not for %q", c.options, r.Address, r.DelayReason, c.wait)
			}
		}
	}
	return nil
}

// failingSink starts Postfix's smtp-sink with options until the test ends.
func failingSink(t *testing.T, options string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	args := append(strings.Fields(options), addr, "100")
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	startPeer(t, addr, peerCommand(t, "smtp-sink", args...))
	return addr
}
