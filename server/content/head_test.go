package content

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
			store := newFiles(t)
			c := New(Config{TA: smtp.ID{Counter: 1}, Store: store, Pools: &Pools{}, Memory: budget.Reserve(), InlineMax: inlineMax})
			c.Begin([]byte(top), 0)
			c.Write([]byte(rest))
			if got, err := io.ReadAll(c.Reader(c.received)); err != nil || string(got) != rest {
				t.Fatalf("read %q, %v", got, err)
			}
			c.SetHead(0, []byte("given up"))
			c.SetHead(c.received, []byte(text))
			inline, r := c.Finish(&msg.Envelope{})
			if !r.IsZero() {
				t.Fatal(r)
			}
			if inline == nil {
				inline, _ = store.read(c.cfg.TA)
			}
			if want := text + rest; string(inline) != want || c.Total() != int64(len(want)) {
				t.Errorf("in memory up to %d: %q, total %d", inlineMax, inline, c.Total())
			}
			c.Abort()
			if n := budget.Used(); n != 0 {
				t.Errorf("%d bytes of the budget are lost", n)
			}
		}
	}
	c := New(Config{Pools: &Pools{}, Memory: msg.NewMemory(1 << 10).Reserve(), InlineMax: 1 << 10})
	c.Begin(nil, 0)
	if c.SetHead(0, make([]byte, 1<<11)); c.failed.Code != 452 || c.Cause() == nil {
		t.Errorf("a head beyond the budget: %v, %v", c.failed, c.Cause())
	}
}

// TestHeadWithoutMemory: content and its head that find no room in the budget side by side go to a file, and are not
// refused.
func TestHeadWithoutMemory(t *testing.T) {
	const head = "Signature: z\r\n"
	rest := "Subject: y\r\n\r\n" + strings.Repeat("body\r\n", 100)
	budget, store := msg.NewMemory(1<<10+int64(len(head))), newFiles(t)
	c := New(Config{TA: smtp.ID{Counter: 1}, Store: store, Pools: &Pools{}, Memory: budget.Reserve(), InlineMax: 1 << 20})
	c.Begin(nil, int64(len(rest)))
	c.Write([]byte(rest))
	c.SetHead(0, []byte(head))
	if inline, r := c.Finish(&msg.Envelope{}); inline != nil || !r.IsZero() {
		t.Fatalf("%d bytes in memory, %v", len(inline), r)
	}
	if got, err := store.read(c.cfg.TA); string(got) != head+rest {
		t.Errorf("the file has %q, %v", got, err)
	}
	if c.Abort(); budget.Used() != 0 {
		t.Errorf("%d bytes of the budget are lost", budget.Used())
	}
}
