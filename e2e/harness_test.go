package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestHarness sends our test messages straight into our sink: every difference
// that a later test finds was then made by meta1.
func TestHarness(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	const n = 200
	size := func(id int) int { return 1 << (id % 19) }
	sendAll(t, s.addr, 5, n, func(id int) message {
		return testMessage(id, size(id), fmt.Sprintf("u%d@a.test", id))
	})
	s.waitFor(n)
	seen := map[int]bool{}
	for _, a := range s.arrivals() {
		id := testID(a.data)
		seen[id] = true
		if sent := testContent(id, size(id)); !bytes.Equal(a.data, sent) {
			t.Fatalf("message %d: %q came of %q", id, a.data, sent)
		}
		if want := fmt.Sprintf("u%d@a.test", id); len(a.rcpts) != 1 || a.rcpts[0] != want || a.from != "sender@client.test" {
			t.Errorf("message %d: from %s to %v, want %s", id, a.from, a.rcpts, want)
		}
	}
	if len(seen) != n {
		t.Errorf("%d different messages, want %d", len(seen), n)
	}
}

func TestHarnessRefusals(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	for verb, reply := range map[string]string{"MAIL": "452 full", "RCPT": "451 later", "DATA": "451 not now", ".": "452 no room"} {
		s.answer(func(v, _ string) string { return map[string]string{verb: reply}[v] })
		err := sendOne(s.addr, testMessage(1, 100, "a@b.test"))
		if err == nil || !strings.Contains(err.Error(), reply) {
			t.Errorf("refused at %s: %v", verb, err)
		}
	}
	s.answer(func(v, _ string) string { return map[string]string{"connect": "554 go away"}[v] })
	if err := sendOne(s.addr, testMessage(1, 100, "a@b.test")); err == nil {
		t.Error("refused greeting: no error")
	}
	if n := s.count(); n != 0 {
		t.Errorf("%d messages arrived that were refused", n)
	}
	s.close()
	if err := sendOne(s.addr, testMessage(1, 100, "a@b.test")); err == nil {
		t.Error("closed sink: no error")
	}
}

func TestCheckContent(t *testing.T) {
	t.Parallel()
	sent := "Subject: a\r\n\r\nbody\r\n"
	received := "Received: from a\r\n\tby b\r\n  ; today\r\n"
	if err := checkContent([]byte(received+sent), []byte(sent)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		sent,
		received + sent + "\r\n",
		received + sent[:len(sent)-2],
		received + strings.ReplaceAll(sent, "\r\n", "\n"),
		received + "X-New: 1\r\n" + sent,
		"X-New: 1\r\n" + received + sent,
		received + strings.Replace(sent, "body", "bodx", 1),
	} {
		if checkContent([]byte(bad), []byte(sent)) == nil {
			t.Errorf("not noticed: %q", bad)
		}
	}
}
