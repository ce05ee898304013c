package server

import (
	"bytes"
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

var replyHeaderLarge = smtp.NewReply(552, "5.3.4", "Header is too big")

// setHead has the message begin with text in place of the first drop bytes that were kept. It
// is called when all of it has come; the last call counts.
func (c *content) setHead(drop int64, text []byte) {
	if len(text) > msg.MaxTop {
		c.fail(replyHeaderLarge)
		return
	}
	if c.head != nil {
		c.memory.Give(int64(len(c.head.text)))
	}
	if !c.memory.Take(int64(len(text))) {
		c.fail(replyFull)
		return
	}
	c.head = &head{drop: drop, text: text}
	c.look(text)
	c.shape.ASCII = c.shape.ASCII && !smtp.Has8Bit(text)
	if c.file == nil && c.total() > c.inlineMax {
		c.spill()
	}
}

// reader reads what was kept from a place on, without a head. Nothing may be written while it
// is in use.
func (c *content) reader(from int64) io.Reader {
	if c.file == nil {
		return bytes.NewReader(c.mem[min(from, int64(len(c.mem))):])
	}
	if err := c.buffer.Flush(); err != nil {
		c.failStore(err)
		return bytes.NewReader(nil)
	}
	return io.NewSectionReader(c.file, from, c.written-from)
}

// withHead is the content in memory behind its head.
func (c *content) withHead() []byte {
	h := c.head
	size := int64(len(h.text)+len(c.mem)) - h.drop
	if !c.memory.Take(size) {
		c.fail(replyFull)
		return nil
	}
	b := append(append(make([]byte, 0, size), h.text...), c.mem[h.drop:]...)
	c.forget()
	c.memory.Give(int64(len(h.text)))
	c.mem, c.head, c.written = b, nil, size
	return b
}
