package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEntriesThatDemandTLS: mail of which a map demands TLS waits with the reason, until
// the entry has gone; the others of the message have theirs at once.
func TestEntriesThatDemandTLS(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	other := newSink(t, freeAddrOn(t, "127.0.0.2"))
	m := newMTA(t, settings{
		mailertable: toPort(t, "other.test", other.addr) + toPort(t, ".", s.addr),
		qmgr:        `conf = "qmgr_conf"; smtpc { flags = { lookup_rcpt_conf }; }`,
		smtpc:       `session_features quiet { flags = { read_QUIT_reply }; }`,
	})
	writeFile(t, m.dir+"/qmgr_conf", "smtpc_session_conf:127.0.0.2\tsession_feature=quiet; tls_requirements { flags=encrypted }\n")
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\nsmtpc_rcpt_conf:secret@d.test\ttls_requirements { flags=verified; violation=tempfail }\n")
	m.start()
	msg := testMessage(1, 1000, "a@d.test")
	msg.rcpts = append(msg.rcpts, "secret@d.test", "b@other.test")
	if err := sendOne(m.smtp, msg); err != nil {
		t.Fatal(err)
	}
	s.waitFor(1)
	reasons := map[string]string{
		"secret@d.test": "smtpc_rcpt_conf demands a verified TLS certificate",
		"b@other.test":  "smtpc_session_conf for [127.0.0.2]:" + port(t, other.addr) + " demands encryption",
	}
	must(t, func() error {
		queue, err := m.queue()
		if err != nil || len(queue) != 1 || len(queue[0].Recipients) != 2 {
			return fmt.Errorf("mailq: %+v, %w", queue, err)
		}
		for _, r := range queue[0].Recipients {
			if want := reasons[r.Address]; want == "" || !strings.Contains(r.DelayReason, want) {
				return fmt.Errorf("%s waits for %q, want %q", r.Address, r.DelayReason, want)
			}
		}
		return nil
	})
	if got := s.arrivals(); !slices.Equal(got[0].rcpts, []string{"a@d.test"}) || other.count() != 0 {
		t.Errorf("it went to %q, and %d times to the other host", got[0].rcpts, other.count())
	}
	writeFile(t, m.dir+"/qmgr_conf", "smtpc_session_conf:127.0.0.2\tsession_feature=quiet;\n")
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\n")
	if out, err := m.command("ctl", "reload"); err != nil {
		t.Fatal(out, err)
	}
	s.waitFor(2)
	other.waitFor(1)
}

// TestOwnersOfListsInLists: each list's members get the message from its own owner.
func TestOwnersOfListsInLists(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newMTA(t, settings{
		mailertable: "mta.test lmtp:\n" + toPort(t, ".", s.addr),
		smar:        `aliases { file = "aliases"; flags = { localpart }; }`,
	})
	writeFile(t, m.dir+"/aliases", "all <a@d.test> <sales@mta.test> <dev@mta.test>\nowner-all boss\nsales <b@d.test>\nowner-sales x\n"+
		"dev <c@d.test> <lab@mta.test>\nlab <e@d.test>\nowner-lab x\n")
	m.start()
	for i, size := range []int{1000, 300_000} { // in memory, and a file for each list
		if err := sendOne(m.smtp, testMessage(i, size, "all@mta.test")); err != nil {
			t.Fatal(err)
		}
		s.waitFor(3 * (i + 1))
	}
	count := map[string]int{}
	for _, a := range s.arrivals() {
		slices.Sort(a.rcpts)
		count[fmt.Sprint(a.from, ": ", strings.Join(a.rcpts, " "))]++
		if err := checkContent(a.data, testContent(testID(a.data), map[int]int{0: 1000, 1: 300_000}[testID(a.data)])); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"owner-all@mta.test: a@d.test c@d.test", "owner-sales@mta.test: b@d.test", "owner-lab@mta.test: e@d.test"} {
		if count[want] != 2 {
			t.Errorf("%q %d times of %v", want, count[want], count)
		}
	}
	m.queueEmpty()
}
