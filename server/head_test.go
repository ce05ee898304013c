package server

import (
	"io"
	"strings"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestContentHead: what the message begins with can be replaced when all of it has come, be it
// in memory or in a file, and nothing of the budget is lost by that.
func TestContentHead(t *testing.T) {
	const top, rest = "Received: x\r\n", "Subject: y\r\n\r\nbody\r\n"
	for _, inlineMax := range []int64{0, 64, 1 << 10} {
		for _, text := range []string{"", "A: b\r\n", top + "Signature: " + strings.Repeat("z", 200) + "\r\n"} {
			budget := msg.NewMemory(1 << 20)
			store := &memStore{files: map[smtp.ID]*memFile{}}
			c := &content{ta: smtp.ID{Counter: 1}, store: store, pool: &pools{}, memory: budget.Reserve(), inlineMax: inlineMax}
			c.begin([]byte(top), 0)
			c.write([]byte(rest))
			if got, err := io.ReadAll(c.reader(c.received)); err != nil || string(got) != rest {
				t.Fatalf("read %q, %v", got, err)
			}
			c.setHead(0, []byte("given up"))
			c.setHead(c.received, []byte(text))
			inline, r := c.finish(&msg.Envelope{})
			if !r.IsZero() {
				t.Fatal(r)
			}
			if inline == nil {
				inline = store.files[c.ta].data
			}
			if want := text + rest; string(inline) != want || c.total() != int64(len(want)) {
				t.Errorf("in memory up to %d: %q, total %d", inlineMax, inline, c.total())
			}
			c.abort()
			if n := budget.Used(); n != 0 {
				t.Errorf("%d bytes of the budget are lost", n)
			}
		}
	}
	c := &content{pool: &pools{}, memory: msg.NewMemory(1 << 10).Reserve(), inlineMax: 1 << 10}
	c.begin(nil, 0)
	if c.setHead(0, make([]byte, 1<<11)); c.failed.Code != 452 {
		t.Errorf("a head beyond the budget: %v", c.failed)
	}
}
