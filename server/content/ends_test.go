package content

import (
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestNewBody: a new body takes the place of the message's, in memory and in files, with CR LF at
// the end of each line. What came before can be read until it is aborted, and no memory is lost.
func TestNewBody(t *testing.T) {
	for _, inlineMax := range []int64{0, 1 << 10} {
		memory, store := msg.NewMemory(1<<20), newFiles(t)
		cfg := Config{TA: smtp.ID{Counter: 1}, Store: store, Pools: &Pools{}, InlineMax: inlineMax, NUL: StripNUL}
		cfg.Memory = memory.Reserve()
		first := New(cfg)
		first.Begin([]byte("Received: x\r\n"), 0)
		first.Write([]byte("Received: y\r\nMessage-ID: <1@a.example>\r\n\r\nold\r\n"))
		if err := first.Detach(); err != nil {
			t.Fatal(err)
		}
		cfg.Memory = memory.Reserve()
		next := NewBody(cfg, first)
		var lines LineEnds
		for _, piece := range []string{"a\nb\r", "\nc\rd\x00\xe9"} {
			if err := lines.Write(next, []byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		lines.End(next)
		if next.Shape().ASCII || next.Hops() != 1 || next.MessageID() != "<1@a.example>" {
			t.Errorf("8 bit %v, %d hops, %q", !next.Shape().ASCII, next.Hops(), next.MessageID())
		}
		next.Rewrite(0, []byte("Received: x\r\nA: b\r\n\r\n"), len("Received: x\r\n"))
		text, r := next.Finish(&msg.Envelope{})
		if text == nil {
			text, _ = store.read(cfg.TA)
		}
		const want = "Received: x\r\nA: b\r\n\r\na\r\nb\r\nc\r\nd\xe9\r\n"
		if !r.IsZero() || string(text) != want || next.Size() != int64(len(want)-len("Received: x\r\n")) {
			t.Errorf("%v, size %d: %q", r, next.Size(), text)
		}
		first.Become(next)
		if first.Size() != next.Size() {
			t.Errorf("size %d, want %d", first.Size(), next.Size())
		}
		first.Abort()
		if _, kept := store.read(cfg.TA); kept != (inlineMax == 0) {
			t.Errorf("with %d bytes in memory: in a file %v", inlineMax, kept)
		}
		if n := memory.Used(); n != 0 {
			t.Errorf("%d bytes of the budget are lost", n)
		}
	}
}
