package e2e

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

// manySizes are sizes from nothing to 3 MB: in memory, committed with the envelope,
// and streamed to files.
func manySizes(id int) int {
	if id%20 == 0 {
		return id * 9973
	}
	return id * id % 200_000
}

const contents = 320

// TestContent sends messages of all shapes and sizes through meta1, some of which
// are deferred once, and compares every byte.
func TestContent(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	make := func(id int) message { return testMessage(id, manySizes(id), fmt.Sprintf("u%d@sink.test", id)) }
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	sendAll(t, m.smtp, 10, contents/2, make)
	s.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.3.0 later"}[verb] })
	sendAll(t, m.smtp, 10, contents/2, func(id int) message { return make(contents/2 + id) })
	time.Sleep(500 * time.Millisecond)
	s.answer(func(string, string) string { return "" })
	s.waitFor(contents)
	m.queueEmpty()
	checkArrivals(t, s, contents, make)
}

// TestContentLMTP does the same into a Maildir, where a line ends in LF.
func TestContentLMTP(t *testing.T) {
	m, mail := runLDA(t, settings{})
	sendAll(t, m.smtp, 10, contents, func(id int) message { return testMessage(id, manySizes(id), "joe+detail@box.test") })
	waitFiles(t, mail+"/joe/new", contents)
	m.queueEmpty()
	seen := map[int]bool{}
	for _, name := range mustFiles(t, mail+"/joe/new") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		const local = "Return-Path: <sender@client.test>\nDelivered-To: joe+detail@box.test\n"
		rest, ok := bytes.CutPrefix(data, []byte(local))
		id := testID(bytes.Replace(rest, []byte("\n"), []byte("\r\n"), 8))
		if !ok || id < 0 || seen[id] {
			t.Fatalf("%s: message %d begins with %.300q", name, id, data)
		}
		seen[id] = true
		sent := bytes.ReplaceAll(testContent(id, manySizes(id)), []byte("\r\n"), []byte("\n"))
		if err := checkContent(rest, sent); err != nil {
			t.Errorf("message %d: %v", id, err)
		}
	}
	if len(seen) != contents {
		t.Errorf("%d different messages, want %d", len(seen), contents)
	}
}
