package content

import (
	"bytes"
	"errors"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// What is decided only when a message is complete, and stands at its beginning all the same: a
// header that filters have changed, a signature.

// head is what the message begins with in place of what was kept first.
type head struct {
	drop int64 // bytes of what was kept that it replaces
	text []byte
}

// ReplyHeaderLarge refuses a message for the size of its header.
var ReplyHeaderLarge = smtp.NewReply(552, "5.3.4", "Header is too big")

// SetHead has the message begin with text in place of the first drop bytes that were kept. It
// is called when all of it has come; the last call counts.
func (c *Content) SetHead(drop int64, text []byte) {
	if len(text) > msg.MaxTop {
		c.Fail(ReplyHeaderLarge)
		return
	}
	if c.head != nil {
		c.cfg.Memory.Give(int64(len(c.head.text)))
	}
	if !c.cfg.Memory.Take(int64(len(text))) {
		c.FailMemory()
		return
	}
	c.head = &head{drop: drop, text: text}
	c.look(text)
	c.shape.ASCII = c.shape.ASCII && !smtp.Has8Bit(text)
	if c.file == nil && c.Total() > c.cfg.InlineMax {
		c.spill()
	}
}

// Reader reads what was kept from a place on, without a head. Nothing may be written while it
// is in use.
func (c *Content) Reader(from int64) io.Reader {
	if c.file == nil {
		return bytes.NewReader(c.mem[min(from, int64(len(c.mem))):])
	}
	if err := c.buffer.Flush(); err != nil {
		c.FailStore(err)
		return bytes.NewReader(nil)
	}
	return io.NewSectionReader(c.file, from, c.written-from)
}

// joinHead puts the content in memory behind its head. It reports false, and changes nothing, if the budget has no room for
// that.
func (c *Content) joinHead() bool {
	h := c.head
	size := int64(len(h.text)+len(c.mem)) - h.drop
	if !c.cfg.Memory.Take(size) {
		return false
	}
	b := append(append(make([]byte, 0, size), h.text...), c.mem[h.drop:]...)
	c.forget()
	c.cfg.Memory.Give(int64(len(h.text)))
	c.mem, c.head, c.written = b, nil, size
	return true
}

// Whole reads the content as it is to be, behind what was put on top of it.
func (c *Content) Whole() io.Reader {
	if h := c.head; h != nil {
		return io.MultiReader(bytes.NewReader(h.text), c.Reader(h.drop))
	}
	return c.Reader(0)
}

// Message reads the message of the client, without what we have put on top of it.
func (c *Content) Message() io.Reader {
	in := c.Whole()
	if _, err := io.CopyN(io.Discard, in, int64(len(c.results))+c.received); err != nil && !errors.Is(err, io.EOF) {
		c.FailStore(err)
	}
	return in
}

// SetResults says that text is our Authentication-Results:, which is put on top of our trace fields.
func (c *Content) SetResults(text []byte) { c.results = text }

// Results is what SetResults got; nil: there is none.
func (c *Content) Results() []byte { return c.results }

// Replaced is how many bytes of what was kept SetHead has replaced.
func (c *Content) Replaced() int64 {
	if c.head == nil {
		return 0
	}
	return c.head.drop
}

// Rewrite is SetHead for a text that has the whole header: its first received bytes are ours, and
// Size is that of the rest.
func (c *Content) Rewrite(drop int64, text []byte, received int) {
	c.received = int64(received)
	c.SetHead(drop, text)
	if c.failed.IsZero() {
		c.size = c.Total() - c.received
	}
}

// Detach gives up the content's file, if it has one, as that of the transaction, so that a new
// content can take its place. What was kept can still be read until Abort.
func (c *Content) Detach() error {
	if c.file == nil {
		return nil
	}
	if err := c.buffer.Flush(); err != nil {
		return err
	}
	return c.file.Detach()
}

// Prepend puts text on top of the content that has come in.
func (c *Content) Prepend(text []byte) {
	drop := int64(0)
	if h := c.head; h != nil {
		drop, text = h.drop, append(text, h.text...)
	}
	c.SetHead(drop, text)
}

// Take takes n bytes of the budget for messages, or gives back -n. It reports whether there was room.
func (c *Content) Take(n int64) bool {
	if n < 0 {
		c.cfg.Memory.Give(-n)
		return true
	}
	return c.cfg.Memory.Take(n)
}
